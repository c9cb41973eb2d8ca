"""scripts.sweep.watchdog: a command takes its turn, and ends with the lock that it runs under."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.sweep.pools import LEASH
from utils.locks import Lock, try_lock

SAY = "import sys; print(*sys.argv[1:], flush=True)"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def leashed(*words: str) -> subprocess.Popen[bytes]:
    """The leash, held by this test."""
    return subprocess.Popen([sys.executable, str(LEASH), *words], stdin=subprocess.PIPE)


def options(folder: Path) -> list[str]:
    return ["--log", str(folder / "log"), "--run", str(folder / "run")]


def let_go(leash: subprocess.Popen[bytes]) -> int:
    assert leash.stdin is not None
    leash.stdin.close()
    return leash.wait(60)


def wait_for(path: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not path.exists() or text not in path.read_text(encoding="utf-8"):
        assert time.monotonic() < end
        time.sleep(0.01)


def say(folder: Path) -> str:
    """What a command with words for a new run is given."""
    command = [sys.executable, "-c", SAY, "here", "--", "--config", "x"]
    assert leashed(*options(folder), *command).wait(60) == 0
    return (folder / "log").read_text(encoding="utf-8")


def test_a_run_that_has_begun_goes_on(tmp_path):
    assert say(tmp_path) == "here --config x\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert say(tmp_path) == "here --config x\nhere --resume\n"


def test_a_run_that_is_written_is_waited_for(tmp_path):
    (tmp_path / "run").mkdir()
    writer, log = Lock(tmp_path / "run" / "lock"), tmp_path / "log"
    assert writer.take()
    leash = leashed(*options(tmp_path), sys.executable, "-c", SAY, "begun", "--")
    wait_for(log, "")
    time.sleep(0.5)
    assert leash.poll() is None and log.read_text(encoding="utf-8") == ""
    writer.close()
    assert leash.wait(60) == 0 and log.read_text(encoding="utf-8") == "begun\n"


def test_two_never_run_at_once(tmp_path):
    first = leashed(*options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(tmp_path / "log", "up")
    second = leashed(*options(tmp_path), sys.executable, "-c", SAY, "second", "--")
    time.sleep(0.5)
    assert second.poll() is None and first.poll() is None
    assert let_go(first) == 128 + signal.SIGTERM
    assert second.wait(60) == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "up\nsecond\n"


def test_one_that_waits_ends_with_its_starter(tmp_path):
    with open(tmp_path / "log", "ab") as log:
        assert try_lock(log)
        leash = leashed(*options(tmp_path), sys.executable, "-c", SAY, "never", "--")
        time.sleep(0.3)
        assert let_go(leash) == 128 + signal.SIGTERM
    assert (tmp_path / "log").read_text(encoding="utf-8") == ""


def test_a_command_ends_when_the_lock_is_free(tmp_path):
    lock, log = Lock(tmp_path / "lock"), tmp_path / "log"
    assert lock.take()
    watched = ["--while-locked", str(lock.path)]
    leash = leashed(*watched, *options(tmp_path), sys.executable, "-c", SLEEP, "--")
    wait_for(log, "up")
    time.sleep(0.5)
    assert leash.poll() is None
    lock.close()
    assert leash.wait(60) == 128 + signal.SIGTERM
    late = leashed(*watched, *options(tmp_path), sys.executable, "-c", SAY, "late", "--")
    assert late.wait(60) == 128 + signal.SIGTERM
    assert log.read_text(encoding="utf-8") == "up\n"


def test_a_lock_has_one_holder(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.take() and not other.take()
    one.close()
    one.close()
    assert other.take()
    other.close()
