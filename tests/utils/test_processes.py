"""Worker processes and cores in containers: quotas, and systems without semaphores."""

from __future__ import annotations

import errno
import math
import multiprocessing.synchronize
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import psutil
import pytest
import torch

from utils import processes
from utils.device import peak_memory_bytes
from utils.errors import UserError
from utils.processes import available_cores, cpu_quota, free_memory, map_in_order, peak_rss_bytes


def cgroup(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Return the paths of a file like /proc/self/cgroup, with this line, and a tree of files."""
    proc, root = tmp_path / "cgroup", tmp_path / "root"
    proc.write_text(f"9:name=systemd:/\n{line}\n", encoding="utf-8")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return proc, root


@pytest.mark.parametrize(
    "line, files, quota",
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/not/mounted/here", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "damaged"}, math.inf),
        (
            "4:cpu,cpuacct:/docker/x",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:cpuset:/", {"cpuset/cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_the_cpu_quota_of_a_container(
    tmp_path: Path, line: str, files: dict[str, str], quota: float
) -> None:
    assert cpu_quota(*cgroup(tmp_path, line, files)) == quota
    assert cpu_quota(tmp_path / "no such file") == math.inf


STAT = "anon 7\ninactive_file 40\n"


@pytest.mark.parametrize(
    "line, files, free",
    [
        ("0::/a", {"a/memory.max": "500", "a/memory.current": "90", "a/memory.stat": STAT}, 450),
        ("0::/a", {"memory.max": "90", "memory.current": "99", "memory.stat": "anon 1"}, 0),
        ("0::/a", {"a/memory.max": "max", "a/memory.current": "9", "a/memory.stat": STAT}, 1000),
        ("0::/a", {"a/memory.max": "2000", "a/memory.current": "9", "a/memory.stat": STAT}, 1000),
        ("0::/a", {"a/memory.max": "500"}, 1000),
        (
            "4:memory:/x",
            {
                "memory/memory.limit_in_bytes": "300",
                "memory/memory.usage_in_bytes": "100",
                "memory/memory.stat": STAT,
            },
            240,
        ),
    ],
)
def test_the_memory_of_a_container(
    tmp_path: Path,
    line: str,
    files: dict[str, str],
    free: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = SimpleNamespace(available=1000)
    monkeypatch.setattr(processes.psutil, "virtual_memory", lambda: machine)
    assert free_memory(*cgroup(tmp_path, line, files)) == free
    assert free_memory(tmp_path / "no such file") == 1000


def test_a_quota_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for quota, cores in ((0.5, 1), (1.5, 1)):
        monkeypatch.setattr(processes, "cpu_quota", lambda quota=quota: quota)
        assert available_cores() == cores


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.ENOSYS])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_without_semaphores_one_process_does_the_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    method: str,
) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:  # as if /dev/shm could not be written
        raise OSError(number, "no semaphores")

    monkeypatch.setattr(multiprocessing.synchronize, "SemLock", refuse)
    monkeypatch.setattr(multiprocessing.synchronize.Lock, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.synchronize.BoundedSemaphore, "__init__", refuse)
    assert list(map_in_order(square, range(5), 2, method=method)) == [0, 1, 4, 9, 16]
    assert "warning: can't start worker processes ([Errno " in capsys.readouterr().err


def test_a_limit_of_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.ProcessPoolExecutor, "submit", refuse)
    with pytest.raises(UserError, match="the limit of processes is reached"):
        list(map_in_order(square, range(5), 2))


def test_windows_allows_61_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "platform", "win32")
    pool = processes._make_pool(square, 100, "spawn")  # starts no process before the first job
    assert pool is not None
    pool.shutdown()


def test_cores_and_memory_without_the_calls_of_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(processes.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(processes, "cpu_quota", lambda: math.inf)
    assert available_cores() == 3
    memory = SimpleNamespace(peak_wset=7 * 2**20)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: memory)
    monkeypatch.setattr(processes, "Path", lambda name: Path("no such folder") / "status")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_rss_bytes() == 0
    assert peak_memory_bytes(torch.device("cpu")) == 7 * 2**20
