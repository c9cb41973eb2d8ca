"""scripts.sweep.pools: GPUs shared out, and a cluster that is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from scripts.sweep import pools
from scripts.sweep.pools import ClusterPool, LocalPool, visible_gpus
from utils.errors import UserError

# Waits until as many are there as there are workers: each of them has one.
PROGRAM = """
import os, sys, time
open(sys.argv[1], "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
while len(os.listdir(os.path.dirname(sys.argv[1]))) < int(sys.argv[2]): time.sleep(0.01)
"""


def gpus_of(folder: Path, workers: int, gpus: list[str]) -> list[str]:
    """What so many processes at once may see, sorted."""
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
    assert gpus_of(tmp_path, 1, ["2", "5"]) == ["none"]  # alone it may see all
    assert gpus_of(tmp_path, 2, []) == ["none", "none"]


@pytest.mark.parametrize(
    "given, names",
    [("0,3", ["0", "3"]), ("", []), ("-1", []), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])],
)
def test_gpus_are_those_of_the_environment(given, names, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_without_the_variable_gpus_are_counted(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


def test_a_stopped_pool_begins_nothing(tmp_path):
    pool = LocalPool(1)
    pool.stop()
    assert pool.submit([sys.executable, "-c", "1"], tmp_path / "log").result(60) is None
    pool.close()


def test_a_cluster_without_its_library_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="^--cluster needs a library .*: pip install distributed$"):
        ClusterPool("tcp://127.0.0.1:9", FileLock(tmp_path / "lock"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere://x", "127.0.0.1"])
def test_a_cluster_that_does_not_answer(address, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="extra: not installed (pip install distributed)")
    monkeypatch.setattr(pools, "CONNECT_S", 0.5)
    with pytest.raises(UserError, match=f"^--cluster {address}: no dask scheduler answers there"):
        ClusterPool(address, FileLock(tmp_path / "lock"))
