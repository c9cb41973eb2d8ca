"""Loss curves from metrics.csv files, and the look that all pictures of this repository share.

Matplotlib is imported by the functions: train.py needs it at its end only, and its import takes
half a second.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_atomic
from utils.metrics import read_column, read_rows

UNITS = {"loss": "nats per token", "bpb": "bits per byte"}
LOG_RATIO = 4.0  # curves that span more than this ratio are plotted on a logarithmic axis
# Figures along a logarithmic axis: enough of them at any zoom, none crowded.
TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 1.5, 2, 3, 5, 7)]


def new_figure(width: float = 8, height: float = 4.8) -> Any:
    """Return a figure, sized in inches, without pyplot, which would keep it for ever."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style_axes(axes: Any, *, legend: bool = False) -> None:
    """Give axes the common look: no frame at the top and the right, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if legend:
        axes.legend(frameon=False)


def picture_format(out: Path) -> str:
    """Return the format of a picture by its name's ending; PNG without one.

    Raises:
        UserError: Matplotlib does not know it.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    kind = out.suffix.lstrip(".").lower() or "png"
    if kind not in known:
        raise UserError(f"{out}: can't draw a .{kind}; known: {', '.join(sorted(known))}")
    return kind


def save_figure(figure: Any, out: Path) -> None:
    """Write a figure in the format that the file's name ends in.

    Raises:
        UserError: Matplotlib does not know the format.
        OSError: the file can't be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format=picture_format(out), dpi=120)
    write_atomic(out, picture.getvalue())


def plot_losses(
    runs: Mapping[str, Path], out: Path, *, floor: float | None = None, unit: str = "loss"
) -> None:
    """Plot loss over steps, one colour a run, into a PNG (or what `out` ends in).

    Args:
        runs: label -> metrics.csv.
        floor: entropy floor, in the unit plotted; a dashed line.
        unit: `loss` plots train and val loss in nats per token; `bpb` plots val in bits per byte,
            the unit that compares across tokenizers.

    Raises:
        UserError: a file is missing, not ours, or holds nothing to plot, or the format of `out` is
            not known.
    """
    picture_format(out)
    figure = new_figure()
    axes = figure.subplots()
    values = [
        value
        for number, (label, path) in enumerate(runs.items())
        for value in plot_run(axes, label, path, f"C{number}", unit, alone=len(runs) == 1)
    ]
    if not values:
        raise UserError(f"{', '.join(str(path) for path in runs.values())}: nothing to draw yet")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"floor {floor:.4f}")
    scale_y(axes, values + ([] if floor is None else [floor]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(UNITS[unit])
    axes.margins(x=0.02)
    style_axes(axes, legend=True)
    save_figure(figure, out)


def plot_run(axes: Any, label: str, path: Path, colour: str, unit: str, alone: bool) -> list[float]:
    """Plot one run's train and val curves; return the finite values plotted."""
    rows, values = read_rows(path), []
    name = "" if alone else f"{label} "
    if unit == "loss":
        steps, train = read_column(rows, "train_loss")
        if steps:
            axes.plot(steps, train, color=colour, alpha=0.4, linewidth=0.9, label=f"{name}train")
        values += train
    steps, val = read_column(rows, "val_loss" if unit == "loss" else "val_bpb")
    if steps:
        # The figure that is asked for first: the best validation loss.
        best = min(filter(math.isfinite, val), default=math.nan)
        name = f"{name}val, best {best:.4f}"
        axes.plot(steps, val, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    if alone:
        axes.set_title(label, loc="left", fontsize=10)
    return [value for value in values + val if math.isfinite(value)]


def scale_y(axes: Any, values: list[float]) -> None:
    """Set a logarithmic axis where the values span much, else the usual one; plain numbers on both.

    The first loss, near ln V, would press the end of the curve, which is of interest, against the
    floor on a linear axis.
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
