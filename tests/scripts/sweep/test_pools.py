"""scripts.sweep.pools: GPUs assigned to workers, and a cluster that does not answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from scripts.sweep import pools
from scripts.sweep.pools import ClusterPool, LocalPool, visible_gpus
from utils.errors import UserError

# Waits until every worker has written a file, so that each worker runs one program.
PROGRAM = """
import os, sys, time
open(sys.argv[1], "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
while len(os.listdir(os.path.dirname(sys.argv[1]))) < int(sys.argv[2]): time.sleep(0.01)
"""


def gpus_of(folder: Path, workers: int, gpus: list[str]) -> list[str]:
    """Return the visible GPUs of each of `workers` parallel processes, sorted."""
    seen = folder / f"seen{workers}"
    seen.mkdir()
    pool = LocalPool(workers, gpus)
    command = [sys.executable, "-c", PROGRAM]
    futures = [
        pool.submit([*command, str(seen / str(n)), str(workers)], folder / "log")
        for n in range(workers)
    ]
    assert [future.result(60) for future in futures] == [0] * workers
    pool.close()
    return sorted(path.read_text(encoding="utf-8") for path in seen.iterdir())


def test_each_worker_has_one_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of(tmp_path, 3, ["2", "5"]) == ["2", "2", "5"]
    assert gpus_of(tmp_path, 1, ["2", "5"]) == ["none"]  # a single worker sees all GPUs
    assert gpus_of(tmp_path, 2, []) == ["none", "none"]


@pytest.mark.parametrize(
    "given, names",
    [("0,3", ["0", "3"]), ("", []), ("-1", []), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])],
)
def test_visible_gpus_are_those_of_the_environment(given, names, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_without_the_variable_gpus_are_counted(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


def test_a_stopped_pool_starts_nothing(tmp_path):
    pool = LocalPool(1)
    pool.stop()
    assert pool.submit([sys.executable, "-c", "1"], tmp_path / "log").result(60) is None
    pool.close()


def test_without_distributed_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="^--cluster needs a library .*: pip install distributed$"):
        ClusterPool("tcp://127.0.0.1:9", FileLock(tmp_path / "lock"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere://x", "127.0.0.1"])
def test_a_cluster_that_does_not_answer(address, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="extra: not installed (pip install distributed)")
    monkeypatch.setattr(pools, "CONNECT_S", 0.5)
    with pytest.raises(UserError, match=f"^--cluster {address}: no dask scheduler answers there"):
        ClusterPool(address, FileLock(tmp_path / "lock"))
