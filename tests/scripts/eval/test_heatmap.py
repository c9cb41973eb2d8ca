"""Heatmaps: the colour follows the loss of a token, for any characters in the text."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from scripts.eval import heatmap
from scripts.eval.heatmap import (
    choose_fonts,
    colour_background,
    coloured_text,
    draw_cells,
    save_heatmap,
    wrap_cells,
)
from scripts.eval.visible_text import Cell, columns
from utils.errors import UserError
from utils.run.figure import check_picture

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


def test_wrapped_lines_fit_and_contain_all_cells():
    cells = [*WORDS, Cell("x" * 25, 3.0), Cell("世" * 9, 2.0, True), Cell("end", 1.0)]
    positions = list(wrap_cells(cells, 10, 99))
    assert "".join(cell.text for _, _, cell in positions) == "".join(cell.text for cell in cells)
    assert all(column + columns(cell.text) <= 10 for _, column, cell in positions)
    taken = [(line, column) for line, column, _ in positions]
    assert taken == sorted(set(taken))
    assert positions[3][:2] == (1, 0), "a line ends after a newline"
    assert {line for line, _, _ in wrap_cells(cells, 10, 2)} == {0, 1}


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_of_any_characters_gives_no_warning(tmp_path, kind):
    """The installed fonts differ: some systems have all of these characters, some only a few."""
    odd = [Cell(text, 2.0) for text in (r"$\frac{$", "%_^{", "\ue000", "◌\u0301", "é", "𝔘")]
    out = tmp_path / f"heat.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as Matplotlib's for a missing glyph
        assert save_heatmap([*WORDS, *odd], out, "a $title$") == len(WORDS) + len(odd)
    raw = out.read_bytes()
    assert raw[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    save_heatmap([*WORDS, *odd, Cell("↵" * 90, 1.0, True)], out, "a $title$")
    assert out.read_bytes() != raw


def test_a_cell_with_a_high_loss_is_darker(tmp_path):
    from PIL import Image  # comes with Matplotlib

    def darkness(nats: float) -> float:
        save_heatmap([Cell("word", nats)] * 30, tmp_path / "heat.png", "")
        with Image.open(tmp_path / "heat.png") as picture:
            grey = picture.convert("L")
            lower = grey.crop((0, grey.height // 2, grey.width, grey.height))
            return -sum(lower.tobytes()) / lower.width

    levels = [darkness(nats) for nats in (0.0, 5.9)]
    assert levels == sorted(set(levels))


def test_letters_contrast_with_their_box():
    figure = Figure()
    cells = [Cell("low", 0.5), Cell("high", 9.0), Cell("damaged", float("nan"))]
    positions = list(wrap_cells(cells, 50, 1))
    draw_cells(figure, positions, 1, choose_fonts("")[0], "title")
    assert [text.get_color() for text in figure.axes[0].texts] == ["black", "white", "white"]
    colours = figure.axes[0].collections[0].get_facecolor()
    light, dark, damaged = colours[:, :3].mean(axis=1)
    assert light > 0.7 > 0.4 > dark == damaged and (colours[:, 3] == 1).all()


def test_a_long_text_is_cut_and_the_number_of_cells_returned(tmp_path, monkeypatch):
    monkeypatch.setattr(heatmap, "MAX_LINES", 3)
    cells = [Cell("0123456789", 1.0)] * 50
    assert save_heatmap(cells, tmp_path / "heat.png", "") == 30  # ten in a line of 100
    assert save_heatmap(cells[:7], tmp_path / "heat.png", "") == 7
    assert save_heatmap([], tmp_path / "heat.png", "") == 0


def test_characters_without_a_font_are_escaped_and_named(tmp_path, monkeypatch, capsys):
    assert choose_fonts("café·")[1] == set() and choose_fonts("a\U0003fffd")[1] == {"\U0003fffd"}
    placed: list[str] = []
    notes: list[str] = []

    def draw(figure, positions, n_lines, fonts, title, note):
        placed.extend(cell.text for *_, cell in positions)
        notes.append(note)

    monkeypatch.setattr(heatmap, "draw_cells", draw)
    entries = [entry for entry in fontManager.ttflist if entry.name == heatmap.MONOSPACED]
    monkeypatch.setattr(fontManager, "ttflist", entries)
    save_heatmap([Cell("世a🙂", 1.0), Cell("café·", 1.0)], tmp_path / "heat.png", "")
    assert placed == [r"\u4e16a\U0001f642", "café·"]
    assert notes == [r"no font has \u4e16 \U0001f642; try --heat -"]
    line = capsys.readouterr().err
    assert r"heat.png: no installed font has 世 (\u4e16) 🙂 (\U0001f642); use `--heat -`" in line


def test_a_cell_as_wide_as_the_picture_is_not_shortened(tmp_path, monkeypatch):
    """Names of runs are shortened in other figures; here the text is the content."""
    saved = []
    save = heatmap.save_figure

    def keep(figure, out, **options):
        save(figure, out, **options)
        saved.extend(text.get_text() for text in figure.axes[0].texts)

    monkeypatch.setattr(heatmap, "save_figure", keep)
    save_heatmap([Cell("word·" * 20, 1.0)], tmp_path / "heat.png", "title")
    assert saved == ["word·" * 20]


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match="can't write a .docx picture; supported: .*png"):
        check_picture(Path("heat.docx"), "--heat")
    with pytest.raises(UserError, match="--heat .*heat.png: there is no folder .*missing; make it"):
        check_picture(tmp_path / "missing" / "heat.png", "--heat")
    check_picture(tmp_path / "heat.png", "--heat")
