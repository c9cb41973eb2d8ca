"""Plots of loss curves from metrics.csv files."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.metrics import read_column, read_rows
from utils.run.figure import (
    COLOURS,
    add_legend,
    draws,
    line_style,
    new_figure,
    picture_format,
    save_figure,
    style_axes,
    warn_if_not_drawn,
)
from utils.run.folder import RunFolder

LIGHT = COLOURS[5]  # light blue, for the train curve next to a blue val curve
UNITS = {"loss": "nats per token", "bpb": "bits per byte"}
LOG_RATIO = 4.0  # if max / min is at least this, the y axis is logarithmic
# Labels of a logarithmic axis: enough at any scale, without overlaps.
TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 1.5, 2, 3, 5, 7)]


@draws
def plot_losses(
    runs: Mapping[str, Path], out: Path, *, floor: float | None = None, unit: str = "loss"
) -> None:
    """Plot loss over steps, in one colour per run, and write the picture to `out`.

    Args:
        runs: label -> metrics.csv.
        floor: entropy floor in the plotted unit, shown as a dashed line.
        unit: `loss` plots train and val loss in nats per token; `bpb` plots val loss in bits per
            byte, which is comparable across tokenizers.

    Raises:
        UserError: a file is missing, damaged or empty, the format of `out` is not supported, or
            Matplotlib fails.
    """
    picture_format(out)
    figure = new_figure()
    axes = figure.subplots()
    only_run = len(runs) == 1
    values = [
        value
        for number, (label, path) in enumerate(runs.items())
        for value in plot_run(axes, "" if only_run else f"{label} ", path, number, unit, len(runs))
    ]
    if not values:
        raise UserError(
            f"{', '.join(str(path) for path in runs.values())}: nothing to plot yet; "
            "wait for the first log line"
        )
    if floor is not None:
        label = f"floor {floor:.4f}: the entropy of the text"
        axes.axhline(floor, color="black", linestyle=(0, (6, 3)), linewidth=1, label=label)
    scale_y(axes, values + ([] if floor is None else [floor]))
    title = f"Loss of {next(iter(runs)) if only_run else f'{len(runs)} runs'} during training"
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel="optimizer step", ylabel=UNITS[unit])
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.margins(x=0.02)
    style_axes(axes)
    add_legend(axes, below=not only_run)
    save_figure(figure, out)


def plot_finished_run(run: RunFolder) -> bool:
    """Plot a run's loss, with the entropy floor of run.json if it has one.

    Log a warning and return False if that fails.
    """
    with warn_if_not_drawn():
        floor = run.read_record().get("floor_nats_per_token")
        plot_losses({run.path.name: run.metrics}, run.plot, floor=floor)
        return True
    return False


def plot_run(axes: Any, name: str, path: Path, number: int, unit: str, n_runs: int) -> list[float]:
    """Plot one run's train and val curves, and return the finite values plotted.

    The val curve starts at the first evaluation after step 0: a line from step 0 would show losses
    that nobody has measured. Step 0 is a single marker if there is no other evaluation, or if its
    loss is lower than all others. Of several runs, an earlier one has wider lines, so that a later
    one with equal losses does not hide them.
    """
    rows, values, style = read_rows(path), list[float](), line_style(number)
    under = 1 - (number + 1) / n_runs
    style |= {"linewidth": 1.5 + 3 * under, "markersize": 4 + 6 * under}
    if unit == "loss":
        steps, train = read_column(rows, "train_loss")
        if steps:
            # A single run's two curves differ in colour. Of several runs, each has one colour for
            # both curves, and the legend has one entry for all train curves, to stay short.
            label = "train" if not name else None if number else "thin lines: train"
            plain = {"color": style["color"] if name else LIGHT, "linestyle": style["linestyle"]}
            plain |= {"linewidth": 1.1 + under, "zorder": 1.5}
            if len(steps) == 1:  # a ring, which a val point at the same place does not hide
                plain |= {"marker": "o", "markersize": style["markersize"] + 5}
                plain |= {"markeredgewidth": 1.1, "markerfacecolor": "none"}
            axes.plot(steps, train, label=label, **plain)
        values += train
    steps, val = read_column(rows, "val_loss" if unit == "loss" else "val_bpb")
    start = math.nan
    if len(steps) > 1 and steps[0] == 0:
        start, steps, val = val[0], steps[1:], val[1:]
    if steps:
        lowest = min(filter(math.isfinite, val), default=math.nan)
        when = f" at step {steps[val.index(lowest)]}" if math.isfinite(lowest) else ""
        words = "before training" if steps == [0] else f"lowest {lowest:.4f}{when}"
        axes.plot(steps, val, label=f"{name}val, {words}", **style)
        if lowest > start:
            axes.plot([0], [start], label=f"{name}val, {start:.4f} before training", **style)
            values.append(start)
    return [value for value in values + val if math.isfinite(value)]


def scale_y(axes: Any, values: list[float]) -> None:
    """Make the y axis logarithmic, with plain numbers, if the values span a large ratio.

    On a linear axis the first loss, near ln V, would squeeze the end of the curve onto the floor.
    """
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    low, high = min(values), max(values)
    if low <= 0 or high / low < LOG_RATIO:
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.08)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
