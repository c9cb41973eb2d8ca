"""Child processes of a pool end with their parent, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from scripts.sweep.pools import WATCHDOG, LocalPool
from tests.conftest import ROOT, clean_environment
from tests.scripts.sweep.helpers import wait_until

SLEEP = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
STARTER = """
import sys
from pathlib import Path
from scripts.sweep.pools import LocalPool
command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
LocalPool(1).submit(command, Path(sys.argv[2] + ".log")).result()
"""


def is_running(pid: int) -> bool:
    """Return True if a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text(encoding="utf-8").isdecimal())
    return int(path.read_text(encoding="utf-8"))


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = [sys.executable, "-c", STARTER, SLEEP, str(path)]
    starter = subprocess.Popen(command, cwd=ROOT, env=clean_environment())
    child = started(path)
    assert is_running(child)
    starter.kill()
    assert starter.wait(30) == -signal.SIGKILL
    wait_until(lambda: not is_running(child), timeout_s=20)


def test_stop_ends_running_commands_and_starts_no_more(tmp_path: Path) -> None:
    pool, path = LocalPool(1), tmp_path / "pid"
    command = [sys.executable, "-c", SLEEP, str(path)]
    running = pool.submit(command, tmp_path / "log")
    child = started(path)
    pool.stop()
    assert running.result(30) == 128 + signal.SIGTERM and not is_running(child)
    assert pool.submit(command, tmp_path / "log").result(30) is None
    pool.close()


def test_exit_status_and_output_of_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('said'); sys.exit(7)"]
    pool = LocalPool(1)
    assert pool.submit(command, tmp_path / "log").result(30) == 7
    assert (tmp_path / "log").read_text(encoding="utf-8") == "said\n"
    pool.close()


def test_a_signal_to_the_watchdog_ends_the_command_first(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = [sys.executable, str(WATCHDOG), sys.executable, "-c", SLEEP, str(path)]
    watchdog = subprocess.Popen(command, stdin=subprocess.PIPE)
    child = started(path)
    watchdog.send_signal(signal.SIGTERM)
    assert watchdog.wait(30) == 128 + signal.SIGTERM and not is_running(child)
    assert watchdog.stdin is not None
    watchdog.stdin.close()
