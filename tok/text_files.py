"""Text files and folders of them, as bytes or checked to be UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from tok.errors import TokenizerError
from utils.errors import UserError
from utils.files import decode_utf8

READ_BYTES = 1 << 20
STDIN = "standard input"  # its name in messages


def expand_folders(
    paths: Iterable[str | Path], hint: Callable[[Path], str] = lambda path: ""
) -> list[Path]:
    """Each file as it is; for a folder all files below it, by name, without hidden ones.

    Args:
        hint: what to say behind the message about a path that does not exist.

    Raises:
        UserError: no such path, or a folder without files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
            visible = [
                file for file in below if not any(part.startswith(".") for part in file.parts)
            ]
            if not visible:
                raise UserError(f"{path}: no files in this folder")
            files += [path / file for file in sorted(visible, key=lambda file: file.parts)]
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path}: No such file or directory{hint(path)}")
    return files


def check_errors(errors: str) -> None:
    """
    Raises:
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    if errors not in ("strict", "bytes"):
        raise TokenizerError(f"errors must be 'strict' or 'bytes', not {errors!r}")


def check_text(raw: bytes, name: str | Path, errors: str, *, offset: int = 0) -> None:
    """Checks that `raw` is UTF-8, unless `errors` is "bytes".

    `offset` is where it begins in what is called `name`.

    Raises:
        UserError: not UTF-8; names the byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    check_errors(errors)
    if errors == "strict" and not raw.isascii():
        decode_utf8(raw, name, offset=offset)


def check_stream(stream: BinaryIO, name: str | Path, errors: str) -> int:
    """`check_text` for a stream, to its end, in blocks; returns how many bytes it has.

    Raises:
        UserError: not UTF-8; names the byte.
        TokenizerError: as check_text.
    """
    n_bytes = 0
    rest = b""
    while block := stream.read(READ_BYTES):
        raw = rest + block
        end = end_of_whole_characters(raw)
        check_text(raw[:end], name, errors, offset=n_bytes - len(rest))
        n_bytes += len(block)
        rest = raw[end:]
    check_text(rest, name, errors, offset=n_bytes - len(rest))
    return n_bytes


def end_of_whole_characters(raw: bytes) -> int:
    """Where a UTF-8 character begins at the end of `raw` that is not whole; len(raw) if none does.

    >>> end_of_whole_characters("aé".encode()), end_of_whole_characters("aé".encode()[:-1])
    (3, 1)
    """
    for back, byte in enumerate(raw[:-4:-1], start=1):
        if byte >= 0xC0:  # the first byte of 2, 3 or 4
            n_bytes = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(raw) - back if n_bytes > back else len(raw)
        if byte < 0x80:
            break
    return len(raw)
