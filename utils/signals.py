"""Ctrl-C (SIGINT), Ctrl-Break and SIGTERM: stop between two steps instead of within one."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from types import FrameType
from typing import Any

SIGHUP: int = getattr(signal, "SIGHUP", -1)  # the terminal was closed; not on Windows
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGBREAK: Ctrl-Break, on Windows only


def before_slow_imports() -> None:
    """Make Ctrl-C end the process without a traceback, until `run_cli` handles it.

    Programs call this before their imports, which take seconds. Where Ctrl-C is ignored (nohup, a
    background job), it stays ignored. Threads of torch get their setting, which it reads once.
    """
    # How often a thread of torch on Linux checks for work before it leaves its core to others. The
    # default takes milliseconds, so beside a busy program the threads of a run block each other.
    if "OMP_WAIT_POLICY" not in os.environ:  # which is the user's decision
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def discard_terminal() -> None:
    """Redirect output from a terminal that was closed to /dev/null, as writing would fail."""
    for stream in (sys.stdout, sys.stderr):
        # isatty() is False once the terminal is closed; a terminal is a character device.
        with contextlib.suppress(AttributeError, OSError):  # no stream, or one without a file
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class SignalCatcher:
    """Context that records the first signal in `number`. A second one ends the process.

    Attributes:
        number: the number of the first signal; None until it arrives.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> SignalCatcher:
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        if SIGHUP in numbers and signal.getsignal(SIGHUP) == signal.SIG_IGN:  # below nohup
            numbers.remove(SIGHUP)
        self._previous_handlers = {n: signal.signal(n, self._on_signal) for n in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == SIGHUP:  # may come twice, from the system and from the shell
            discard_terminal()
        elif self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif number == signal.SIGINT and sys.stderr.isatty():  # what is running takes seconds
            os.write(sys.stderr.fileno(), b"\nstopping; Ctrl-C again ends it at once\n")
        self.number = self.number or number

    @property
    def exit_status(self) -> int:
        """The exit status that shells use for this signal, or 0 without a signal."""
        return 128 + self.number if self.number is not None else 0
