"""Locks of files, also on file systems that have none."""

import errno
import functools
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError
from utils.output import log

# flock fails with these where locks are not supported: NFS without lockd, Lustre without -o flock.
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def acquire(lock: FileLock, held_message: str = "") -> bool:
    """Take a lock; return False, after a warning, where the file system has no locks.

    Args:
        held_message: of the error if another process holds the lock, unless it waits for ever.

    Raises:
        UserError: another process holds it.
        OSError: the folder can't be written, or the file system fails.
    """
    try:
        lock.acquire()
    except Timeout:
        raise UserError(held_message) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            error.filename = error.filename or lock.lock_file
            raise
        reason = f"its file system has no locks ({error.strerror})"
        warn_once(f"{Path(lock.lock_file).parent}: {reason}; let no other process write there")
        return False
    return True


@functools.cache
def warn_once(line: str) -> None:
    """Log a warning, unless it was logged before."""
    log(f"warning: {line}")
