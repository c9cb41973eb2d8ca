"""Heatmaps of a text: each `Cell`, a token or a few, on a background coloured by its loss.
Before importing this module, call `import_matplotlib` of utils.run.figure.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font

from scripts.eval.visible_text import Cell, columns, escape
from utils.output import log
from utils.run.figure import draws, plain_text, save_figure

# End of the colour scale: higher losses have the same colour. A token with a probability of 1/3000
# has a loss of about 8 nats.
MAX_NATS = 8
PICTURE_COLOURS = "YlOrRd"  # Matplotlib's name of the colour scale of pictures
# xterm-256 colours, one for each whole number of nats: pale yellow to dark red.
BACKGROUNDS = (231, 230, 229, 222, 215, 209, 203, 196, 124)
BLACK, WHITE = 16, 231  # xterm-256 colours of the letters
# Nats from which the background is so dark that letters on it are white. The colours of a picture
# darken earlier than those of a terminal.
WHITE_FROM_TERMINAL, WHITE_FROM_PICTURE = 7, 6

LINE_COLUMNS = 100  # of a picture
MAX_LINES = 120  # of a picture: a longer one is slow to draw and hard to read
FONT_POINTS = 9.0
MAX_TITLE = 80  # characters of the title: more would overlap the colour scale
MAX_NAMED = 4  # characters without a font that a message names
MONOSPACED, REGULAR = "DejaVu Sans Mono", 400  # family and weight of a font
COLUMN_EM = 0.602  # width of a letter in em, from the font file of DejaVu Sans Mono
LINE_POINTS = 15.0  # height of a line
POINTS_PER_INCH = 72


def on_scale(nats: float) -> float:
    """Limit nats to the colour scale, 0 to MAX_NATS; NaN is at its end.

    >>> on_scale(2.5), on_scale(20.0), on_scale(float("nan"))
    (2.5, 8, 8)
    """
    return max(nats, 0.0) if nats < MAX_NATS else MAX_NATS


def colour_background(text: str, nats: float) -> str:
    r"""Return a text on the background colour of its nats, with terminal escape codes.

    >>> colour_background("a", 2.5)
    '\x1b[48;5;229;38;5;16ma\x1b[0m'
    """
    level = int(on_scale(nats))
    letters = WHITE if level >= WHITE_FROM_TERMINAL else BLACK
    return f"\x1b[48;5;{BACKGROUNDS[level]};38;5;{letters}m{text}\x1b[0m"


def coloured_text(cells: Iterable[Cell]) -> str:
    """Return the cells in colours for a terminal, below a line that shows the scale."""
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
    """Yield (line, column, cell) of the cells that fit into `max_lines`; split what is too wide.

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
    """Yield the text in parts of at most `max_columns` columns."""
    part = ""
    for character in text:
        if part and columns(part + character) > max_columns:
            yield part
            part = ""
        part += character
    yield part


@draws
def save_heatmap(cells: Sequence[Cell], out: Path, title: str) -> int:
    """Draw the cells into a picture; return the number of cells that fit.

    The suffix of `out` sets the format. Characters that no installed font has are drawn as escapes
    such as \\u4e16; a note in the picture and a line on stderr name them.

    Raises:
        UserError: the format of `out` is not known.
        OSError: the picture can't be written.
    """
    fonts, missing = choose_fonts("".join(cell.text for cell in cells))
    escapes = str.maketrans({character: escape(character) for character in missing})
    drawable = [Cell(cell.text.translate(escapes), cell.nats, cell.ends_line) for cell in cells]
    positions = list(wrap_cells(drawable, LINE_COLUMNS, MAX_LINES))
    n_lines = positions[-1][0] + 1 if positions else 1
    figure = Figure()
    note = ""
    if missing:
        names = sorted(missing)[:MAX_NAMED]
        more = f" and {len(missing) - len(names)} more" if len(missing) > len(names) else ""
        log(
            f"{out}: no installed font has {' '.join(f'{one} ({escape(one)})' for one in names)}"
            f"{more}; use `--heat -` in a terminal, or install a font that has them, such as Noto"
        )
        note = f"no font has {' '.join(map(escape, names))}{more}; try --heat -"
    draw_cells(figure, positions, n_lines, fonts, title, note)
    save_figure(figure, out, limit=LINE_COLUMNS)  # the text of a cell is at most a line
    room = sum(columns(cell.text) for _, _, cell in positions)  # columns, of all parts of cells
    return sum(end <= room for end in accumulate(columns(cell.text) for cell in drawable))


def draw_cells(
    figure: Figure,
    positions: Sequence[tuple[int, int, Cell]],
    n_lines: int,
    fonts: FontProperties,
    title: str,
    note: str = "",
) -> None:
    """Draw the cells as coloured boxes with text, and a colour scale; size the figure to fit.

    Args:
        note: a second line below the title.
    """
    column_width = FONT_POINTS * COLUMN_EM / POINTS_PER_INCH  # inches, as all sizes below
    line_height, margin, header = LINE_POINTS / POINTS_PER_INCH, 0.2, 0.6
    width = LINE_COLUMNS * column_width + 2 * margin
    height = n_lines * line_height + 2 * margin + header
    figure.set_size_inches(width, height)
    axes = figure.add_axes(
        (margin / width, margin / height, 1 - 2 * margin / width, n_lines * line_height / height)
    )
    axes.set(xlim=(0, LINE_COLUMNS), ylim=(n_lines, 0))
    axes.axis("off")
    shades = ScalarMappable(Normalize(0, MAX_NATS), PICTURE_COLOURS)
    boxes = [box(row, start, columns(cell.text)) for row, start, cell in positions]
    colours = shades.to_rgba(np.array([on_scale(cell.nats) for _, _, cell in positions]))
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0))
    for row, start, cell in positions:
        axes.text(
            start + columns(cell.text) / 2,
            row + 0.52,
            cell.text,
            ha="center",
            va="center_baseline",
            color="white" if on_scale(cell.nats) >= WHITE_FROM_PICTURE else "black",
            fontproperties=fonts,
            parse_math=False,  # $ is a letter here
        )
    scale = figure.add_axes((0.6, 1 - (margin + 0.15) / height, 0.35, 0.12 / height))
    figure.colorbar(shades, cax=scale, orientation="horizontal", extend="max")
    scale.tick_params(labelsize=7)
    label = "-ln p of a token (or of the tokens of one character), nats"
    scale.set_xlabel(label, fontsize=7, labelpad=1)
    for text, below in ((title, 0.15), (note, 0.4)):  # inches below the margin at the top
        place = (margin / width, 1 - (margin + below) / height)
        figure.text(*place, plain_text(text, MAX_TITLE), fontsize=8, parse_math=False)


def box(line: int, column: int, width: int) -> list[tuple[float, float]]:
    """Return the corners of a cell's box, in columns and lines, with a gap to its neighbours."""
    left, right = column + 0.04, column + width - 0.04
    return [(left, line + 0.03), (right, line + 0.03), (right, line + 0.97), (left, line + 0.97)]


def choose_fonts(text: str) -> tuple[FontProperties, frozenset[str]]:
    """Return the fonts for a text in order of preference, and the characters that none of them has.

    The first font is the monospaced one that comes with Matplotlib. Installed fonts are added while
    characters are missing; CJK fonts come first, because they have the most characters. The font
    Last Resort is excluded: it has a picture for each block of characters, not for each character.
    """
    upright = [one for one in fontManager.ttflist if (one.style, one.weight) == ("normal", REGULAR)]
    names = {one.name for one in upright if "Last Resort" not in one.name} - {MONOSPACED}
    others = sorted(names, key=lambda name: ("CJK" not in name, name))
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
    except (RuntimeError, OSError):  # damaged, or in an unsupported format
        return frozenset()
    # Fonts of coloured emoji are bitmaps of one size, which Matplotlib can't draw.
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
