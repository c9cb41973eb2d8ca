"""Ctrl-C and SIGTERM: noted once, obeyed between steps."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_silently_on_sigint() -> None:
    """From here to `run_cli`, Ctrl-C ends the process without a word, as for any other program.

    For the imports at the head of a program, which take seconds: a traceback through them would
    help nobody. Where Ctrl-C is ignored (nohup, a job in the background) it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class SignalCatcher:
    """While entered, a first signal sets `number` and a second one ends the process at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalCatcher:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number

    @property
    def exit_status(self) -> int:
        """What a shell reports for a process that the signal ended; 0 without one."""
        return 128 + self.number if self.number is not None else 0
