"""TODO."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def all_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that arrays give back; whether the system can do so.

    By default glibc returns every large piece to Linux at once, and each step of training, or block
    of text, gets its arrays anew, page by page. See mallopt(3) for the two numbers.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    trim_threshold, mmap_threshold = -1, -3
    largest = 2**31 - 1
    return bool(mallopt(mmap_threshold, largest // 2) and mallopt(trim_threshold, largest))


def peak_rss_bytes() -> int:
    """The most memory that this process ever held; 0 where the system does not report it."""
    try:
        # Not ru_maxrss on Linux: it begins with what the parent held when it started this process.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
