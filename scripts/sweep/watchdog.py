"""Run a command that ends with its parent: `python scripts/sweep/watchdog.py [OPTIONS] COMMAND`.

Standard input is a pipe whose other end the parent process holds. When the parent closes it or dies
for any reason, including kill -9, the command is asked to end (SIGTERM).

    --while-locked FILE   also ask it to end when no process holds the lock FILE
    --log FILE            append its output to this file
    --run FOLDER          wait for any process that still writes this run or its log; if the run has
                          started, replace `--` in COMMAND and the words after it by --resume,
                          else drop only `--`; needs --log
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from filelock import FileLock, Timeout

POLL_S = 0.2
# SIGTERM can't be handled on Windows. Ctrl-Break can; it goes to a group of processes.
STOP = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
ENDED = 128 + signal.SIGTERM  # what a shell reports for a command that SIGTERM ended


class Watchdog:
    """Decides whether a command may run, and runs it."""

    def __init__(self, while_locked: str | None = None) -> None:
        self._while_locked = while_locked
        self._ended = threading.Event()

    def end(self, *_: object) -> None:
        """Ask the command to end. If it has not started, it never starts."""
        self._ended.set()

    def watch_input(self) -> None:
        """Ask the command to end when standard input closes."""
        sys.stdin.buffer.read()
        self.end()

    def must_end(self) -> bool:
        """Return True if the command has been asked to end, or --while-locked FILE is free."""
        if self._while_locked is not None and is_locked(self._while_locked) is False:
            self.end()
        return self._ended.is_set()

    def wait_for_turn(self, log: str, run: str) -> None:
        """Wait until no other process writes the run or its log, or the command must end."""
        self._log_lock = FileLock(f"{log}.lock")  # held until this process ends
        while not self.must_end():
            free = self._log_lock.is_locked or try_lock(self._log_lock) is not False
            if free and not is_locked(f"{run}/lock"):
                return
            self._ended.wait(POLL_S)

    def run(self, command: Sequence[str], log: str | None) -> int:
        """Run the command to its end; return its exit status, 128 + N if signal N ended it."""
        if self.must_end():
            return ENDED
        output = None if log is None else open(log, "ab")
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, creationflags=NEW_GROUP
        )
        while not self.must_end():
            try:
                return shell_status(child.wait(POLL_S))
            except subprocess.TimeoutExpired:
                pass
        child.send_signal(STOP)  # once: a second one would keep a run from saving its checkpoint
        return shell_status(child.wait())


def shell_status(status: int) -> int:
    """Return the exit status as a shell reports it.

    >>> shell_status(3), shell_status(-15)
    (3, 143)
    """
    return status if status >= 0 else 128 - status


def try_lock(lock: FileLock) -> bool | None:
    """Take a lock without waiting; return whether it was free, None if there are no locks here."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError:
        return None
    return True


def is_locked(path: str) -> bool | None:
    """Return True if a process holds the lock file; False if the file does not exist.

    None means that this file system has no locks.
    """
    if not os.path.exists(path):
        return False
    lock = FileLock(path)
    free = try_lock(lock)
    lock.release()
    return None if free is None else not free


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command to its end; return its exit status."""
    words, options = list(sys.argv[1:] if argv is None else argv), dict[str, str]()
    while words and words[0] in ("--while-locked", "--log", "--run"):
        option = words.pop(0)
        options[option] = words.pop(0)
    watchdog = Watchdog(options.get("--while-locked"))
    for number in (signal.SIGTERM, signal.SIGINT):  # the command must not outlive the watchdog
        signal.signal(number, watchdog.end)
    threading.Thread(target=watchdog.watch_input, daemon=True).start()
    if (run := options.get("--run")) is not None:
        watchdog.wait_for_turn(options["--log"], run)
        cut = words.index("--")
        started = os.path.exists(f"{run}/run.json")
        words = words[:cut] + (["--resume"] if started else words[cut + 1 :])
    return watchdog.run(words, options.get("--log"))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a normal exit would wait for the thread that reads standard input
