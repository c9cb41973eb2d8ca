"""Child processes end with their starter, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from scripts.sweep.pools import LEASH, Children
from tests.conftest import ROOT, clean_environment

SLEEP = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
STARTER = """
import sys
from pathlib import Path
from scripts.sweep.pools import Children
Children().run([sys.executable, "-c", sys.argv[1], sys.argv[2]], Path(sys.argv[2] + ".log"))
"""


def wait_until(holds, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2][1] == "Z")


def started(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text(encoding="utf-8").isdecimal())
    return int(path.read_text(encoding="utf-8"))


def test_a_child_ends_with_a_starter_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = [sys.executable, "-c", STARTER, SLEEP, str(path)]
    starter = subprocess.Popen(command, cwd=ROOT, env=clean_environment())
    child = started(path)
    assert lives(child)
    starter.kill()
    assert starter.wait(30) == -signal.SIGKILL
    wait_until(lambda: not lives(child), timeout_s=20)


def test_stop_ends_what_runs_and_begins_nothing_more(tmp_path: Path) -> None:
    children, ends, path = Children(), [], tmp_path / "pid"
    command = [sys.executable, "-c", SLEEP, str(path)]
    thread = threading.Thread(target=lambda: ends.append(children.run(command, tmp_path / "log")))
    thread.start()
    child = started(path)
    children.stop()
    thread.join(30)
    assert ends == [128 + signal.SIGTERM] and not lives(child)
    assert children.run(command, tmp_path / "log") is None


def test_status_and_output_are_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('said'); sys.exit(7)"]
    assert Children().run(command, tmp_path / "log") == 7
    assert (tmp_path / "log").read_text(encoding="utf-8") == "said\n"


def test_a_signal_to_the_leash_ends_the_command_first(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = [sys.executable, str(LEASH), sys.executable, "-c", SLEEP, str(path)]
    leash = subprocess.Popen(command, stdin=subprocess.PIPE)
    child = started(path)
    leash.send_signal(signal.SIGTERM)
    assert leash.wait(30) == 128 + signal.SIGTERM and not lives(child)
    assert leash.stdin is not None
    leash.stdin.close()
