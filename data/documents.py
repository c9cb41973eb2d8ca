"""Documents: the parts of text files that stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.readers import DEFAULT_JSON_FIELD, Readable, TextStream, is_json_lines, json_documents
from tok.text_files import end_of_whole_characters
from utils.files import ANY_BYTES_HINT, decode_utf8

BLANK_LINE = "blank-line"
BLANK_LINES = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
BLOCK_BYTES = 1 << 20
ERRORS = ("strict", "bytes")


def unescape(text: str) -> str:
    r"""What a text of the command line means: `\n` is a newline there and `\t` a tab.

    >>> unescape(r"--\n")
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
        parts = BLANK_LINES.split(raw)
    else:
        parts = raw.split(unescape(doc_sep).encode())
    stripped = (part.strip(b"\r\n") for part in parts)
    return [part for part in stripped if part]


def stream_documents(stream: Readable, doc_sep: str) -> Iterator[bytes]:
    r"""`split_documents` of a stream, of which little more than one document is in memory.

    >>> import io
    >>> list(stream_documents(io.BytesIO(b"one\ntwo\n\nthree\n"), "blank-line"))
    [b'one\ntwo', b'three']
    """
    kept = b""
    # A document longer than a block is searched again with every block: as long as all before, so
    # that the work stays in proportion to its length.
    while block := stream.read(max(BLOCK_BYTES, len(kept))):
        kept += block
        if end := end_of_complete_documents(kept, doc_sep):
            yield from split_documents(kept[:end], doc_sep)
            kept = kept[end:]
    yield from split_documents(kept, doc_sep)


def end_of_complete_documents(raw: bytes, doc_sep: str) -> int:
    r"""Where the last separator ends that nothing which follows can change; 0 if there is none.

    >>> end_of_complete_documents(b"a\n\nb", "blank-line"), end_of_complete_documents(b"a\n\n", "blank-line")
    (3, 0)
    """
    if not doc_sep:
        return 0
    if doc_sep != BLANK_LINE:
        # From the left, as split does it: in "aaa" the separator "aa" stands at 0, not at 1.
        return len(raw) - len(raw.split(unescape(doc_sep).encode())[-1])
    body = len(raw.rstrip(b" \t\r\n"))  # what comes may lengthen the white space at the end
    ends = [match.end() for match in BLANK_LINES.finditer(raw) if match.end() <= body]
    return ends[-1] if ends else 0


def read_documents(
    files: Sequence[Path],
    doc_sep: str,
    errors: str,
    *,
    field: str = DEFAULT_JSON_FIELD,
    hint: str = ANY_BYTES_HINT,
) -> Iterator[bytes]:
    """Every document of the files, in order; without a separator, one file in memory at a time.

    In a file of JSON lines (by its name) each line is a document: its `field`.

    Raises:
        UserError: a file can't be read, or is not UTF-8 and `errors` is strict: see the `hint`; or
            a JSON line has no such text.
    """
    for path in files:
        with TextStream(path) as stream:
            if is_json_lines(path):
                yield from json_documents(stream, field)
            else:
                checked = stream if errors != "strict" else CheckedStream(stream, hint)
                yield from stream_documents(checked, doc_sep)


class CheckedStream:
    """A stream that refuses what is not UTF-8 while it is read."""

    def __init__(self, stream: TextStream, hint: str) -> None:
        self._stream, self._hint = stream, hint
        self._position, self._rest = 0, b""  # of the next byte; the begun character before it

    def read(self, size: int = -1, /) -> bytes:
        """As the stream's.

        Raises:
            UserError: not UTF-8; names the byte.
        """
        block = self._stream.read(size)
        raw, offset = self._rest + block, self._position - len(self._rest)
        end = end_of_whole_characters(raw) if block else len(raw)
        if not raw.isascii():
            decode_utf8(raw[:end], self._stream.name, hint=self._hint, offset=offset)
        self._position += len(block)
        self._rest = raw[end:]
        return block


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
