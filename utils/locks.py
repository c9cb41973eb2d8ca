"""Locks on open files, which the system takes back when the last process that holds one ends."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any


def try_lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Takes the lock of an open file without waiting; whether it was free.

    It belongs to the open file, and to processes that inherit it, until all of them have closed it.
    On Windows, which has no such lock, it is always free.

    Args:
        shared: with others that share it, rather than alone.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lock:
    """A file that one process at a time holds the lock of, until it lets go or ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Whether it could be taken; the file is made where there is none."""
        if self._file is None:
            self._file = open(self.path, "ab")
        return try_lock(self._file)

    def close(self) -> None:
        """Lets go; a second time does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
