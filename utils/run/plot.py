"""Plots of loss curves from metrics.csv files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.metrics import read_column, read_rows
from utils.run.figure import (
    draws,
    new_figure,
    picture_format,
    save_figure,
    style_axes,
    warn_if_not_drawn,
)
from utils.run.folder import RunFolder

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
    values = [
        value
        for number, (label, path) in enumerate(runs.items())
        for value in plot_run(axes, label, path, f"C{number}", unit, only_run=len(runs) == 1)
    ]
    if not values:
        raise UserError(f"{', '.join(str(path) for path in runs.values())}: nothing to plot yet")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"floor {floor:.4f}")
    scale_y(axes, values + ([] if floor is None else [floor]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(UNITS[unit])
    axes.margins(x=0.02)
    style_axes(axes, legend=True)
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


def plot_run(
    axes: Any, label: str, path: Path, colour: str, unit: str, only_run: bool
) -> list[float]:
    """Plot one run's train and val curves, and return the finite values plotted."""
    rows, values = read_rows(path), []
    name = "" if only_run else f"{label} "
    if unit == "loss":
        steps, train = read_column(rows, "train_loss")
        if steps:
            axes.plot(steps, train, color=colour, alpha=0.4, linewidth=0.9, label=f"{name}train")
        values += train
    steps, val = read_column(rows, "val_loss" if unit == "loss" else "val_bpb")
    if steps:
        best = min(filter(math.isfinite, val), default=math.nan)
        name = f"{name}val, best {best:.4f}"
        axes.plot(steps, val, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    if only_run:
        axes.set_title(label, loc="left", fontsize=10)
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
