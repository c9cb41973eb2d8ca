"""Readers of text and JSON files, plain or gzipped, as streams."""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tok.text_files import (
    BOM,
    HEAD_BYTES,
    JSON_SUFFIXES,
    archive_kind,
    blocks_of_whole_characters,
    first_json_object,
)
from utils.errors import UserError, user_error_if_os_error
from utils.files import decode_utf8, readable_again
from utils.suggest import shell_quote

GZIP = ".gz"
DEFAULT_JSON_FIELD = "text"  # as in most published JSON-lines corpora
UTF8_HINT = "JSON lines are UTF-8: convert the file"
# A gzip file may unpack to MAX_RATIO times its size, and in any case to MIN_UNPACKED bytes.
MIN_UNPACKED, MAX_RATIO = 1 << 21, 100
LONGEST_TOKEN = 16  # characters; a JSON error this near the end may be due to a cut JSON token
BLANKS = re.compile(r"[ \t\r\n]*")


def is_json(path: str | Path) -> bool:
    """Return True if a file is named as JSON.

    >>> is_json("a.jsonl"), is_json("a.NDJSON.gz"), is_json("a.json"), is_json("a.txt")
    (True, True, True, False)
    """
    return str(path).lower().removesuffix(GZIP).endswith(JSON_SUFFIXES)


def check_json_field(files: Iterable[Path], flag: str) -> None:
    """Check that the flag that names a field of JSON objects has an effect.

    Raises:
        UserError: none of the files is named as JSON.
    """
    if not any(map(is_json, files)):
        raise UserError(
            f"{flag}: has an effect only on JSON, and none of the files is named "
            f"{', '.join(JSON_SUFFIXES)}; leave it out"
        )


def kind_of(path: str | Path) -> str:
    """Return the format of a file by its name, as recipes store it; "" is plain text.

    >>> kind_of("a.txt"), kind_of("a.txt.gz"), kind_of("a.jsonl.gz")
    ('', 'gzip', 'json lines, gzip')
    """
    kinds = ("json lines" if is_json(path) else "", "gzip" if is_gzip(path) else "")
    return ", ".join(filter(None, kinds))


def is_gzip(path: str | Path) -> bool:
    """Return True if a file is named as a gzip file."""
    return str(path).lower().endswith(GZIP)


class Unpacked(gzip.GzipFile):
    """A gzip file that is refused if a few of its bytes unpack to a huge text."""

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes.

        Raises:
            UserError: so far the file has unpacked to more than any text does.
        """
        block = super().read(size)
        if self.tell() > max(MIN_UNPACKED, MAX_RATIO * os.path.getsize(self.name)):
            raise UserError(
                f"{self.name}: unpacks to more than {MAX_RATIO} times its size, which no text "
                "needs; if it is text, unpack it with gunzip first"
            )
        return block


class TextStream(io.BufferedReader):
    """The bytes of a file, decompressed if its name ends in .gz.

    All methods raise UserError if the file can't be read or is not a complete gzip file.
    """

    def __init__(self, path: Path) -> None:
        packed, source = is_gzip(path), readable_again(path)
        # Positions in messages count unpacked bytes.
        self.path, self.label = path, f"{path}{' (unpacked)' * packed}"
        with user_error_if_os_error():
            file = Unpacked(source, "rb") if packed else open(source, "rb", buffering=0)
        super().__init__(file, HEAD_BYTES)

    def peek(self, size: int = HEAD_BYTES, /) -> bytes:
        """Return up to HEAD_BYTES of the next bytes, without consuming them."""
        return self._try(super().peek, size)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; all that remain if `size` is negative."""
        return self._try(super().read, size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its newline; b"" at the end."""
        return self._try(super().readline, size)

    def _try(self, read: Callable[[Any], bytes], size: int | None) -> bytes:
        try:
            return read(size)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{self.path}: not gzip, or damaged: {error}") from None
        except EOFError:
            raise UserError(
                f"{self.path}: cut short: the gzip file has no end; get it again"
            ) from None
        except OSError as error:  # a folder, or a failing disk
            raise UserError(f"{self.path}: {error.strerror or error}") from None


def check_content(stream: TextStream, field: str) -> None:
    """Check that a file does not hold something else than its name says.

    Raises:
        UserError: it is an archive, or it holds JSON objects with `field` but is not named as JSON.
    """
    head = stream.peek()
    if kind := archive_kind(head):
        rename = f", or rename it to {stream.path.name}{GZIP}" if kind == "gzip" else ""
        raise UserError(f"{stream.label}: holds {kind} data, not text; unpack it{rename}")
    if field and not is_json(stream.path):
        found = first_json_object(head)
        if found and isinstance(found.get(field), str):
            raise UserError(
                f"{stream.path}: holds JSON objects with a field {field!r}, but is not named .json "
                "or .jsonl; give it such a name, or --data.json_field '' to learn the JSON as text"
            )


def json_documents(stream: TextStream, field: str = DEFAULT_JSON_FIELD) -> Iterator[bytes]:
    """Yield the string in `field` of each JSON object, as UTF-8; empty strings are skipped.

    The content decides: an object per line, an array of objects, or objects that span lines.

    Raises:
        UserError: something is not UTF-8, not a JSON object, or has no string in `field`; names
            file and line.
    """
    values = JSONValues(stream).values() if spans_lines(stream.peek()) else _json_lines(stream)
    for where, found in values:
        if text := _field_of(found, field, where):
            yield text


def spans_lines(head: bytes) -> bool:
    """Return True if JSON that begins with `head` does not have one value per line.

    >>> spans_lines(b'{"a": 1}'), spans_lines(b'[{"a": 1}]'), spans_lines(b'{')
    (False, True, True)
    """
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"["):
        return True
    line = start.partition(b"\n")[0].decode("utf-8", "replace").rstrip()
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line) > 0  # the value continues on the next line
    except (ValueError, RecursionError):
        pass
    return False


def _json_lines(stream: TextStream) -> Iterator[tuple[str, Any]]:
    """Yield "FILE:LINE" and the value on that line, for each line that is not blank."""
    for number, line in enumerate(iter(stream.readline, b""), start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        line = line.rstrip(b"\r\n")
        if not line.strip():
            continue
        where = f"{stream.path}:{number}"
        text = decode_utf8(line, where, hint=UTF8_HINT)
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON at character {error.pos}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise _unreadable(where, error) from None
        yield where, found


def _unreadable(where: str, error: Exception) -> UserError:
    """Return the error about a number of too many digits, or too deep nesting."""
    return UserError(f"{where}: JSON that can't be read: {error}")


class JSONValues:
    """The values of a JSON array, or of a sequence of values, read in blocks."""

    def __init__(self, stream: TextStream) -> None:
        self._path = stream.path
        self._blocks = _text_blocks(stream)
        self._text, self._position, self._line = "", 0, 1

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield "FILE:LINE" where a value begins, and the value.

        Raises:
            UserError: not UTF-8 or not JSON.
        """
        is_array = self._next_char() == "["
        self._position += is_array
        n_values = 0
        while char := self._next_char():
            if is_array and char == "]":
                self._position += 1
                if self._next_char():
                    raise self._error("there is more after the array")
                return
            if is_array and n_values:
                if char != ",":
                    raise self._error("expected , or ] after a value of the array")
                self._position += 1
                self._next_char()
            n_values += 1
            where = f"{self._path}:{self._line}"
            yield where, self._value(where)
        if is_array:
            raise self._error("the array has no end")

    def _next_char(self) -> str:
        """Skip blanks; return the next character without consuming it, "" at the end."""
        while True:
            blanks = BLANKS.match(self._text, self._position)
            assert blanks
            self._consume(blanks.end())
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

    def _value(self, where: str) -> Any:
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self._text) - LONGEST_TOKEN
                if (near_end or "Unterminated" in error.msg) and self._read_more():
                    continue
                self._consume(max(error.pos, self._position))
                raise self._error(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise _unreadable(where, error) from None
            self._consume(end)
            return value

    def _consume(self, end: int) -> None:
        self._line += self._text.count("\n", self._position, end)
        self._position = end

    def _read_more(self) -> bool:
        """Drop the consumed text and read at least as much as remains; return False at the end.

        Reading as much as remains keeps the total work linear.
        """
        kept = self._text[self._position :]
        new = "".join(islice(self._blocks, 1 + len(kept) // HEAD_BYTES))
        self._text, self._position = kept + new, 0
        return bool(new)

    def _error(self, reason: str) -> UserError:
        return UserError(f"{self._path}:{self._line}: not JSON: {reason}")


def _text_blocks(stream: TextStream) -> Iterator[str]:
    """Yield the text of a stream in blocks, without a byte order mark."""
    offset = 0
    for raw in blocks_of_whole_characters(stream.read):
        text = decode_utf8(raw, stream.label, hint=UTF8_HINT, offset=offset)
        yield text if offset else text.removeprefix(BOM.decode())
        offset += len(raw)


def _field_of(found: Any, field: str, where: str) -> bytes:
    """Return the text in a field of a JSON object, as UTF-8.

    Raises:
        UserError: not an object, or no text in it.
    """
    if not isinstance(found, dict):
        raise UserError(f'{where}: expected an object such as {{"{field}": "..."}}')
    if field not in found:
        names = ", ".join(sorted(map(repr, found))[:8]) or "nothing"
        raise UserError(f"{where}: no field {field!r}; it has {names}; {_fix_of_field(found)}")
    if not isinstance(found[field], str):
        what = f"holds no text (its Python type is {type(found[field]).__name__})"
        raise UserError(f"{where}: the field {field!r} {what}; {_fix_of_field(found)}")
    try:
        return found[field].encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: the field {field!r} holds half a character (a lone surrogate) at "
            f"character {error.start}, which is not text"
        ) from None


def _fix_of_field(found: dict[str, Any]) -> str:
    """Return how to read a JSON object whose text is not where it was expected."""
    # The text, or the list of records, is most likely the longest one.
    sizes = {
        name: len(str(value))
        for name, value in found.items()
        if isinstance(value, str) or str(value).startswith("[{")
    }
    name = max(sizes, key=lambda name: sizes[name], default="NAME")
    if isinstance(found.get(name), list):
        return (
            f"a list of records inside an object ({name!r}) is not supported: write one record a "
            "line into a .jsonl file"
        )
    word = shell_quote(name) if name.isprintable() else "NAME"
    return f"name the field with the text: --data.json_field {word}"
