"""The picture of `bench race`: bits per byte over the time of the whole process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_atomic

COLOURS = {"nanogpt": "C1", "ours": "C0"}


def require_format(path: str) -> None:
    """Checks that a picture can be drawn in the format that the file's name ends in.

    Raises:
        UserError: names the known ones.
    """
    import matplotlib.figure  # a second of import time, for this alone

    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise UserError(f"--plot {path}: known formats: {', '.join(sorted(known))}")


def plot_race(record: dict[str, Any], out: Path) -> None:
    """Draws each run's own evaluations as a line and the score of its checkpoint as a dot."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for who, name in (("nanogpt", "nanoGPT"), ("ours", "ours")):
        for number, one in enumerate(record[who]):
            colour, label = COLOURS[who], name if number == 0 else None
            seconds, bits = zip(*one["curve"], strict=True) if one["curve"] else ((), ())
            axes.plot(seconds, bits, color=colour, alpha=0.6, linewidth=1.2)
            axes.plot(one["seconds"], one["bits_per_byte"], "o", color=colour, label=label)
    for number, (name, bits) in enumerate(record["ngrams"].items()):
        dashes = ("--", "-.", ":", (0, (1, 4)))[number % 4]
        axes.axhline(bits, linestyle=dashes, label=name, color="black", linewidth=0.8, alpha=0.6)
    finals = [one["bits_per_byte"] for who in COLOURS for one in record[who]]
    low = min(*finals, *record["ngrams"].values())
    axes.set_ylim(low - 0.1, max(finals) + 1.0)  # the first evaluations are far above
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the process began")
    axes.set_ylabel(f"bits per byte, validation part of {record['corpus']}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix.lstrip(".").lower(), dpi=120)
    write_atomic(out, picture.getvalue())
