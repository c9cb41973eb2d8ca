"""Ctrl-C (SIGINT) and SIGTERM: stop between two steps instead of within one."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_silently_on_sigint() -> None:
    """Make Ctrl-C end the process without a traceback, until `run_cli` handles it.

    Programs call this before their imports, which take seconds. Where Ctrl-C is ignored (nohup, a
    background job), it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class SignalCatcher:
    """Context that records the first signal in `number`. A second one ends the process.

    Attributes:
        number: the number of the first signal; None until it arrives.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> SignalCatcher:
        self._previous_handlers = {n: signal.signal(n, self._on_signal) for n in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number

    @property
    def exit_status(self) -> int:
        """The exit status that shells use for this signal, or 0 without a signal."""
        return 128 + self.number if self.number is not None else 0
