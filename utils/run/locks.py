"""Locks of files, also on file systems that have none."""

from __future__ import annotations

import errno
import functools
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from utils.output import log

if sys.platform != "win32":
    import fcntl

# flock fails with these where locks are not supported: NFS without lockd, Lustre without -o flock.
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@functools.cache
def why_no_locks(folder: Path) -> str:
    """Return why files in a folder can't be locked; "" if they can.

    Raises:
        OSError: the folder can't be written, or the file system fails.
    """
    if sys.platform == "win32":  # it has locks of another kind
        return ""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise OSError(error.errno, error.strerror, str(folder)) from None
            reason = f"its file system has no locks ({error.strerror})"
            log(f"warning: {folder}: {reason}; make sure that no other process writes there")
            return reason
    return ""


def acquire(lock: FileLock, blocking: bool | None = None) -> bool:
    """Take a lock; return False, after a warning, where the file system has no locks.

    Args:
        blocking: whether to wait for another process; None = as the lock was made.

    Raises:
        Timeout: another process holds it.
        OSError: the folder can't be written, or the file system fails.
    """
    if why_no_locks(Path(lock.lock_file).absolute().parent):
        return False
    lock.acquire(blocking=blocking)
    return True
