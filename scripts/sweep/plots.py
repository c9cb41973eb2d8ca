"""Pictures of a sweep: the loss over each setting, all curves, parallel coordinates, changes."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.sweep.grid import BASE, PICTURES
from scripts.sweep.ranking import BITS, Group, difference
from utils.config.strict_yaml import parse_scalar
from utils.files import write_atomic
from utils.metrics import read_column, read_rows
from utils.suggest import leaf_of

BAND = 0.12  # share of an upright axis over which the lines through one value are spread
LOG_RATIO = 8.0  # numbers that span more than this ratio stand on a logarithmic axis
COLOURS = "viridis"
CURVES, AXES, PARALLEL, CHANGES = PICTURES
Rows = Sequence[Mapping[str, Any]]


def save(figure: Any, out: Path) -> None:
    """Writes a figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(out, picture.getvalue())


def new_figure(width: float, height: float) -> Any:
    """A figure without pyplot, which would keep it for ever."""
    import matplotlib.figure  # a second of import time, for the pictures alone

    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def drawable(rows: Rows) -> Rows:
    """The finished runs whose loss is a finite number."""
    return [
        row
        for row in rows
        if row["status"] == "done" and row.get(BITS) and math.isfinite(float(row[BITS]))
    ]


def scale_of(texts: Sequence[str]) -> tuple[Callable[[str], float], list[str], bool]:
    """Where the values of one setting stand on an axis, their texts in order, whether it is a log.

    Numbers stand at their place, anything else (and numbers among words) side by side.

    >>> place, order, log = scale_of(["0.1", "0.001", "0.1"])
    >>> place("0.1"), order, log
    (0.1, ['0.001', '0.1'], True)
    >>> scale_of(["gelu", "relu2"])[0]("relu2")
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


def label_ticks(axis: Any, places: Sequence[float], texts: Sequence[str]) -> None:
    """Ticks at the values that were run, as they stand in the sweep; of many, the usual ones."""
    import matplotlib.ticker

    if len(texts) > 8:
        return
    axis.set_major_locator(matplotlib.ticker.FixedLocator(list(places)))
    axis.set_major_formatter(matplotlib.ticker.FixedFormatter(list(texts)))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def plain_axes(axes: Any) -> None:
    """The look that all plots here share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def plot_axes(rows: Rows, settings: Sequence[str], out: Path) -> bool:
    """The loss over each setting: a point for each run, and a line through the means of each value.

    A mean is over all other settings and seeds. Whether there was anything to draw.
    """
    rows = drawable(rows)
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
        place, order, log = scale_of([row[name] for row in rows])
        found = [(place(row[name]), float(row[BITS])) for row in rows]
        axes.scatter(*zip(*found, strict=True), s=18, color="C0", alpha=0.55, linewidths=0)
        places = [place(text) for text in order]
        if len(order) < len(rows):  # else each point is its own mean
            means = [statistics.fmean(y for x, y in found if x == at) for at in places]
            axes.plot(places, means, color="C1", linewidth=1.6, label="mean")
        if log:
            axes.set_xscale("log")
        label_ticks(axes.xaxis, places, order)
        axes.set_xlabel(name)
        axes.set_ylabel("bits per byte" if number % columns == 0 else "")
        axes.margins(x=0.08)
        plain_axes(axes)
    save(figure, out)
    return True


def plot_curves(rows: Rows, metrics: Mapping[str, Path], out: Path) -> bool:
    """The validation loss of every run over its steps, coloured by its best loss.

    Args:
        metrics: point -> metrics.csv.

    Returns:
        Whether there was anything to draw.
    """
    rows = drawable(rows)
    curves = {row["point"]: read_column(read_rows(metrics[row["point"]]), BITS) for row in rows}
    rows = [row for row in rows if len(curves[row["point"]][0]) > 1]
    if not rows:
        return False
    figure = new_figure(8, 4.8)
    axes = figure.subplots()
    colours = colour_scale(figure, axes, [float(row[BITS]) for row in rows])
    for row in sorted(rows, key=lambda row: -float(row[BITS])):  # the best lie on top
        steps, bits = curves[row["point"]]
        axes.plot(steps, bits, color=colours(float(row[BITS])), linewidth=1.2)
    best = min(rows, key=lambda row: float(row[BITS]))
    axes.set_title(f"best: {best['point']}, {float(best[BITS]):.4f}", loc="left", fontsize=10)
    values = [bits for row in rows for bits in curves[row["point"]][1] if math.isfinite(bits)]
    if min(values) > 0 and max(values) / min(values) > 2:
        import matplotlib.ticker

        axes.set_yscale("log")  # the first losses would press the last ones together
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("val bits per byte")
    plain_axes(axes)
    save(figure, out)
    return True


def plot_parallel(rows: Rows, settings: Sequence[str], out: Path) -> bool:
    """Parallel coordinates: an upright axis for each setting and for the loss, a line for each run.

    Source: Inselberg, The plane with parallel coordinates, 1985. Whether there was anything to
    draw; with one setting alone plot_axes shows the same.
    """
    rows = drawable(rows)
    settings = [name for name in settings if len({row[name] for row in rows}) > 1]
    losses = [float(row[BITS]) for row in rows]
    if len(settings) < 2 or min(losses) == max(losses):
        return False
    figure = new_figure(2.0 * (len(settings) + 1) + 1.5, 4.8)
    axes = figure.subplots()
    colours = colour_scale(figure, axes, losses)
    scales = [scale_of([row[name] for row in rows]) for name in settings]
    low, high = min(losses), max(losses)
    for row in sorted(rows, key=lambda row: -float(row[BITS])):
        share = (float(row[BITS]) - low) / (high - low)
        nudge = BAND * (share - 0.5)  # by the loss, or the last line would hide the others
        values = zip(scales, settings, strict=True)
        heights = [height(scale, row[name]) + nudge for scale, name in values] + [share]
        axes.plot(range(len(heights)), heights, color=colours(float(row[BITS])), linewidth=1.2)
    for number, scale in enumerate(scales):
        mark_upright(axes, number, [(height(scale, text), text) for text in scale[1]])
    ends = [(0.0, f"{low:.4f}"), (1.0, f"{high:.4f}")]
    mark_upright(axes, len(settings), ends)
    axes.set_xticks(range(len(settings) + 1), [*map(leaf_of, settings), "bits per byte"])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.margins(x=0.06, y=0.05)
    save(figure, out)
    return True


def draw_all(rows: Rows, settings: Sequence[str], groups: Sequence[Group], out: Path) -> list[Path]:
    """Every picture that has something to show, into the sweep's folder; their paths.

    Args:
        groups: the rows by their change or settings.
    """
    metrics = {row["point"]: out / row["point"] / "metrics.csv" for row in rows}
    drawn = {CURVES: plot_curves(rows, metrics, out / CURVES)}
    if any(row.get("change") for row in rows):
        drawn[CHANGES] = plot_changes(groups, BASE, out / CHANGES)
    else:
        drawn[AXES] = plot_axes(rows, settings, out / AXES)
        drawn[PARALLEL] = plot_parallel(rows, settings, out / PARALLEL)
    return [out / name for name, done in drawn.items() if done]


def height(scale: tuple[Callable[[str], float], list[str], bool], text: str) -> float:
    """Where a value stands on an upright axis from 0 to 1."""
    place, order, log = scale
    bend = math.log if log else float
    low, high, here = (bend(place(one)) for one in (order[0], order[-1], text))
    return (here - low) / (high - low)


def mark_upright(axes: Any, number: int, marks: Sequence[tuple[float, str]]) -> None:
    """An upright axis with its values; of many, the first and the last."""
    axes.axvline(number, color="black", linewidth=0.8, zorder=0)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for at, text in marks if len(marks) <= 8 else (marks[0], marks[-1]):
        axes.text(number + 0.03, at, text, fontsize=8, va="center", bbox=box)


def colour_scale(figure: Any, axes: Any, losses: Sequence[float]) -> Callable[[float], Any]:
    """A colour for each loss, and the bar that tells which."""
    import matplotlib.cm
    import matplotlib.colors

    scale = matplotlib.colors.Normalize(min(losses), max(losses))
    colours = matplotlib.cm.ScalarMappable(scale, COLOURS)
    if min(losses) < max(losses):
        figure.colorbar(colours, ax=axes, label="best val bits per byte", pad=0.01)
    return lambda loss: colours.to_rgba(loss)


def plot_changes(groups: Sequence[Group], base: str, out: Path) -> bool:
    """What each change adds to the loss: a point, and its 95% interval where there is one."""
    first = next((one for one in groups if one.label == base), None)
    others = [one for one in groups if one is not first]
    found = [(one.label, difference(first, one)) for one in others] if first else []
    known = [(label, gap) for label, gap in found if gap and math.isfinite(gap.mean)]
    if not known:
        return False
    figure = new_figure(8, 1.2 + 0.32 * len(known))
    axes = figure.subplots()
    for number, (_, gap) in enumerate(reversed(known)):
        noise = 0.0 if math.isnan(gap.noise) else gap.noise
        colour = {"better": "C2", "worse": "C3"}.get(gap.word(), "0.5")
        axes.errorbar(gap.mean, number, xerr=noise, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(known)), [label for label, _ in reversed(known)])
    axes.set_ylim(-0.6, len(known) - 0.4)
    axes.set_xlabel(f"adds to the bits per byte of the {base}, with its 95% interval")
    plain_axes(axes)
    save(figure, out)
    return True
