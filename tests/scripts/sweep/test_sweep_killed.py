"""Killed sweeps and killed processes of a sweep: the next call finishes the missing points."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sweep import __main__ as script
from tests.conftest import clean_environment
from tests.scripts.sweep.helpers import EIGHT, results, start_sweep, trainers, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return the results of an uninterrupted sweep of 8 points."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "sweep.yaml"
    path.write_text(f"config: {base}\n{EIGHT}\n", encoding="utf-8")
    sweep = start_sweep(["--config", str(path)], folder / "out", "--workers", "2")
    assert sweep.wait(600) == 0
    rows = results(folder / "out")
    assert len(rows) == 8 and {row["status"] for row in rows} == {"done"}
    return rows


def test_a_process_and_then_the_sweep_are_killed(undisturbed, sweep_file, tmp_path):
    argv, out = sweep_file(EIGHT), tmp_path / "out"
    first = start_sweep(argv, out, "--workers", "2")
    wait_until(lambda: list(out.glob("*/last.pt")) and trainers(out))
    os.kill(trainers(out)[0], signal.SIGKILL)
    wait_until(lambda: (out / "results.csv").exists() and results(out) and any_failed(out))
    wait_until(lambda: trainers(out))
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    missing = {row["point"] for row in results(out) if row["status"] != "done"}
    assert 1 < len(missing) <= 8
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/best.pt")}
    assert start_sweep(argv, out, "--workers", "2").wait(600) == 0
    assert results(out) == undisturbed
    assert not trainers(out)
    for path, time_ns in before.items():  # finished points are not trained again
        assert path.parent.name in missing or path.stat().st_mtime_ns == time_ns


def any_failed(out: Path) -> bool:
    return any(row["status"] == "failed" for row in results(out))


def test_a_second_sweep_on_one_folder_is_refused(sweep_file, tmp_path):
    argv, out = sweep_file(EIGHT), tmp_path / "out"
    first = start_sweep(argv, out, "--workers", "2")
    wait_until(lambda: trainers(out))
    try:
        with pytest.raises(Exception, match="another sweep is running here"):
            script.main([*argv, "--out", str(out)])
    finally:
        first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 128 + signal.SIGTERM and not trainers(out)
    assert {row["status"] for row in results(out)} <= {"new", "stopped"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield the address of a scheduler, and the processes of its two workers."""
    pytest.importorskip("distributed", reason="extra: not installed (pip install distributed)")
    address_file = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(address_file)]
    dask = [sys.executable, "-m", "distributed.cli.dask_"]

    def start(name: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [*dask[:2], dask[2] + name, *common, *flags]
        with open(tmp_path / "cluster.log", "ab") as log:
            return subprocess.Popen(
                command, cwd=tmp_path, env=clean_environment(), stdout=log, stderr=log
            )

    one = ["--no-nanny", "--nthreads", "1"]
    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        wait_until(address_file.exists, 60)
        processes += [start("worker", *one), start("worker", *one)]
        address = json.loads(address_file.read_text(encoding="utf-8"))["address"]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait(30)


def lose_worker(
    argv: list[str], out: Path, address: str, worker: subprocess.Popen[bytes]
) -> subprocess.Popen[bytes]:
    """Start a sweep on a cluster and kill one of its two workers while it runs a point."""
    sweep = start_sweep(argv, out, "--cluster", address)
    wait_until(lambda: list(out.glob("*/last.pt")) and len(trainers(out)) == 2)
    worker.kill()
    return sweep


def test_a_cluster_loses_a_worker_and_then_its_sweep(undisturbed, sweep_file, tmp_path, cluster):
    address, workers = cluster
    argv, out = sweep_file(EIGHT), tmp_path / "out"
    first = lose_worker(argv, out, address, workers[0])
    wait_until(lambda: len(trainers(out)) < 2, 60)  # the run ended with its worker
    wait_until(lambda: any(row["status"] == "done" for row in results(out)) and trainers(out))
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    wait_until(lambda: not trainers(out), 60)  # the runs ended with the sweep
    rows = results(out)
    assert {row["status"] for row in rows} >= {"done", "new"}
    assert "failed" not in {row["status"] for row in rows}
    assert start_sweep(argv, out, "--cluster", address).wait(600) == 0
    assert results(out) == undisturbed


def test_a_sweep_continues_after_its_cluster_loses_a_worker(
    undisturbed, sweep_file, tmp_path, cluster
):
    address, workers = cluster
    argv, out = sweep_file(EIGHT), tmp_path / "out"
    sweep = lose_worker(argv, out, address, workers[1])
    assert sweep.wait(600) == 0
    assert results(out) == undisturbed
