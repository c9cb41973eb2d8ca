"""Plots of a sweep: the loss over each setting, all loss curves, the effect of each change.

Before importing this module, call `import_matplotlib` of utils.run.figure.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullLocator

from scripts.sweep import ranking
from scripts.sweep.grid import BASE, PICTURES
from utils.config.strict_yaml import parse_value
from utils.errors import plural
from utils.metrics import read_column, read_rows
from utils.run import figure as pictures
from utils.run.figure import save_figure
from utils.run.plot import scale_y

LOG_RATIO = 8.0  # values that span more than this ratio get a logarithmic axis
MAX_LINES = 8  # more variants are coloured by their loss, and most have no entry in the legend
MANY_COLOURS = "viridis"  # even steps of lightness for any colour vision
MAX_TICKS = 8  # of an axis
TICK_LENGTH, LABEL_LENGTH = 18, 40  # characters of a tick's text, and of a change's name
# How plot_changes shows a change: what `describe_change` returns -> colour, marker, its face,
# text of the legend. "" stands for all else that it returns, and for changes with unfinished runs.
VERDICTS = {
    "better": (pictures.BLUE, "o", pictures.BLUE, "lower loss than the base"),
    "worse": (pictures.RED, "s", pictures.RED, "higher loss than the base"),
    "within the noise": ("black", "D", "white", "no difference beyond the noise"),
    "": ("0.4", "^", "white", "not known: one seed, or unfinished"),
}
NEXT_TO = {  # style of the number next to a mean
    "xytext": (5, 7),
    "textcoords": "offset points",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
}
# Style of a text at the height of a line in the plot, with x in parts of the axes' width.
AT_THE_RIGHT = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
TITLE = "Validation loss during training"
CURVES, AXES, CHANGES = PICTURES
Rows = Sequence[Mapping[str, Any]]  # of results.csv
Groups = Sequence[ranking.Group]
Curve = tuple[list[int], list[float]]  # steps, losses


def finite(rows: Rows) -> Rows:
    """Return the finished runs whose loss is a finite number."""
    return [row for row in rows if row["status"] == "done" and math.isfinite(ranking.loss_of(row))]


def axis_scale(texts: Sequence[str]) -> tuple[Callable[[str], float], list[str], bool]:
    """Return a function value -> position on an axis, the values in order, and if it is log.

    A number is its own position. If one value is not a number, all are numbered as they appear.

    >>> position, order, log = axis_scale(["0.1", "0.001", "0.1"])
    >>> position("0.1"), order, log
    (0.1, ['0.001', '0.1'], True)
    >>> axis_scale(["gelu", "relu2"])[0]("relu2")
    1.0
    """
    values = {text: parse_value(text) for text in texts}
    if not all(type(value) in (int, float) for value in values.values()):
        order = list(dict.fromkeys(texts))
        return lambda text: float(order.index(text)), order, False
    order = sorted(values, key=lambda text: float(values[text]))
    low, high = float(values[order[0]]), float(values[order[-1]])
    return lambda text: float(values[text]), order, low > 0 and high / low > LOG_RATIO


def label_ticks(axis: Axis, places: Sequence[float], texts: Sequence[str], numbers: bool) -> None:
    """Put ticks at the values of the sweep; with many numbers, at round ones."""
    if numbers and len(texts) > MAX_TICKS:
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=MAX_TICKS))
            axis.set_minor_locator(NullLocator())
        return
    axis.set_major_locator(FixedLocator(list(places)))
    short = [pictures.plain_text(text, TICK_LENGTH) for text in texts]
    axis.set_major_formatter(FixedFormatter(short))
    axis.set_minor_locator(NullLocator())
    if sum(len(text) + 1 for text in texts) > 30:  # too wide for one line
        for label in axis.get_ticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


@pictures.draws
def plot_axes(rows: Rows, settings: Sequence[str], out: Path) -> bool:
    """Plot the loss over each setting: a point for each run, a line through comparable means.

    Returns True if there was anything to plot.
    """
    title, all_settings, rows = ranking.describe_sweep(rows, settings), settings, finite(rows)
    settings = [name for name in settings if len({row[name] for row in rows}) > 1]
    if not settings:
        return False
    columns = len(settings) if len(settings) < 4 else math.ceil(math.sqrt(len(settings)))
    grid_rows = math.ceil(len(settings) / columns)
    figure = pictures.new_figure(max(6.0, 3.6 * columns), 3.2 * grid_rows + 0.4)
    grid = figure.subplots(grid_rows, columns, squeeze=False, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number >= len(settings):
            axes.set_visible(False)
            continue
        plot_setting(axes, rows, settings[number], all_settings)
        axes.set_ylabel("best val bits per byte" if number % columns == 0 else "")
    scale_y(grid.flat[0], [ranking.loss_of(row) for row in rows])
    with_mean = next((axes for axes in grid.flat if axes.lines), grid.flat[0])
    pictures.add_legend(with_mean, below=True)
    figure.suptitle(f"Loss over each setting\n{title}", x=0.01, ha="left", fontsize=10)
    save_figure(figure, out)
    return True


def plot_setting(axes: Any, rows: Rows, name: str, settings: Sequence[str]) -> None:
    """Plot the loss of each run over one setting, and the means that can be compared."""
    position, order, log = axis_scale([row[name] for row in rows])
    found = [(position(row[name]), ranking.loss_of(row)) for row in rows]
    means, n_runs = comparable_means(rows, name, settings)
    dots = {"s": 22, "color": pictures.BLUE, "alpha": 0.6, "linewidths": 0, "zorder": 3}
    axes.scatter(*zip(*found, strict=True), label="a run", **dots)
    if means:
        label = "mean of the runs at this value (only seeds and settings that every value has)"
        xy = [(position(text), means[text]) for text in order]
        axes.plot(*zip(*xy, strict=True), color=pictures.RED, marker="s", markersize=5, label=label)
        for text in order if len(order) <= MAX_TICKS else ():
            place = (position(text), means[text])
            axes.annotate(f"{means[text]:.4f}", place, color=pictures.RED, **NEXT_TO)
        words = f"mean over {plural(n_runs, 'run')} at each value"
    else:
        words = "no mean: no other settings are the same at all values"
    axes.set_title(words, loc="left", fontsize=8)
    if log:
        axes.set_xscale("log")
    # Values in order get a tick each, however many: words, or the numbers of a grid.
    numbers = order != list(dict.fromkeys(row[name] for row in rows)) or log
    label_ticks(axes.xaxis, [position(text) for text in order], order, numbers)
    short = ranking.label_names(settings)[name]
    axes.set_xlabel(f"{short} (log scale)" if log else short)
    axes.margins(x=0.12, y=0.12)
    pictures.style_axes(axes)


def comparable_means(rows: Rows, name: str, names: Sequence[str]) -> tuple[dict[str, float], int]:
    """Return the mean loss of each value of a setting, and the number of runs in each mean.

    The means are over those other settings and seeds that all values have, so that the means differ
    only by the value. Without such settings there are no means, as in a random search, where the
    points differ in all settings.

    >>> rows = [{"x": x, "y": y, "val_bpb": x} for x, y in (("1", "1"), ("2", "1"), ("2", "3"))]
    >>> comparable_means(rows, "x", ["x", "y"])
    ({'1': 1.0, '2': 2.0}, 1)
    """
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in rows:
        rest = (*(row[other] for other in names if other != name), row.get("seed"))
        found.setdefault(row[name], {})[rest] = ranking.loss_of(row)
    common = set.intersection(*map(set, found.values()))
    means = {x: statistics.fmean(own[y] for y in common) for x, own in found.items() if common}
    return means, len(common)


def read_curve(path: Path) -> Curve:
    """Return steps and bits per byte of a run's evaluations, without step 0."""
    steps, bits = read_column(read_rows(path), ranking.BITS)
    return (steps[1:], bits[1:]) if steps and steps[0] == 0 else (steps, bits)


def mean_curve(curves: Sequence[Curve]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Return the steps that all curves have, and the mean, lowest and highest loss at each step.

    >>> mean_curve([([10, 20], [3.0, 2.0]), ([10], [4.0])])
    ([10], [3.5], [3.0], [4.0])
    """
    losses = [dict(zip(steps, bits, strict=True)) for steps, bits in curves]
    steps = [step for step in losses[0] if all(step in one for one in losses)]
    found = [[one[step] for one in losses] for step in steps]
    return steps, [statistics.fmean(x) for x in found], list(map(min, found)), list(map(max, found))


@pictures.draws
def plot_curves(rows: Rows, settings: Sequence[str], groups: Groups, out: Path) -> bool:
    """Plot the validation loss over the steps: for each variant the mean and range over seeds.

    Args:
        groups: the rows grouped by change or settings, best first.
        out: in the folder of the runs.

    Returns:
        True if there was anything to plot.
    """
    curves: dict[str, list[Curve]] = {}
    for row in finite(rows):
        curve = read_curve(out.with_name(row["point"]) / "metrics.csv")
        if curve[0]:
            curves.setdefault(ranking.label_of(row, settings), []).append(curve)
    shown = [one for one in groups if one.label in curves and math.isfinite(one.mean())]
    if not shown:
        return False
    figure = pictures.new_figure()
    axes = figure.subplots()
    many, title = len(shown) > MAX_LINES, TITLE
    shades = ScalarMappable(Normalize(shown[0].mean(), shown[-1].mean()), MANY_COLOURS)
    for number, one in enumerate(shown):
        style = pictures.line_style(number) | {"zorder": 3 - number / len(shown)}  # the best on top
        if many:
            colour = shades.to_rgba(np.array(one.mean()))
            style |= {"color": colour, "linestyle": "-", "linewidth": 1.0}
        named = not many or number in (0, len(shown) - 1)  # of many, the best and the worst
        steps, means, lows, highs = mean_curve(curves[one.label])
        if len(steps) < 2:
            style["linestyle"], title = "none", f"{TITLE}; a single point: one evaluation in a run"
        axes.plot(steps, means, label=one.describe() if named else None, **style)
        if len(curves[one.label]) > 1:
            edge = 0 if len(steps) > 1 else 2  # else the band of a single point has no width
            axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.2, linewidth=edge)
    if many:
        figure.colorbar(shades, ax=axes, label="best val bits per byte, mean over seeds", pad=0.01)
    scale_y(axes, [y for line in axes.lines for y in line.get_ydata() if math.isfinite(y)])
    axes.set_title(f"{title}\n{ranking.describe_sweep(rows, settings)}", loc="left", fontsize=10)
    axes.set(xlabel="optimizer step", ylabel="val bits per byte")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    pictures.style_axes(axes)
    pictures.add_legend(axes, below=True, title=legend_title(many, curves.values()))
    save_figure(figure, out)
    return True


def legend_title(many: bool, curves: Iterable[Sequence[Curve]]) -> str:
    """Return the title of the curves' legend: what a line, a band and a number mean."""
    title = "colours: see the bar; only the best and the worst variant are named\n" * many
    title += "variant: its best val bits per byte"
    if all(len(one) == 1 for one in curves):
        return title
    words = "line: mean over the seeds; band: from the lowest to the highest seed"
    return f"{title}, mean +- standard deviation over the seeds\n{words}"


def plot_all(
    rows: Rows, settings: Sequence[str], groups: Groups, out: Path, picture_format: str = "png"
) -> list[Path]:
    """Write all plots that have data into the sweep's folder; return their paths.

    Args:
        groups: the rows grouped by change or settings.
        picture_format: one of `FORMATS` of utils.run.figure.
    """
    path = {name: out / f"{name}.{picture_format}" for name in PICTURES}
    written = {CURVES: plot_curves(rows, settings, groups, path[CURVES])}
    if any(row.get("change") for row in rows):
        written[CHANGES] = plot_changes(groups, BASE, path[CHANGES])
    else:
        written[AXES] = plot_axes(rows, settings, path[AXES])
    return [path[name] for name, done in written.items() if done]


@pictures.draws
def plot_changes(groups: Groups, base: str, out: Path) -> bool:
    """Plot the difference that each change makes to the loss, with its 95% interval if known."""
    first = ranking.find_group(groups, base)
    found = [(one, ranking.difference(first, one)) for one in groups if first and one is not first]
    known = [(one, gap) for one, gap in found if gap and math.isfinite(gap.mean)]
    if first is None or not known:
        return False
    figure = pictures.new_figure(8, 1.6 + 0.32 * len(known))
    axes = figure.subplots()
    labelled = set()
    for number, (one, gap) in enumerate(reversed(known)):
        verdict = ranking.describe_change(first, one)
        colour, marker, face, label = VERDICTS.get(verdict, VERDICTS[""])
        interval = "" if math.isnan(gap.noise) else f" +- {gap.noise:.4f}"
        if interval:
            ends = (gap.mean - gap.noise, gap.mean + gap.noise)
            axes.plot(ends, (number, number), color=colour, marker="|", linewidth=1.2)
        style = {"color": colour, "marker": marker, "markerfacecolor": face, "linestyle": ""}
        axes.plot(gap.mean, number, **style, label=None if label in labelled else label)
        labelled.add(label)
        axes.annotate(f"{gap.mean:+.4f}{interval}", (1.01, number), **AT_THE_RIGHT)
    axes.axvline(0, color="black", linewidth=0.8)
    labels = [pictures.plain_text(one.label, LABEL_LENGTH) for one, _ in reversed(known)]
    axes.set_yticks(range(len(known)), labels)
    axes.set_ylim(-0.6, len(known) - 0.4)
    title = f"Effect of each change on the validation loss\n{first.describe()} val bits per byte"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    n_seeds = max(gap.seeds for _, gap in known)
    bar = "bar and +-: 95% interval of the mean over seeds" if n_seeds > 1 else "one seed each"
    axes.set_xlabel(f"val bits per byte minus {base}'s with the same seed\n{bar}")
    pictures.style_axes(axes)
    pictures.add_legend(axes, below=True)
    save_figure(figure, out)
    return True
