"""Documents: the parts of text files that stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.files import TAKE_ANY_BYTES, decode_utf8, read_bytes

BLANK_LINE = "blank-line"
ERRORS = ("strict", "bytes")


def literal(text: str) -> str:
    r"""What a text of the command line means: `\n` is a newline there and `\t` a tab.

    >>> literal(r"--\n")
    '--\n'
    """
    return text.replace("\\n", "\n").replace("\\t", "\t")


def split_documents(raw: bytes, doc_sep: str) -> list[bytes]:
    r"""Cuts a file's bytes into documents.

    Without a separator the file is one document, byte for byte. `blank-line` cuts at empty lines;
    any other separator is taken literally, with `\n` and `\t` for newline and tab. Newlines at a
    document's ends are dropped where it was cut, and empty documents are left out.

    >>> split_documents(b"one\ntwo\n\nthree\n", "blank-line")
    [b'one\ntwo', b'three']
    >>> split_documents(b"a%b", "%"), split_documents(b"", "")
    ([b'a', b'b'], [])
    """
    if not doc_sep:
        return [raw] if raw else []
    if doc_sep == BLANK_LINE:
        parts = re.split(rb"\r?\n(?:[ \t]*\r?\n)+", raw)
    else:
        parts = raw.split(literal(doc_sep).encode())
    stripped = (part.strip(b"\r\n") for part in parts)
    return [part for part in stripped if part]


def read_documents(
    files: Sequence[Path], doc_sep: str, errors: str, *, cure: str = TAKE_ANY_BYTES
) -> Iterator[bytes]:
    """Every document of the files, in order, one file in memory at a time.

    Raises:
        UserError: a file can't be read, or is not UTF-8 and `errors` is strict: see the `cure`.
    """
    for path in files:
        raw = read_bytes(path)
        if errors == "strict":
            decode_utf8(raw, path, cure=cure)
        yield from split_documents(raw, doc_sep)


def cut_at_character(raw: bytes, place: int) -> int:
    """The nearest place at or before `place` that cuts no UTF-8 character; `place` if none is.

    >>> cut_at_character("aé".encode(), 2)
    1
    """
    for back in range(4):  # no character is longer
        at = place - back
        if at <= 0 or at >= len(raw) or raw[at] & 0xC0 != 0x80:
            return at
    return place  # no UTF-8: any place will do
