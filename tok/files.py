"""Text files and folders of them, as bytes or checked to be UTF-8."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tok.errors import TokenizerError
from utils.errors import UserError
from utils.files import decode_utf8, read_bytes


def expand_folders(paths: Iterable[str | Path]) -> list[Path]:
    """Each file as it is; for a folder all files below it, by name, without hidden ones.

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
            raise UserError(f"{path}: No such file or directory")
    return files


def check_text(raw: bytes, name: str | Path, errors: str) -> bytes:
    """Returns `raw`, after checking that it is UTF-8 unless `errors` is "bytes".

    Raises:
        UserError: not UTF-8; names the byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    if errors not in ("strict", "bytes"):
        raise TokenizerError(f"errors must be 'strict' or 'bytes', not {errors!r}")
    if errors == "strict" and not raw.isascii():
        decode_utf8(raw, name)
    return raw


def read_text(path: str | Path, errors: str = "strict") -> bytes:
    """The bytes of a text file, newlines and byte order mark as they are; see `check_text`."""
    return check_text(read_bytes(path), path, errors)
