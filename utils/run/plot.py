"""Loss curves from metrics.csv files."""

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
LOG_RATIO = 4.0  # curves that span more than this ratio are drawn on a logarithmic axis
# Figures along a logarithmic axis: enough of them at any zoom, none crowded.
TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 1.5, 2, 3, 5, 7)]


def plot_losses(
    runs: Mapping[str, Path], out: Path, *, floor: float | None = None, unit: str = "loss"
) -> None:
    """Draws loss over steps, one colour a run, into a PNG (or what `out` ends in).

    Args:
        runs: label -> metrics.csv.
        floor: entropy floor, in the unit drawn; a dashed line.
        unit: `loss` draws train and val loss in nats per token; `bpb` draws val in bits per byte,
            the unit that compares across tokenizers.

    Raises:
        UserError: a file is missing, not ours, or holds nothing to draw, or the format of `out` is
            not known.
    """
    import matplotlib.figure  # a second of import time, for this alone

    figure = matplotlib.figure.Figure(figsize=(8, 4.8), layout="constrained")
    kind = picture_kind(figure, out)
    axes = figure.subplots()
    drawn = [
        value
        for number, (label, path) in enumerate(runs.items())
        for value in draw_run(axes, label, path, f"C{number}", unit, alone=len(runs) == 1)
    ]
    if not drawn:
        raise UserError(f"{', '.join(str(path) for path in runs.values())}: nothing to draw yet")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"floor {floor:.4f}")
    scale_y(axes, drawn + ([] if floor is None else [floor]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(UNITS[unit])
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=120)
    write_atomic(out, picture.getvalue())


def picture_kind(figure: Any, out: Path) -> str:
    """The format of a picture by its name's ending; PNG without one.

    Raises:
        UserError: Matplotlib does not know it.
    """
    known = figure.canvas.get_supported_filetypes()
    kind = out.suffix.lstrip(".").lower() or "png"
    if kind not in known:
        raise UserError(f"{out}: can't draw a .{kind}; known: {', '.join(sorted(known))}")
    return kind


def draw_run(axes: Any, label: str, path: Path, colour: str, unit: str, alone: bool) -> list[float]:
    """Draws one run's train and val curves; the values drawn."""
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
        axes.plot(
            steps,
            val,
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.4,
            label=f"{name}val, best {min(filter(math.isfinite, val), default=math.nan):.4f}",
        )
    if alone:
        axes.set_title(label, loc="left", fontsize=10)
    return [value for value in values + val if math.isfinite(value)]


def scale_y(axes: Any, values: list[float]) -> None:
    """A logarithmic axis where the values span much, else the usual one; plain numbers on both.

    The first loss, near ln V, would press the end of the curve, which is of interest, against the
    floor on a linear axis.
    """
    import matplotlib.ticker

    low, high = min(values), max(values)
    if low <= 0 or high / low < LOG_RATIO:
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.08)
    axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
