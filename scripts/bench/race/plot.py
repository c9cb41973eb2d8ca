"""The plot of `bench race`: bits per byte over the time of the whole process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.run.figure import draws, new_figure, save_figure, style_axes

COLOURS = {"nanogpt": "C1", "ours": "C0"}


@draws
def plot_race(record: dict[str, Any], out: Path) -> None:
    """Plot each run's evaluations as a line and the score of its checkpoint as a dot."""
    figure = new_figure()
    axes = figure.subplots()
    for key, name in (("nanogpt", "nanoGPT"), ("ours", "ours")):
        for number, one in enumerate(record[key]):
            colour, label = COLOURS[key], name if number == 0 else None
            seconds, bits = zip(*one["curve"], strict=True) if one["curve"] else ((), ())
            axes.plot(seconds, bits, color=colour, alpha=0.6, linewidth=1.2)
            axes.plot(one["seconds"], one["bits_per_byte"], "o", color=colour, label=label)
    for number, (name, bits) in enumerate(record["ngrams"].items()):
        dashes = ("--", "-.", ":", (0, (1, 4)))[number % 4]
        axes.axhline(bits, linestyle=dashes, label=name, color="black", linewidth=0.8, alpha=0.6)
    finals = [one["bits_per_byte"] for key in COLOURS for one in record[key]]
    low = min(*finals, *record["ngrams"].values())
    axes.set_ylim(low - 0.1, max(finals) + 1.0)  # the first evaluations are far above
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the process started")
    axes.set_ylabel(f"bits per byte, validation part of {record['corpus']}")
    style_axes(axes, legend=True)
    save_figure(figure, out)
