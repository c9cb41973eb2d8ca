"""Readers of text and JSON-lines files, plain or gzipped, as streams."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from utils.errors import UserError, describe_os_error
from utils.files import decode_utf8, readable_again

GZIP = ".gz"
JSON_LINES = (".jsonl", ".ndjson")
DEFAULT_JSON_FIELD = "text"  # as in most published JSON-lines corpora
BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """An object with a `read` method for bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


def is_json_lines(path: str | Path) -> bool:
    """Return True if a file is named like one with a JSON object per line.

    >>> is_json_lines("a.jsonl"), is_json_lines("a.NDJSON.gz"), is_json_lines("a.json")
    (True, True, False)
    """
    name = str(path).lower().removesuffix(GZIP)
    return name.endswith(JSON_LINES)


def kind_of(path: str | Path) -> str:
    """Return the format of a file by its name; "" is plain text.

    >>> kind_of("a.txt"), kind_of("a.txt.gz"), kind_of("a.jsonl.gz")
    ('', 'gzip', 'json lines, gzip')
    """
    kinds = ("json lines" if is_json_lines(path) else "", "gzip" if is_gzip(path) else "")
    return ", ".join(filter(None, kinds))


def is_gzip(path: str | Path) -> bool:
    """Return True if a file is named like a gzip file."""
    return str(path).lower().endswith(GZIP)


class TextStream:
    """The bytes of a file, decompressed if its name ends in .gz.

    All methods raise UserError if the file can't be read or is not a complete gzip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        packed = is_gzip(path)
        source = readable_again(path)
        try:
            self._file: IO[bytes] = (
                gzip.open(source, "rb") if packed else open(source, "rb")  # type: ignore[assignment]
            )
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
        if packed:
            self.name += " (unpacked)"

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all without `size`."""
        return self._try(lambda: self._file.read(size))

    def readline(self) -> bytes:
        """Return the next line with its newline; b"" at the end."""
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
    """Yield the string in `field` of each line's JSON object, as UTF-8.

    Empty lines and empty strings are skipped.

    Raises:
        UserError: a line is not UTF-8, not a JSON object, or has no string in `field`; names file
            and line.
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
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number has too many digits, or the nesting is too deep
        raise UserError(f"{where}: JSON that can't be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f'{where}: expected an object such as {{"{field}": "..."}}')
    if field not in found:
        names = ", ".join(sorted(map(repr, found))[:8]) or "nothing"
        raise UserError(f"{where}: no field {field!r}; it has {names}; name the field that has it")
    if not isinstance(found[field], str):
        kind = type(found[field]).__name__
        raise UserError(f"{where}: the field {field!r} holds no text (its Python type is {kind})")
    try:
        return found[field].encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: the field {field!r} holds half a character (a lone surrogate) at "
            f"{error.start}, which is not text"
        ) from None
