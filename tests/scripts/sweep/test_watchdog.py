"""scripts.sweep.watchdog: a command takes its turn, and ends with the lock that it runs under."""

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

SAY = "import sys; print(*sys.argv[1:], flush=True)"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def watched(*words: str) -> subprocess.Popen[bytes]:
    """A watchdog whose standard input this test holds."""
    return subprocess.Popen([sys.executable, str(WATCHDOG), *words], stdin=subprocess.PIPE)


def options(folder: Path) -> list[str]:
    return ["--log", str(folder / "log"), "--run", str(folder / "run")]


def let_go(watchdog: subprocess.Popen[bytes]) -> int:
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    return watchdog.wait(60)


def wait_for(path: Path, text: str) -> None:
    wait_until(lambda: path.exists() and text in path.read_text(encoding="utf-8"), 60)


def say(folder: Path) -> str:
    """What a command with words for a new run is given."""
    command = [sys.executable, "-c", SAY, "here", "--", "--config", "x"]
    assert watched(*options(folder), *command).wait(60) == 0
    return (folder / "log").read_text(encoding="utf-8")


def test_a_run_that_has_begun_goes_on(tmp_path):
    assert say(tmp_path) == "here --config x\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert say(tmp_path) == "here --config x\nhere --resume\n"


def test_a_run_that_is_written_is_waited_for(tmp_path):
    (tmp_path / "run").mkdir()
    writer, log = FileLock(tmp_path / "run" / "lock"), tmp_path / "log"
    writer.acquire()
    watchdog = watched(*options(tmp_path), sys.executable, "-c", SAY, "begun", "--")
    wait_until(lambda: is_locked(f"{log}.lock"), 60)
    time.sleep(0.5)
    assert watchdog.poll() is None and not log.exists()
    writer.release()
    assert watchdog.wait(60) == 0 and log.read_text(encoding="utf-8") == "begun\n"


def test_two_never_run_at_once(tmp_path):
    first = watched(*options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(tmp_path / "log", "up")
    second = watched(*options(tmp_path), sys.executable, "-c", SAY, "second", "--")
    time.sleep(0.5)
    assert second.poll() is None and first.poll() is None
    assert let_go(first) == 128 + signal.SIGTERM
    assert second.wait(60) == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "up\nsecond\n"


def test_one_that_waits_ends_with_its_starter(tmp_path):
    with FileLock(tmp_path / "log.lock"):
        watchdog = watched(*options(tmp_path), sys.executable, "-c", SAY, "never", "--")
        time.sleep(0.3)
        assert let_go(watchdog) == 128 + signal.SIGTERM
    assert not (tmp_path / "log").exists()


def test_a_command_ends_when_the_lock_is_free(tmp_path):
    lock, log = FileLock(tmp_path / "lock"), tmp_path / "log"
    lock.acquire()
    condition = ["--while-locked", lock.lock_file]
    watchdog = watched(*condition, *options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(log, "up")
    time.sleep(0.5)
    assert watchdog.poll() is None
    lock.release()
    assert watchdog.wait(60) == 128 + signal.SIGTERM
    late = watched(*condition, *options(tmp_path), sys.executable, "-c", SAY, "late", "--")
    assert late.wait(60) == 128 + signal.SIGTERM
    assert log.read_text(encoding="utf-8") == "up\n"


def test_who_asks_for_a_lock_neither_takes_it_nor_makes_its_file(tmp_path):
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
    watchdog = watched(*options(tmp_path), sys.executable, "-c", count, "--")
    wait_for(tmp_path / "log", "up")
    watchdog.terminate()
    assert let_go(watchdog) == 7
    assert (tmp_path / "log").read_text(encoding="utf-8") == "up\n1 signal\n"
