"""Runs a command that ends with its starter: `python scripts/sweep/watchdog.py [OPTIONS] COMMAND...`.

Standard input is the leash, a pipe whose other end the starter holds. It closes when the starter
lets go, or dies in any way, kill -9 too; the command is then asked to end (SIGTERM).

    --while-locked FILE   ends it too when nobody holds the lock of FILE any more
    --log FILE            what it prints is added there, and the log is locked while it runs
    --run FOLDER          waits for a process that still writes this run; where a run has begun, the
                          words of COMMAND behind `--` give way to --resume
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

if not __package__:  # started as scripts/sweep/watchdog.py, which leaves the root out
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.locks import try_lock

POLL_S = 0.2
ENDED = 128 + signal.SIGTERM  # what a shell reports for a command that was asked to end


class Leash:
    """Whether the command may go on, and the command."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()  # a signal may come while its own thread holds it

    def end(self, *_: object) -> None:
        """Asks the command to end; one that has not begun never does."""
        with self._lock:
            self.ended.set()
            if self._child is not None:
                self._child.terminate()

    def start(self, command: Sequence[str], output: IO[bytes] | None) -> int:
        """Runs the command to its end; its exit status, 128 + N where signal N ended it."""
        with self._lock:
            if self.ended.is_set():
                return ENDED
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            self._child = child
            if self.ended.is_set():  # by a signal while it began
                child.terminate()
        status = child.wait()
        return status if status >= 0 else 128 - status

    def watch_input(self) -> None:
        """Ends the command when standard input closes."""
        sys.stdin.buffer.read()
        self.end()

    def watch_lock(self, path: str) -> None:
        """Ends the command when the lock of a file is free, or the file gone."""
        while is_locked(path):
            time.sleep(POLL_S)
        self.end()


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of a file; a file that is not there has none."""
    try:
        with open(path, "rb") as file:
            return not try_lock(file, shared=True)
    except FileNotFoundError:
        return False


def take_turn(leash: Leash, log: str, run: str) -> IO[bytes]:
    """Waits until nobody else writes the log and the run; the log, open and locked."""
    output = open(log, "ab")
    while not (leash.ended.is_set() or try_lock(output) and not is_locked(f"{run}/lock")):
        time.sleep(POLL_S)
    return output


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command to its end; its exit status."""
    words, options = list(sys.argv[1:] if argv is None else argv), dict[str, str]()
    while words and words[0] in ("--while-locked", "--log", "--run"):
        option = words.pop(0)
        options[option] = words.pop(0)
    leash, output = Leash(), None
    for number in (signal.SIGTERM, signal.SIGINT):  # passed on: the command must not outlive this
        signal.signal(number, leash.end)
    threading.Thread(target=leash.watch_input, daemon=True).start()
    if (path := options.get("--while-locked")) is not None:
        if not is_locked(path):  # over before it began
            return ENDED
        threading.Thread(target=leash.watch_lock, args=(path,), daemon=True).start()
    if (run := options.get("--run")) is not None:
        output = take_turn(leash, options["--log"], run)
        cut = words.index("--")
        begun = os.path.exists(f"{run}/run.json")
        words = words[:cut] + (["--resume"] if begun else words[cut + 1 :])
    return leash.start(words, output)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread still reads standard input, which a usual exit would wait for
