"""scripts.sweep.watchdog: a command waits for its turn, and ends when its lock is released."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

from scripts.sweep.pools import WATCHDOG
from scripts.sweep.watchdog import is_locked
from tests.scripts.sweep.helpers import wait_until

PRINT = "import sys; print(*sys.argv[1:], flush=True)"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def start_watchdog(*words: str) -> subprocess.Popen[bytes]:
    """Start a watchdog whose standard input is held by this test."""
    return subprocess.Popen([sys.executable, str(WATCHDOG), *words], stdin=subprocess.PIPE)


def options(folder: Path) -> list[str]:
    return ["--log", str(folder / "log"), "--run", str(folder / "run")]


def close_stdin(watchdog: subprocess.Popen[bytes]) -> int:
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    return watchdog.wait(60)


def wait_for(path: Path, text: str) -> None:
    wait_until(lambda: path.exists() and text in path.read_text(encoding="utf-8"), 60)


def print_arguments(folder: Path) -> str:
    """Run a command that prints the arguments it gets; return the log."""
    command = [sys.executable, "-c", PRINT, "here", "--", "--config", "x"]
    assert start_watchdog(*options(folder), *command).wait(60) == 0
    return (folder / "log").read_text(encoding="utf-8")


def test_a_started_run_is_resumed(tmp_path):
    assert print_arguments(tmp_path) == "here --config x\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert print_arguments(tmp_path) == "here --config x\nhere --resume\n"


def test_the_command_waits_for_the_lock_of_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    writer, log = FileLock(tmp_path / "run" / "lock"), tmp_path / "log"
    writer.acquire()
    watchdog = start_watchdog(*options(tmp_path), sys.executable, "-c", PRINT, "started", "--")
    wait_until(lambda: is_locked(f"{log}.lock"), 60)
    time.sleep(0.5)
    assert watchdog.poll() is None and not log.exists()
    writer.release()
    assert watchdog.wait(60) == 0 and log.read_text(encoding="utf-8") == "started\n"


def test_two_commands_of_one_run_never_overlap(tmp_path):
    first = start_watchdog(*options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(tmp_path / "log", "up")
    second = start_watchdog(*options(tmp_path), sys.executable, "-c", PRINT, "second", "--")
    time.sleep(0.5)
    assert second.poll() is None and first.poll() is None
    assert close_stdin(first) == 128 + signal.SIGTERM
    assert second.wait(60) == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "up\nsecond\n"


def test_a_waiting_command_ends_with_its_parent(tmp_path):
    with FileLock(tmp_path / "log.lock"):
        watchdog = start_watchdog(*options(tmp_path), sys.executable, "-c", PRINT, "never", "--")
        time.sleep(0.3)
        assert close_stdin(watchdog) == 128 + signal.SIGTERM
    assert not (tmp_path / "log").exists()


def test_a_command_ends_when_the_lock_is_released(tmp_path):
    lock, log = FileLock(tmp_path / "lock"), tmp_path / "log"
    lock.acquire()
    condition = ["--while-locked", lock.lock_file]
    watchdog = start_watchdog(*condition, *options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(log, "up")
    time.sleep(0.5)
    assert watchdog.poll() is None
    lock.release()
    assert watchdog.wait(60) == 128 + signal.SIGTERM
    late = start_watchdog(*condition, *options(tmp_path), sys.executable, "-c", PRINT, "late", "--")
    assert late.wait(60) == 128 + signal.SIGTERM
    assert log.read_text(encoding="utf-8") == "up\n"


def test_is_locked_neither_takes_the_lock_nor_creates_the_file(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(str(path)) and not path.exists()
    with FileLock(path):
        assert is_locked(str(path))
    assert not is_locked(str(path))
    with FileLock(path, blocking=False):
        pass


def test_a_command_asked_twice_to_end_is_signalled_once(tmp_path):
    """train.py saves a checkpoint after the first signal; a second one ends it immediately."""
    count = (
        "import signal, sys, time; seen = [];"
        "signal.signal(signal.SIGTERM, lambda *_: seen.append(1)); print('up', flush=True);"
        "end = time.monotonic() + 60\n"
        "while not seen and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(1); print(len(seen), 'signal'); sys.exit(7)"
    )
    watchdog = start_watchdog(*options(tmp_path), sys.executable, "-c", count, "--")
    wait_for(tmp_path / "log", "up")
    watchdog.terminate()
    assert close_stdin(watchdog) == 7
    assert (tmp_path / "log").read_text(encoding="utf-8") == "up\n1 signal\n"
