"""Visible forms of white space, control characters, joiners and bytes that are not UTF-8."""

import codecs
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MARKS = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}  # Unicode categories without a glyph
COMBINING = {"Mn", "Me"}  # categories of characters that are drawn over the one before


def visible(text: str) -> str:
    r"""Return the text as one line of visible characters, none of which controls a terminal.

    >>> visible("a b\n") + visible("\x1b[0m") + visible("\u200d")
    'a·b↵\\x1b[0m\\u200d'
    """
    shown = "".join(map(_visible_character, text))
    # A combining character at the start would combine with whatever is printed before it.
    return "◌" + shown if text and unicodedata.category(text[0]) in COMBINING else shown


def _visible_character(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    return escape(character) if unicodedata.category(character) in HIDDEN else character


def escape(character: str) -> str:
    r"""Return a character as a Python escape.

    The escapes \x80 to \xff are reserved for bytes that are not UTF-8.

    >>> escape("世"), escape("\x07"), escape("\x85")
    ('\\u4e16', '\\x07', '\\u0085')
    """
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def columns(text: str) -> int:
    """Return the columns of a visible text: two for a wide character, none for a combining one.

    >>> columns("a世🙂"), columns("e\\u0301")
    (5, 1)
    """
    return sum(
        0 if unicodedata.category(c) in COMBINING else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


@dataclass(frozen=True)
class Cell:
    """The text of one token, or of several that share a character, and its -ln p in nats."""

    text: str  # visible
    nats: float
    ends_line: bool = False  # the next cell is on a new line


def cells(tokens: Iterable[tuple[bytes, float, bool]]) -> Iterator[Cell]:
    r"""Yield the cells of tokens, which are given as (bytes, nats, True if special).

    A token is usually one cell. Tokens with parts of one character share a cell, and their nats are
    added. Bytes that are not UTF-8 are shown as \xff. A special token is shown as its text and ends
    a line.

    >>> [cell.text for cell in cells([(b"a\xc3", 1.0, False), (b"\xa9", 0.5, False)])]
    ['aé']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    text, nats = "", 0.0
    for raw, token_nats, special in tokens:
        if special:
            text += decoder.decode(b"", final=True)
            if text:
                yield _cell(text, nats)
            yield Cell(visible(raw.decode("utf-8", "backslashreplace")), token_nats, True)
            text, nats = "", 0.0
            continue
        text += decoder.decode(raw)
        nats += token_nats
        if not decoder.getstate()[0]:  # no unfinished character
            yield _cell(text, nats)
            text, nats = "", 0.0
    text += decoder.decode(b"", final=True)
    if text:
        yield _cell(text, nats)


def _cell(text: str, nats: float) -> Cell:
    return Cell(visible(text), nats, "\n" in text)
