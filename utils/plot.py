"""Loss curves from metrics.csv files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from utils.errors import UserError
from utils.files import write_atomic
from utils.metrics import read_column, read_rows


def plot_losses(
    runs: Mapping[str, Path], out: Path, *, floor: float | None = None, unit: str = "loss"
) -> None:
    """Draws loss over steps, one colour a run, into a PNG (or what `out` ends in).

    Args:
        runs: label -> metrics.csv.
        floor: entropy floor, in the unit drawn; a dashed line.
        unit: `loss` draws train and val loss in nats per token; `bpb` draws val in bits per byte, the
            unit that compares across tokenizers.

    Raises:
        UserError: a file is missing, not ours, or holds nothing to draw.
    """
    import matplotlib.figure  # a second of import time, for this alone

    figure = matplotlib.figure.Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    drawn = False
    for number, (label, path) in enumerate(runs.items()):
        rows, colour = read_rows(path), f"C{number}"
        if unit == "loss":
            steps, values = read_column(rows, "train_loss")
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=1, label=f"{label} train")
        steps, values = read_column(rows, "val_loss" if unit == "loss" else "val_bpb")
        axes.plot(steps, values, color=colour, marker="o", markersize=3, label=f"{label} val")
        drawn = drawn or bool(steps)
    if not drawn:
        raise UserError(f"{', '.join(str(path) for path in runs.values())}: nothing to draw yet")
    if floor is not None:
        axes.axhline(
            floor, color="black", linestyle="--", linewidth=1, label=f"entropy floor {floor:.4f}"
        )
        axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token" if unit == "loss" else "bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix.lstrip(".") or "png", dpi=110)
    write_atomic(out, picture.getvalue())
