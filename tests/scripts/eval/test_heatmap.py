"""Heatmaps: the colour follows the loss of a token, for any characters in the text."""

from __future__ import annotations

import re

from scripts.eval import heatmap
from scripts.eval.heatmap import colour_background, coloured_text
from scripts.eval.visible_text import Cell

WORDS = [Cell("the", 0.1), Cell("·cat", 6.5), Cell("↵", 1.2, True), Cell("世界🙂", 9.0)]
COLOURED = re.compile(r"\x1b\[48;5;(\d+);38;5;(\d+)m(.*?)\x1b\[0m")


def test_colours_differ_up_to_the_end_of_the_scale():
    shades = [
        COLOURED.match(colour_background("x", nats)).group(1)
        for nats in range(heatmap.MAX_NATS + 1)
    ]
    assert len(set(shades)) == heatmap.MAX_NATS + 1
    assert (
        colour_background("x", 1000.0)
        == colour_background("x", float(heatmap.MAX_NATS))
        == colour_background("x", float("inf"))
    )
    assert colour_background("x", float("nan")) == colour_background("x", 1000.0)
    assert (
        colour_background("x", -1e-9) == colour_background("x", 0.0) != colour_background("x", 1.0)
    )  # rounding can give a negative loss


def test_coloured_text_contains_the_cells_in_order():
    scale, *lines = coloured_text(WORDS).split("\n")
    assert [text for _, _, text in COLOURED.findall(scale)][-1] == f" {heatmap.MAX_NATS}+ "
    assert COLOURED.sub(r"\3", "\n".join(lines)) == "the·cat↵\n世界🙂\n"
    found = {text: shade for shade, _, text in COLOURED.findall("\n".join(lines))}
    scales = {text.strip(): shade for shade, _, text in COLOURED.findall(scale)}
    assert found == {
        "the": scales["0"],
        "·cat": scales["6"],
        "↵": scales["1"],
        "世界🙂": scales["8+"],
    }
    assert (
        coloured_text([Cell("↵", 0.0, True)]).count("\n") == 2
        and coloured_text([]).count("\n") == 1
    )
