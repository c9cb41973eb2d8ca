"""A text coloured by how much each part of it surprised a model, for a terminal or as a picture."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font

from scripts.eval.visible_text import Cell, columns, escape
from utils.files import check_writable
from utils.run.plot import picture_format, save_figure

MAX_NATS = 8  # nats from which the colour does not change any more; ln 3000 is about 8
# Colours of the 256 of a terminal, one for each whole number of nats: pale yellow to dark red.
BACKGROUNDS = (231, 230, 229, 222, 215, 209, 203, 196, 124)
BLACK, WHITE, WHITE_LETTERS_FROM = 16, 231, 7  # from there on the letters are white

LINE_COLUMNS = 100
MAX_LINES = 120  # of a picture; above that it is long, slow and read by nobody
FONT_POINTS = 9.0
MONOSPACED, REGULAR = "DejaVu Sans Mono", 400
COLUMN_EM = 0.602  # width of a letter of DejaVu Sans Mono, from the font
LINE_POINTS = 15.0
POINTS_PER_INCH = 72
COLOURS = "YlOrRd"


def colour_background(text: str, nats: float) -> str:
    r"""A text on the colour of its nats, for a terminal.

    >>> colour_background("a", 2.5)
    '\x1b[48;5;229;38;5;16ma\x1b[0m'
    """
    heat = max(int(nats), 0) if nats < MAX_NATS else MAX_NATS  # also where it is NaN
    letters = WHITE if heat >= WHITE_LETTERS_FROM else BLACK
    return f"\x1b[48;5;{BACKGROUNDS[heat]};38;5;{letters}m{text}\x1b[0m"


def coloured_text(cells: Iterable[Cell]) -> str:
    """The cells in colours for a terminal, line by line, under a line that shows the scale."""
    scale = "".join(colour_background(f" {nats} ", nats) for nats in range(MAX_NATS))
    parts = [f"nats: {scale}{colour_background(f' {MAX_NATS}+ ', MAX_NATS)}\n"]
    ended = True
    for cell in cells:
        parts.append(colour_background(cell.text, cell.nats) + ("\n" if cell.ends_line else ""))
        ended = cell.ends_line
    return "".join(parts) + ("" if ended else "\n")


def wrap_cells(
    cells: Iterable[Cell], line_columns: int, max_lines: int
) -> Iterator[tuple[int, int, Cell]]:
    """(line, column, cell) of each cell that finds room, from line 0; a wide cell comes in parts.

    >>> words = [Cell("one", 1.0), Cell("two", 2.0), Cell("three", 0.5)]
    >>> [(line, column, cell.text) for line, column, cell in wrap_cells(words, 4, 9)]
    [(0, 0, 'one'), (1, 0, 'two'), (2, 0, 'thre'), (3, 0, 'e')]
    """
    line = column = 0
    for cell in cells:
        if column and column + columns(cell.text) > line_columns:
            line, column = line + 1, 0
        for part in _split_columns(cell.text, line_columns):
            if column and column + columns(part) > line_columns:
                line, column = line + 1, 0
            if line >= max_lines:
                return
            yield line, column, Cell(part, cell.nats, cell.ends_line)
            column += columns(part)
        if cell.ends_line:
            line, column = line + 1, 0


def _split_columns(text: str, max_columns: int) -> Iterator[str]:
    """Parts of at max_columns `max_columns` columns."""
    part = ""
    for character in text:
        if part and columns(part + character) > max_columns:
            yield part
            part = ""
        part += character
    yield part


def check_picture(out: Path) -> None:
    """Refuses a picture that could not be written, before work is done for it.

    Raises:
        UserError: it can't be written there, or the format is not known.
    """
    picture_format(out)
    check_writable(out, "--heat")


def save_heatmap(cells: Sequence[Cell], out: Path, title: str) -> int:
    """Draws the cells into a PNG (or what `out` ends in); how many of them found room.

    Characters that no installed font has stand as their numbers.

    Raises:
        UserError: the format of `out` is not known.
        OSError: it can't be written.
    """
    fonts, missing = choose_fonts("".join(cell.text for cell in cells))
    numbers = str.maketrans({character: escape(character) for character in missing})
    written = [Cell(cell.text.translate(numbers), cell.nats, cell.ends_line) for cell in cells]
    positions = list(wrap_cells(written, LINE_COLUMNS, MAX_LINES))
    n_lines = positions[-1][0] + 1 if positions else 1
    figure = Figure()
    draw_cells(figure, positions, n_lines, fonts, title)
    save_figure(figure, out)
    return sum(1 for _ in _complete_cells(positions, written))


def _complete_cells(
    positions: Sequence[tuple[int, int, Cell]], cells: Sequence[Cell]
) -> Iterator[Cell]:
    """The cells all of whose columns are among the positions."""
    room = sum(columns(cell.text) for _, _, cell in positions)
    for cell in cells:
        room -= columns(cell.text)
        if room < 0:
            return
        yield cell


def draw_cells(
    figure: Figure,
    positions: Sequence[tuple[int, int, Cell]],
    n_lines: int,
    fonts: FontProperties,
    title: str,
) -> None:
    """Coloured boxes with their text, on a figure made as large as they need, and a scale."""
    column = FONT_POINTS * COLUMN_EM / POINTS_PER_INCH  # inches, as all sizes below
    line, margin, bar = LINE_POINTS / POINTS_PER_INCH, 0.2, 0.6
    width = LINE_COLUMNS * column + 2 * margin
    height = n_lines * line + 2 * margin + bar
    figure.set_size_inches(width, height)
    axes = figure.add_axes(
        (margin / width, margin / height, 1 - 2 * margin / width, n_lines * line / height)
    )
    axes.set(xlim=(0, LINE_COLUMNS), ylim=(n_lines, 0))
    axes.axis("off")
    shades = ScalarMappable(Normalize(0, MAX_NATS), COLOURS)
    boxes = [box(row, start, columns(cell.text)) for row, start, cell in positions]
    colours = shades.to_rgba(np.array([min(cell.nats, MAX_NATS) for _, _, cell in positions]))
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0))
    for row, start, cell in positions:
        axes.text(
            start + columns(cell.text) / 2,
            row + 0.52,
            cell.text,
            ha="center",
            va="center_baseline",
            color="white" if cell.nats >= WHITE_LETTERS_FROM - 1 else "black",
            fontproperties=fonts,
            parse_math=False,  # $ is a letter here
        )
    scale = figure.add_axes((0.6, 1 - (margin + 0.15) / height, 0.35, 0.12 / height))
    figure.colorbar(shades, cax=scale, orientation="horizontal", extend="max")
    scale.tick_params(labelsize=7)
    scale.set_xlabel("-ln p of a token, nats", fontsize=7, labelpad=1)
    figure.text(margin / width, 1 - (margin + 0.15) / height, title, fontsize=8, parse_math=False)


def box(line: int, column: int, width: int) -> list[tuple[float, float]]:
    """The corners of a cell's box, in columns and lines, a little apart from its neighbours'."""
    left, right = column + 0.04, column + width - 0.04
    return [(left, line + 0.03), (right, line + 0.03), (right, line + 0.97), (left, line + 0.97)]


def choose_fonts(text: str) -> tuple[FontProperties, frozenset[str]]:
    """Return fonts for a text, the first that has a character counts, and what none of them has.

    The fonts are the monospaced one that comes with Matplotlib, and as many of the installed ones
    as the text needs; those for Chinese, Japanese and Korean have the max_columns characters. Last Resort
    has a picture of the block of every character, and of no character itself.
    """
    others = sorted(
        {
            entry.name
            for entry in fontManager.ttflist
            if entry.style == "normal"
            and entry.weight == REGULAR
            and "Last Resort" not in entry.name
        }
        - {MONOSPACED},
        key=lambda name: ("CJK" not in name, name),
    )
    families, missing = [MONOSPACED], frozenset(text) - characters_of(MONOSPACED)
    for family in others:
        if missing and (found := missing & characters_of(family)):
            families.append(family)
            missing -= found
    return FontProperties(family=families, size=FONT_POINTS), missing


@functools.cache
def characters_of(family: str) -> frozenset[str]:
    """Return the characters of the font that Matplotlib finds for a family."""
    try:
        font = FT2Font(fontManager.findfont(FontProperties(family=[family])))
    except (RuntimeError, OSError):  # damaged, or of a kind that it can't read
        return frozenset()
    # Coloured emoji are bitmaps of one size, which can't be drawn here.
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
