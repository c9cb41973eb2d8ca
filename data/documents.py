"""Read text files as documents."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from data import readers
from tok.text_files import end_of_whole_characters
from utils.files import ANY_BYTES_HINT, decode_utf8

BLANK_LINE = "blank-line"
BLANK_LINES = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
BLOCK_BYTES = 1 << 20
ERRORS = ("strict", "bytes")


def unescape(text: str) -> str:
    r"""Replace the escapes `\n` and `\t` of a command-line argument by newline and tab.

    >>> unescape(r"--\n")
    '--\n'
    """
    return text.replace("\\n", "\n").replace("\\t", "\t")


def split_documents(raw: bytes, doc_sep: str) -> list[bytes]:
    r"""Split a file's bytes into documents.

    Without a separator the file is one document, byte for byte. `blank-line` splits at empty lines;
    any other separator is taken literally, with `\n` and `\t` for newline and tab. After a split,
    newlines at the ends of each document are removed, and empty documents are dropped.

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
        parts = raw.split(unescape(doc_sep).encode("utf-8", "surrogateescape"))
    stripped = (part.strip(b"\r\n") for part in parts)
    return [part for part in stripped if part]


def stream_documents(stream: BinaryIO, doc_sep: str) -> Iterator[bytes]:
    r"""Yield the documents of a stream as `split_documents` does, with about one in memory.

    >>> import io
    >>> list(stream_documents(io.BytesIO(b"one\ntwo\n\nthree\n"), "blank-line"))
    [b'one\ntwo', b'three']
    """
    kept = b""
    # A document longer than a block is searched again after every read. Each read doubles `kept`,
    # so the total work stays proportional to the length of the document.
    while block := stream.read(max(BLOCK_BYTES, len(kept))):
        kept += block
        if end := end_of_complete_documents(kept, doc_sep):
            yield from split_documents(kept[:end], doc_sep)
            kept = kept[end:]
    yield from split_documents(kept, doc_sep)


def end_of_complete_documents(raw: bytes, doc_sep: str) -> int:
    r"""Return the end of the last separator that later bytes cannot change; 0 if there is none.

    >>> [end_of_complete_documents(raw, "blank-line") for raw in (b"a\n\nb", b"a\n\n")]
    [3, 0]
    """
    if not doc_sep:
        return 0
    if doc_sep != BLANK_LINE:
        # Search from the left, as `split` does: in "aaa" the separator "aa" is at 0, not at 1.
        return len(raw) - len(raw.split(unescape(doc_sep).encode("utf-8", "surrogateescape"))[-1])
    body = len(raw.rstrip(b" \t\r\n"))  # later bytes may extend the white space
    ends = [match.end() for match in BLANK_LINES.finditer(raw) if match.end() <= body]
    return ends[-1] if ends else 0


def read_documents(
    files: Sequence[Path],
    doc_sep: str,
    errors: str,
    *,
    field: str = readers.DEFAULT_JSON_FIELD,
    hint: str = ANY_BYTES_HINT,
) -> Iterator[bytes]:
    """Yield every document of the files, in order.

    Without a separator, one whole file is in memory at a time. In a file named as JSON, each object
    is a document.

    Args:
        doc_sep: see `split_documents`.
        errors: `strict` accepts UTF-8 only, `bytes` accepts any bytes in text files.
        field: field of a JSON object that holds the document; "" = read JSON as plain text.
        hint: how to fix a file that is not UTF-8, for the error message.

    Raises:
        UserError: a file can't be read, holds something else than its name says, is not UTF-8
            although `errors` is strict, or a JSON object has no text in that field.
    """
    for path in files:
        is_json = bool(field) and readers.is_json(path)
        checks = errors == "strict" and not is_json
        with CheckedStream(path, hint) if checks else readers.TextStream(path) as stream:
            readers.check_content(stream, field)
            if is_json:
                yield from readers.json_documents(stream, field)
            else:
                yield from stream_documents(stream, doc_sep)


class CheckedStream(readers.TextStream):
    """A stream that raises an error at the first byte that is not UTF-8."""

    def __init__(self, path: Path, hint: str) -> None:
        super().__init__(path)
        self._hint = hint
        self._position = 0  # of the next byte in the file
        self._rest = b""  # bytes of an incomplete character before that position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end.

        Raises:
            UserError: a byte is not UTF-8; names its position.
        """
        block = super().read(size)
        raw, offset = self._rest + block, self._position - len(self._rest)
        end = end_of_whole_characters(raw) if block else len(raw)
        if not raw.isascii():
            decode_utf8(raw[:end], self.label, hint=self._hint, offset=offset)
        self._position += len(block)
        self._rest = raw[end:]
        return block


def cut_at_character(raw: bytes, position: int) -> int:
    """Return the last UTF-8 character boundary at or before `position`; `position` if none is near.

    >>> cut_at_character("aé".encode(), 2)
    1
    """
    for back in range(4):  # a UTF-8 character has at most 4 bytes
        at = position - back
        if at <= 0 or at >= len(raw) or raw[at] & 0xC0 != 0x80:
            return at
    return position  # not UTF-8
