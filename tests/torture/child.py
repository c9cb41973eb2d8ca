"""Trials in forked processes, which are killed, stopped or starved at a chosen moment.

A fork of a process that has imported torch starts in milliseconds, where a new one takes seconds.
The parent only imports and compares: threads of a library would not survive a fork.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from utils.errors import run_cli
from utils.processes import peak_rss_bytes

HANG_S = 120  # a child that takes longer ends by SIGALRM, which is a failure
MAX_EXTRA_BYTES = 200_000_000  # memory that a child may need above that of its parent
# Audit events of Python, and "sync". Opening a file for writing is a change, too.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "sync")


class DefectError(Exception):
    """What a trial must never show: lost data, other bits, a traceback, too much memory."""


class Child:
    """A forked process that runs a function as a program, see `run_cli`.

    Attributes:
        text: what it has printed, after `wait`.
    """

    def __init__(self, work: Callable[[], object], max_bytes: int = MAX_EXTRA_BYTES) -> None:
        """Start it; it fails if it needs more than `max_bytes` above the memory of its parent."""
        self.text, context = "", multiprocessing.get_context("fork")
        self._pipe, output = os.pipe()  # files would meet the limits on file sizes
        self.process = context.Process(target=run_program, args=(work, output, max_bytes))
        self.process.start()
        os.close(output)

    def wait(self, *allowed: int) -> int:
        """Wait for the end; return the exit status, or minus the signal that ended it.

        Raises:
            DefectError: another status than these, a traceback, no message.
        """
        with open(self._pipe, encoding="utf-8", errors="replace") as pipe:
            self.text = pipe.read()
        self.process.join()
        status = self.process.exitcode or 0
        silent = status == 2 and "error: " not in self.text
        if status not in allowed or "Traceback" in self.text or silent:
            raise DefectError(f"status {status}, not {allowed}: {self.text[-2000:]}")
        return status


def run_program(work: Callable[[], object], output: int, max_bytes: int) -> None:
    """Run `work` in this process, with stdout and stderr in the pipe `output`."""
    signal.alarm(HANG_S)
    # tqdm's lock is shared by all processes: a kill would leave it locked for ever.
    tqdm.set_lock(threading.RLock())
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(output, number)
        stream = open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
    os.close(output)
    before = peak_rss_bytes()
    try:
        run_cli(lambda _: found if isinstance(found := work(), int) else 0)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's last steps print a traceback
        if (extra_bytes := peak_rss_bytes() - before) > max_bytes:
            sys.exit(f"{extra_bytes:,} bytes of memory")


@contextlib.contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Make a folder; at the end of the block, kill the children that still run, and remove it."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="torture-") as folder:
        try:
            yield Path(folder).resolve()
        finally:  # children of a failed or interrupted trial
            for process in multiprocessing.active_children():
                process.kill()
                process.join()


def at_change(folder: Path, number: int, act: Callable[[str], object]) -> None:
    """Call `act` before each change of a file below `folder`, from the change `number` on.

    Changes, counted from 1, are files opened for writing, renamed, removed or synced, and folders
    made or removed. `act` is given the audit event; what it raises, the operation raises.
    """
    changes = itertools.count(1)

    def hook(event: str, args: Any) -> None:
        is_change = event in CHANGES or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if is_change and str(args[0]).startswith(str(folder)) and next(changes) >= number:
            act(event)

    def synced(fd: Any) -> None:
        hook("sync", (folder,))
        fsync(fd)

    fsync, os.fsync = os.fsync, synced
    sys.addaudithook(hook)


def limit_file_size(n_bytes: int, *, kill: bool = False) -> None:
    """Let writes fail, or kill this process, when a file gets larger: in the middle of a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    psutil.Process().rlimit(psutil.RLIMIT_FSIZE, (n_bytes, n_bytes))
