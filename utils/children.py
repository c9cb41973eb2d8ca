"""Child processes that end with this one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")


class Children:
    """Runs commands, from several threads at once, until it is told to stop."""

    def __init__(self) -> None:
        self.stopping = False
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> int | None:
        """Runs a command to its end and returns its exit status; None where it was not begun.

        What it prints is added to `log`.
        """
        with open(log, "ab") as output:
            with self._lock:
                if self.stopping:
                    return None
                # In a session of its own: Ctrl-C reaches it once, through stop(), not twice.
                child = subprocess.Popen(
                    [sys.executable, str(LEASH), *command],
                    stdin=subprocess.PIPE,  # held until stop(), or this process's death
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=env,
                )
                self._running.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)
                    assert child.stdin is not None
                    child.stdin.close()

    def stop(self) -> None:
        """Begins nothing more and asks what runs to end (SIGTERM); does not wait for it."""
        with self._lock:
            self.stopping = True
            for child in self._running:
                assert child.stdin is not None
                child.stdin.close()


def last_line(log: Path) -> str:
    """The last line of a log that holds anything; of a progress bar, its last state."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return next((line for line in reversed(lines) if line), "")
