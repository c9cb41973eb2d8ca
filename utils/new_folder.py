"""A folder of files that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError
from utils.files import sync_folder


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
