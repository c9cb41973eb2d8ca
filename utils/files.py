"""Files: written whole or not at all, read as bytes, refused with the reason."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError, describe_os_error


def read_bytes(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        UserError: the file is missing, a folder, or can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(describe_os_error(error)) from None


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        UserError: it is closed (`<&-`).
    """
    if sys.stdin is None:
        raise UserError("standard input: closed; give it a file or a pipe")
    return sys.stdin.buffer.read()


TAKE_ANY_BYTES = "convert the file, or pass --errors bytes to take any bytes"


def decode_utf8(
    raw: bytes, name: str | Path, *, cure: str = TAKE_ANY_BYTES, offset: int = 0
) -> str:
    """Decodes strictly; newlines and a byte order mark stay as they are.

    `offset` is where in the file `raw` begins.

    >>> decode_utf8(b"\\xef\\xbb\\xbfa\\r\\n", "a.txt")
    '\\ufeffa\\r\\n'

    Raises:
        UserError: not UTF-8; the message has the byte offset.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}: not UTF-8 at byte {offset + error.start} (0x{raw[error.start]:02x}); {cure}"
        ) from None


def write_atomic(path: str | Path, content: bytes) -> None:
    """Writes a file so that a crash at any point leaves the old one or the new one, never a half.

    Temporary file in the same folder, fsync, rename, fsync of the folder. A link stays a link: the
    file that it names is written. A device or pipe (/dev/stdout) is written to, never replaced.

    Raises:
        OSError: no space, no permission; the old file is untouched and the temporary one is gone.
    """
    # Asked of `path`: the real path of /dev/stdout, where that is a pipe, names no file.
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as stream:
            stream.write(content)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # Name the file that the user knows, not the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def require_place(path: str | Path, flag: str) -> None:
    """Checks, before long work, that a file could be written there when it is done.

    Raises:
        UserError: it is a folder, or its folder is missing or closed to us.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{flag} {path}: a folder stands there; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag} {path}: can't write into {path.parent}; name another place")


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable. Systems that can't open a folder (Windows) skip it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's content, read in blocks.

    Raises:
        UserError: the file is missing, a folder, or can't be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    return digest.hexdigest()


def require_new(path: str | Path, flag: str) -> None:
    """Checks, before any work is done, that a folder can be made without replacing anything.

    Raises:
        UserError: something stands there, or the place can't be written.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} {path}: a file stands there; name a folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{flag} {path}: the folder is not empty; name another, or remove it")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{flag} {path}: {nearest} is not a folder; name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: can't write into {nearest}; name another place")


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name when the block ends well.

    When it ends in an error, nothing is left; a killed process leaves a folder `.NAME.tmp-PID`.

    Raises:
        OSError: the folder can't be made or written, or is not empty by now.
    """
    path = Path(os.path.abspath(path))
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            path.rmdir()  # refuses one that is not empty
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(temporary))
        if error.errno is None or not inside:
            raise
        # Name the folder that the user knows; a write that fails names no file at all.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # not empty: it worked
                parent.rmdir()
