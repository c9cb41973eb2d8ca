"""The text in a terminal: each `Cell`, a token or a few, on a background coloured by its loss."""

from collections.abc import Iterable

from scripts.eval.visible_text import Cell

# End of the colour scale: higher losses have the same colour. A token with a probability of 1/3000
# has a loss of about 8 nats.
MAX_NATS = 8
# xterm-256 colours, one for each whole number of nats: pale yellow to dark red.
BACKGROUNDS = (231, 230, 229, 222, 215, 209, 203, 196, 124)
BLACK, WHITE = 16, 231  # xterm-256 colours of the letters
WHITE_FROM = 7  # nats from which the letters are white, as the background is dark


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
    letters = WHITE if level >= WHITE_FROM else BLACK
    return f"\x1b[48;5;{BACKGROUNDS[level]};38;5;{letters}m{text}\x1b[0m"


def coloured_text(cells: Iterable[Cell]) -> str:
    """Return the cells in colours for a terminal, below a line that shows the scale."""
    scale = "".join(colour_background(f" {nats} ", nats) for nats in range(MAX_NATS))
    parts = [f"nats: {scale}{colour_background(f' {MAX_NATS}+ ', MAX_NATS)}\n"]
    parts += [colour_background(cell.text, cell.nats) + "\n" * cell.ends_line for cell in cells]
    return "".join(parts).removesuffix("\n") + "\n"
