"""A progress line on stderr; silent if stderr is not a terminal."""

from __future__ import annotations

import sys
import time

INTERVAL_S = 0.1


class ProgressLine:
    """Rewrites one line in place. Not tqdm, because tok/ depends on NumPy only."""

    def __init__(self, name: str, total: int, enabled: bool) -> None:
        self.name = name
        self.total = total
        self.enabled = enabled and sys.stderr.isatty()
        self._open = False
        self._start = self._shown = time.monotonic()

    def close(self) -> None:
        """End an unfinished line, so that the next message starts on a new one."""
        if self._open:
            self._open = False
            print(file=sys.stderr)

    def __call__(self, done: int) -> None:
        """Show progress: `done` of the total. Prints at most once per INTERVAL_S seconds."""
        if not self.enabled:
            return
        now = time.monotonic()
        if done < self.total and now - self._shown < INTERVAL_S:
            return
        self._shown = now
        remaining_s = (now - self._start) * (self.total - done) / max(done, 1)
        self._open = done < self.total
        end = "\n" if done == self.total else ""
        print(
            f"\r{self.name} {done:,}/{self.total:,}, {remaining_s:.0f} s left \x1b[K",
            end=end,
            file=sys.stderr,
            flush=True,
        )
