"""Plots of a sweep: the loss over each setting, all loss curves, the effect of each change.

Before importing this module, call `import_matplotlib` of utils.run.figure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, StrMethodFormatter

from scripts.sweep.grid import BASE, PICTURES
from scripts.sweep.ranking import BITS, Group, difference
from utils.config.strict_yaml import parse_scalar
from utils.metrics import read_column, read_rows
from utils.run.figure import draws, new_figure, plain_text, save_figure, style_axes

LOG_RATIO = 8.0  # values that span more than this ratio get a logarithmic axis
COLOURS = "viridis"
CURVES, AXES, CHANGES = PICTURES
Rows = Sequence[Mapping[str, Any]]


def loss_of(row: Mapping[str, Any]) -> float:
    """Return the best bits per byte of a run, or NaN if there are none."""
    return float(row.get(BITS) or "nan")


def finite(rows: Rows) -> Rows:
    """Return the finished runs whose loss is a finite number."""
    return [row for row in rows if row["status"] == "done" and math.isfinite(loss_of(row))]


def axis_scale(texts: Sequence[str]) -> tuple[Callable[[str], float], list[str], bool]:
    """Return the position of each value on an axis, the values in order, and if the axis is log.

    A number is its own position. If a value is not a number, all values are numbered in order.

    >>> position, order, log = axis_scale(["0.1", "0.001", "0.1"])
    >>> position("0.1"), order, log
    (0.1, ['0.001', '0.1'], True)
    >>> axis_scale(["gelu", "relu2"])[0]("relu2")
    1.0
    """
    values = {text: parse_scalar(text) for text in texts}
    numbers = all(type(value) in (int, float) for value in values.values())
    if not numbers:
        order = list(dict.fromkeys(texts))
        return lambda text: float(order.index(text)), order, False
    order = sorted(values, key=lambda text: float(values[text]))
    low, high = float(values[order[0]]), float(values[order[-1]])
    return lambda text: float(values[text]), order, low > 0 and high / low > LOG_RATIO


def label_ticks(axis: Axis, positions: Sequence[float], texts: Sequence[str]) -> None:
    """Put ticks at the values of the sweep; with more than eight, keep Matplotlib's ticks."""
    if len(texts) > 8:
        return
    axis.set_major_locator(FixedLocator(list(positions)))
    axis.set_major_formatter(FixedFormatter([plain_text(text) for text in texts]))
    axis.set_minor_locator(NullLocator())


@draws
def plot_axes(rows: Rows, settings: Sequence[str], out: Path) -> bool:
    """Plot the loss over each setting: a point for each run, a line through each value's mean.

    A mean is over all other settings and seeds. Returns True if there was anything to plot.
    """
    rows = finite(rows)
    settings = [name for name in settings if len({row[name] for row in rows}) > 1]
    if not settings:
        return False
    columns = len(settings) if len(settings) < 4 else math.ceil(math.sqrt(len(settings)))
    lines = math.ceil(len(settings) / columns)
    figure = new_figure(3.6 * columns, 3.2 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number >= len(settings):
            axes.set_visible(False)
            continue
        name = settings[number]
        position, order, log = axis_scale([row[name] for row in rows])
        found = [(position(row[name]), loss_of(row)) for row in rows]
        axes.scatter(*zip(*found, strict=True), s=18, color="C0", alpha=0.55, linewidths=0)
        positions = [position(text) for text in order]
        if len(order) < len(rows):  # else each point is its own mean
            means = [statistics.fmean(y for x, y in found if x == at) for at in positions]
            axes.plot(positions, means, color="C1", linewidth=1.6)
        if log:
            axes.set_xscale("log")
        label_ticks(axes.xaxis, positions, order)
        axes.set_xlabel(name)
        axes.set_ylabel("bits per byte" if number % columns == 0 else "")
        axes.margins(x=0.08)
        style_axes(axes)
    save_figure(figure, out)
    return True


@draws
def plot_curves(rows: Rows, metrics: Mapping[str, Path], out: Path) -> bool:
    """Plot the validation loss of every run over its steps, coloured by its best loss.

    Args:
        metrics: point -> metrics.csv.

    Returns:
        True if there was anything to plot.
    """
    curves = {
        row["point"]: read_column(read_rows(metrics[row["point"]]), BITS) for row in finite(rows)
    }
    rows = sorted((row for row in finite(rows) if len(curves[row["point"]][0]) > 1), key=loss_of)
    if not rows:
        return False
    figure = new_figure()
    axes = figure.subplots()
    losses = np.array([loss_of(row) for row in rows])
    colours = ScalarMappable(Normalize(losses[0], losses[-1]), COLOURS)
    if losses[0] < losses[-1]:
        figure.colorbar(colours, ax=axes, label="best val bits per byte", pad=0.01)
    colours_RC = colours.to_rgba(losses)
    for row, colour_C in reversed(list(zip(rows, colours_RC, strict=True))):  # the best on top
        axes.plot(*curves[row["point"]], color=colour_C, linewidth=1.2)
    axes.set_title(f"best: {rows[0]['point']}, {losses[0]:.4f}", loc="left", fontsize=10)
    values = [bits for row in rows for bits in curves[row["point"]][1] if math.isfinite(bits)]
    if min(values) > 0 and max(values) / min(values) > 2:
        axes.set_yscale("log")  # on a linear axis the high first losses would hide the differences
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("val bits per byte")
    style_axes(axes)
    save_figure(figure, out)
    return True


def plot_all(rows: Rows, settings: Sequence[str], groups: Sequence[Group], out: Path) -> list[Path]:
    """Write all plots that have data into the sweep's folder; return their paths.

    Args:
        groups: the rows grouped by change or settings.
    """
    metrics = {row["point"]: out / row["point"] / "metrics.csv" for row in rows}
    written = {CURVES: plot_curves(rows, metrics, out / CURVES)}
    if any(row.get("change") for row in rows):
        written[CHANGES] = plot_changes(groups, BASE, out / CHANGES)
    else:
        written[AXES] = plot_axes(rows, settings, out / AXES)
    return [out / name for name, done in written.items() if done]


@draws
def plot_changes(groups: Sequence[Group], base: str, out: Path) -> bool:
    """Plot the difference that each change makes to the loss, with its 95% interval if known."""
    first = next((one for one in groups if one.label == base), None)
    found = [(one.label, difference(first, one)) for one in groups if first and one is not first]
    known = [(label, gap) for label, gap in found if gap and math.isfinite(gap.mean)]
    if not known:
        return False
    figure = new_figure(8, 1.2 + 0.32 * len(known))
    axes = figure.subplots()
    for number, (_, gap) in enumerate(reversed(known)):
        noise = 0.0 if math.isnan(gap.noise) else gap.noise
        colour = {"better": "C2", "worse": "C3"}.get(gap.describe(), "0.5")
        axes.errorbar(gap.mean, number, xerr=noise, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(known)), [plain_text(label) for label, _ in reversed(known)])
    axes.set_ylim(-0.6, len(known) - 0.4)
    axes.set_xlabel(f"adds to the bits per byte of the {base}, with its 95% interval")
    style_axes(axes)
    save_figure(figure, out)
    return True
