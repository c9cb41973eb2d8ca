"""A progress line on stderr; silent if stderr is not a terminal."""

import shutil
import sys
import time

INTERVAL_S = 0.1


class ProgressLine:
    """Rewrites one line in place. Not tqdm, because tok/ depends on NumPy only."""

    def __init__(self, name: str, total: int, enabled: bool) -> None:
        self.name = name
        self.total = total
        self.enabled = enabled and sys.stderr.isatty()
        self._open, self._count, self.done = False, "", 0
        self._start = self._shown = time.monotonic()

    def close(self) -> None:
        """End an unfinished line, without its estimate of the time, which is no longer true."""
        if self._open:
            self._open = False
            self._print(self._count, "\n")

    def __call__(self, done: int) -> None:
        """Show progress: `done` of the total. Prints at most once per INTERVAL_S seconds."""
        self.done = done
        if not self.enabled:
            return
        now = time.monotonic()
        if done < self.total and now - self._shown < INTERVAL_S:
            return
        self._shown = now
        elapsed_s = now - self._start
        self._open = done < self.total
        self._count = f"{self.name} {done:,}/{self.total:,}"
        if self._open:
            left_s = elapsed_s * (self.total - done) / max(done, 1)
            self._print(f"{self._count}, {left_s:.0f} s left", "")
        else:
            self._print(f"{self._count}, {elapsed_s:.0f} s", "\n")

    def _print(self, text: str, end: str) -> None:
        """Replace the line."""
        columns = shutil.get_terminal_size().columns - 1  # a longer line would wrap and stay
        # Blanks, as some consoles of Windows know no escape sequence that erases the rest.
        print(f"\r{text[:columns]:{columns}}", end=end, file=sys.stderr, flush=True)
