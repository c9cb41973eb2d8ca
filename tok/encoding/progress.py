"""A line on stderr that says how far a long job has come; silent where stderr is no terminal."""

from __future__ import annotations

import sys
import time

INTERVAL_S = 0.1


class ProgressLine:
    """Rewrites one line in place. tok/ needs NumPy alone, so this is not tqdm."""

    def __init__(self, name: str, total: int, enabled: bool) -> None:
        self.name = name
        self.total = total
        self.enabled = enabled and sys.stderr.isatty()
        self._open = False
        self._start = self._shown = time.monotonic()

    def close(self) -> None:
        """Ends a line that was left unfinished, so that the next message starts on its own."""
        if self._open:
            self._open = False
            print(file=sys.stderr)

    def __call__(self, done: int) -> None:
        """Shows that `done` of the total are done, at most every INTERVAL_S."""
        if not self.enabled:
            return
        now = time.monotonic()
        if done < self.total and now - self._shown < INTERVAL_S:
            return
        self._shown = now
        rest_s = (now - self._start) * (self.total - done) / max(done, 1)
        self._open = done < self.total
        end = "\n" if done == self.total else ""
        print(
            f"\r{self.name} {done:,}/{self.total:,}, {rest_s:.0f} s left \x1b[K",
            end=end,
            file=sys.stderr,
            flush=True,
        )
