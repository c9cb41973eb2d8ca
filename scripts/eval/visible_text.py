"""Any text made visible: white space, control characters, joiners and bytes that are no text."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MARKS = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}  # Unicode categories without a picture
COMBINING = {"Mn", "Me"}


def visible(text: str) -> str:
    r"""One line in which each character can be seen, and none gives orders to a terminal.

    >>> visible("a b\n") + visible("\x1b[0m") + visible("\u200d")
    'a·b↵\\x1b[0m\\u200d'
    """
    shown = "".join(map(_visible_character, text))
    # Alone it would sit on what stands before it.
    return "◌" + shown if text and unicodedata.category(text[0]) in COMBINING else shown


def _visible_character(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    return escape(character) if unicodedata.category(character) in HIDDEN else character


def escape(character: str) -> str:
    r"""A character's number as Python reads it; \x80 and above are left for bytes that are no text.

    >>> escape("世"), escape("\x07"), escape("\x85")
    ('\\u4e16', '\\x07', '\\u0085')
    """
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def columns(text: str) -> int:
    """Columns of a visible text on a terminal: wide characters take two, combining ones none.

    >>> columns("a世🙂"), columns("e\\u0301")
    (5, 1)
    """
    return sum(
        0 if unicodedata.category(c) in COMBINING else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


@dataclass(frozen=True)
class Cell:
    """Some tokens that make whole characters, and -ln p of all of them, in nats."""

    text: str  # visible
    nats: float
    ends_line: bool = False


def cells(tokens: Iterable[tuple[bytes, float, bool]]) -> Iterator[Cell]:
    r"""Tokens as (bytes, nats, whether it is a special one) in cells, each in one as a rule.

    Tokens that hold parts of one character come into one cell, where their nats add up. Bytes that
    are no UTF-8 stand as \xff. A special token is its text, and ends a line.

    >>> [cell.text for cell in cells([(b"a\xc3", 1.0, False), (b"\xa9", 0.5, False)])]
    ['aé']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    text, nats = "", 0.0
    for raw, its_nats, special in tokens:
        if special:
            text += decoder.decode(b"", final=True)
            if text:
                yield _cell(text, nats)
            yield Cell(visible(raw.decode("utf-8", "backslashreplace")), its_nats, True)
            text, nats = "", 0.0
            continue
        text += decoder.decode(raw)
        nats += its_nats
        if not decoder.getstate()[0]:  # no unfinished character
            yield _cell(text, nats)
            text, nats = "", 0.0
    text += decoder.decode(b"", final=True)
    if text:
        yield _cell(text, nats)


def _cell(text: str, nats: float) -> Cell:
    return Cell(visible(text), nats, "\n" in text)
