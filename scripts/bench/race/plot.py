"""The plot of `bench race`: bits per byte over the time of the whole process."""

import statistics
from pathlib import Path
from typing import Any

from utils.errors import plural
from utils.run.figure import add_legend, draws, line_style, new_figure, save_figure, style_axes


@draws
def plot_race(record: dict[str, Any], out: Path) -> None:
    """Plot each run's evaluations as a line and the score of its checkpoint as a large marker."""
    figure = new_figure()
    axes = figure.subplots()
    for number, (key, name) in enumerate((("ours", "ours"), ("nanogpt", "nanoGPT"))):
        style, runs = line_style(number), record[key]
        for one in runs:
            # The first evaluation is before training: a line from it would show unmeasured losses.
            seconds, bits = zip(*one["curve"][1:], strict=True) if one["curve"][1:] else ((), ())
            axes.plot(seconds, bits, alpha=0.6, **style | {"markersize": 3, "linewidth": 1.2})
        seconds, bits = zip(*((one["seconds"], one["bits_per_byte"]) for one in runs), strict=True)
        words = f"{plural(len(runs), 'run')}, mean {statistics.fmean(bits):.4f}"
        final = style | {"linestyle": "", "markersize": 9, "markeredgecolor": "black"}
        axes.plot(seconds, bits, label=f"{name}: score of the checkpoint ({words})", **final)
    for number, (name, bits) in enumerate(record["ngrams"].items()):
        dashes = ("--", "-.", ":", (0, (1, 4)))[number % 4]
        label = f"{name}, counted: {bits:.4f}"
        axes.axhline(bits, linestyle=dashes, label=label, color="black", linewidth=0.8, alpha=0.6)
    finals = [one["bits_per_byte"] for key in ("ours", "nanogpt") for one in record[key]]
    low = min(*finals, *record["ngrams"].values())
    axes.set_ylim(low - 0.1, max(finals) + 1.0)  # the first evaluations are far above
    axes.set_xlim(left=0)
    title = f"Validation loss over the time of the whole process, {record['corpus']}\n"
    title += "line: evaluations during a run; large marker: its end"
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel="seconds since the process started", ylabel="val bits per byte")
    style_axes(axes)
    add_legend(axes, below=True)
    save_figure(figure, out)
