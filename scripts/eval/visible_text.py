"""Visible forms of white space, control characters, joiners and bytes that are not UTF-8."""

import codecs
import itertools
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


def whole_characters(tokens: Iterable[tuple[bytes, bool]]) -> Iterator[tuple[str, int, bool]]:
    r"""Yield (text, number of tokens, True if special) of tokens; those are (bytes, special).

    Tokens with parts of one character come together. Bytes that are not UTF-8 become \xff.

    >>> list(whole_characters([(b"a\xc3", False), (b"\xa9", False), (b"<|end|>", True)]))
    [('aé', 2, False), ('<|end|>', 1, True)]
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    text, n_tokens = "", 0
    for raw, special in tokens:
        if special:
            if n_tokens:
                yield text + decoder.decode(b"", final=True), n_tokens, False
            yield raw.decode("utf-8", "backslashreplace"), 1, True
            text, n_tokens = "", 0
            continue
        text, n_tokens = text + decoder.decode(raw), n_tokens + 1
        if not decoder.getstate()[0]:  # no unfinished character
            yield text, n_tokens, False
            text, n_tokens = "", 0
    if n_tokens:
        yield text + decoder.decode(b"", final=True), n_tokens, False


def cells(tokens: Iterable[tuple[bytes, float, bool]]) -> Iterator[Cell]:
    r"""Yield the cells of tokens, which are given as (bytes, nats, True if special).

    A token is usually one cell. Tokens with parts of one character share a cell, and their nats are
    added. A special token is shown as its text and ends a line.

    >>> [cell.text for cell in cells([(b"a\xc3", 1.0, False), (b"\xa9", 0.5, False)])]
    ['aé']
    """
    listed = list(tokens)
    nats = (one for _, one, _ in listed)
    for text, n_tokens, special in whole_characters((raw, one) for raw, _, one in listed):
        total = sum(itertools.islice(nats, n_tokens))
        yield Cell(visible(text), total, special or "\n" in text)
