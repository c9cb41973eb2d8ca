"""Files of text, of JSON lines, and either of them gzipped, read as streams of documents."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from utils.errors import UserError, describe_os_error
from utils.files import decode_utf8

GZIP = ".gz"
JSON_LINES = (".jsonl", ".ndjson")
DEFAULT_JSON_FIELD = "text"  # of a line's object: where the document stands
BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, none at the end."""


def is_json_lines(path: str | Path) -> bool:
    """Whether a file holds a JSON object in each line, by its name.

    >>> is_json_lines("a.jsonl"), is_json_lines("a.NDJSON.gz"), is_json_lines("a.json")
    (True, True, False)
    """
    name = str(path).lower().removesuffix(GZIP)
    return name.endswith(JSON_LINES)


def kind_of(path: str | Path) -> str:
    """How a file is read, by its name: "" as text.

    >>> kind_of("a.txt"), kind_of("a.txt.gz"), kind_of("a.jsonl.gz")
    ('', 'gzip', 'json lines, gzip')
    """
    kinds = ("json lines" if is_json_lines(path) else "", "gzip" if is_gzip(path) else "")
    return ", ".join(filter(None, kinds))


def is_gzip(path: str | Path) -> bool:
    """Whether a file is gzipped, by its name."""
    return str(path).lower().endswith(GZIP)


class TextStream:
    """A file's content, unpacked where its name ends in .gz.

    Raises in all methods:
        UserError: it can't be read, or is no whole gzip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        packed = is_gzip(path)
        try:
            self._file: IO[bytes] = (
                gzip.open(path, "rb") if packed else open(path, "rb")  # type: ignore[assignment]
            )
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
        if packed:
            self.name += " (unpacked)"

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all without it."""
        return self._try(lambda: self._file.read(size))

    def readline(self) -> bytes:
        """A line with its newline; nothing at the end."""
        return self._try(self._file.readline)

    def _try(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{self.path}: not gzip, or damaged: {error}") from None
        except EOFError:
            raise UserError(f"{self.path}: cut short: the gzip file has no end") from None
        except OSError as error:  # a folder, or a failing disk
            raise UserError(f"{self.path}: {error.strerror or error}") from None

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def json_documents(stream: TextStream, field: str = DEFAULT_JSON_FIELD) -> Iterator[bytes]:
    """The texts of a file of JSON lines: one of each line's object, under `field`, as UTF-8.

    Empty lines and empty texts are left out.

    Raises:
        UserError: a line is not UTF-8, no JSON object, or has no text there; names file and line.
    """
    number = 0
    while line := stream.readline():
        number += 1
        line = line.removeprefix(BOM) if number == 1 else line
        line = line.rstrip(b"\r\n")
        if not line.strip():
            continue
        if text := _field_of(line, field, f"{stream.path}:{number}"):
            yield text


def _field_of(line: bytes, field: str, where: str) -> bytes:
    text = decode_utf8(line, where, hint="JSON lines are UTF-8: convert the file")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON at character {error.pos}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; too deep
        raise UserError(f"{where}: JSON that can't be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f'{where}: expected an object such as {{"{field}": "..."}}')
    if field not in found:
        names = ", ".join(sorted(map(repr, found))[:8]) or "nothing"
        raise UserError(f"{where}: no field {field!r}; it has {names}; name the field that has it")
    if not isinstance(found[field], str):
        kind = type(found[field]).__name__
        raise UserError(f"{where}: the field {field!r} holds no text (a {kind}, in Python's terms)")
    try:
        return found[field].encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: the field {field!r} holds half a character (a lone surrogate) at "
            f"{error.start}, which is no text"
        ) from None
