"""Trials in forked processes, which are killed, stopped or starved at a chosen moment.

A fork of a process that has imported torch starts in milliseconds, where a new one takes seconds.
The parent only imports and compares: threads of a library would not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from utils.errors import run_cli

HANG_S = 120  # a child that takes longer ends by SIGALRM, which is a failure
MAX_EXTRA_BYTES = 200_000_000  # memory that a child may need above that of its parent
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events of Python


class DefectError(Exception):
    """What a trial must never show: lost data, other bits, a traceback, too much memory."""


class Child:
    """A forked process that runs a function as a program, see `run_cli`.

    Attributes:
        text: what it has printed, after `wait`.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        memory, self.text = psutil.Process().memory_info(), ""
        self._before = memory.rss - memory.shared  # a fork does not inherit pages of files
        # A pipe, as files would meet the limits on file sizes. It holds more than any child prints.
        self._pipe, output = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            run_and_exit(work, output)
        os.close(output)

    def wait(self, *allowed: int, max_bytes: int = MAX_EXTRA_BYTES) -> int:
        """Wait for the end; return the exit status, or minus the signal that ended it.

        Raises:
            DefectError: another status than these, a traceback, no message, too much memory.
        """
        _, ending, usage = os.wait4(self.pid, 0)
        status = os.waitstatus_to_exitcode(ending)
        os.set_blocking(self._pipe, False)  # a process of the child may still hold it open
        with contextlib.suppress(BlockingIOError), open(self._pipe, "rb", 0) as pipe:
            self.text = pipe.read(1 << 20).decode("utf-8", "replace")
        silent = status == 2 and "error: " not in self.text
        if status not in allowed or "Traceback" in self.text or silent:
            raise DefectError(f"status {status}, not {allowed}: {self.text[-2000:]}")
        if (extra_bytes := usage.ru_maxrss * 1024 - self._before) > max_bytes:
            raise DefectError(f"{extra_bytes:,} bytes of memory: {self.text[-500:]}")
        return status


def run_and_exit(work: Callable[[], object], output: int) -> None:
    """Run `work` in this process, with stdout and stderr in the pipe `output`."""
    status: Any = 1
    try:
        signal.alarm(HANG_S)
        # tqdm's lock is shared by all processes: a kill would leave it locked for ever.
        tqdm.set_lock(threading.RLock())
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(output, number)
            setattr(sys, name, open(number, "w", 1, encoding="utf-8", closefd=False))
        run_cli(lambda _: found if isinstance(found := work(), int) else 0)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def at_change(folder: Path, number: int, act: Callable[[str], object]) -> None:
    """Call `act` before each change of a file below `folder`, from the change `number` on.

    Changes, counted from 1, are files opened for writing, renamed, removed or synced, and folders
    made or removed. `act` is given the audit event; what it raises, the operation raises.
    """
    n_changes = 0

    def hook(event: str, args: Any) -> None:
        nonlocal n_changes
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in (*CHANGES, "sync")) and str(args[0]).startswith(str(folder)):
            n_changes += 1
            if n_changes >= number:
                act(event)

    def synced(fd: Any) -> None:
        hook("sync", (folder,))
        fsync(fd)

    fsync, os.fsync = os.fsync, synced
    sys.addaudithook(hook)


def limit_file_size(n_bytes: int, *, kill: bool = False) -> None:
    """Let writes fail, or kill this process, when a file gets larger: in the middle of a write."""
    import resource

    if kill:  # Python ignores this signal
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
