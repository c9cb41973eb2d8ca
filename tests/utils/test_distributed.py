"""Collective operations in two processes; devices, threads and errors of one rank."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers import ranks as launcher
from utils import distributed as module
from utils.device import seed_all
from utils.distributed import SINGLE_PROCESS, Distributed, init_distributed
from utils.errors import UserError


def all_reduce_gradients(dist: Distributed) -> None:
    shapes = [(2, 3), (4,), (1,)]
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for weight in weights[:2]:  # the third has no gradient
        weight.grad = torch.full(weight.shape, 1.0 + dist.rank)
    weights[0].grad = (
        weights[0].grad.t().contiguous().t()
    )  # not contiguous, as autograd may return it
    assert dist.all_reduce_gradients(weights, torch.tensor(0.5)).tolist() == 1.0
    assert [weight.grad.tolist() for weight in weights[:2]] == [[[3.0] * 3] * 2, [3.0] * 4]
    assert weights[2].grad is None


def sum_and_max(dist: Distributed) -> None:
    assert dist.all_reduce_sum((0.5, 2**53 - 1 if dist.is_main else 1)) == [1.0, 2.0**53]
    assert dist.all_reduce_max(dist.rank, -dist.rank) == [1, 0]


def weights_in_sync(dist: Distributed) -> None:
    same = [torch.ones(3), torch.tensor([float("nan")])]
    dist.check_weights_in_sync(same)
    same[0][1] += 2**-23 * dist.rank
    with pytest.raises(UserError, match="the weights of the ranks differ"):
        dist.check_weights_in_sync(same)


def main_process_first(dist: Distributed) -> None:
    path = Path(os.environ["MARKER"])
    with dist.main_process_first("thing"):
        assert path.exists() != dist.is_main
        time.sleep(0.2 * dist.is_main)
        path.touch()


def gloo_has_time_to_free_tensors(dist: Distributed) -> None:
    ends: list[float] = []
    all_reduce, destroy = module.torch_dist.all_reduce, module.torch_dist.destroy_process_group

    def record(tensor: torch.Tensor, **options: object) -> None:
        all_reduce(tensor, **options)
        ends.append(time.monotonic())

    def check_and_destroy() -> None:
        assert time.monotonic() >= ends[-1] + module.RELEASE_S
        destroy()

    module.torch_dist.all_reduce = record  # in this process, which ends after the test
    module.torch_dist.destroy_process_group = check_and_destroy


def only_main_prints(dist: Distributed) -> None:
    print("from the main process", file=sys.stderr)


@pytest.mark.parametrize(
    "function",
    [
        all_reduce_gradients,
        sum_and_max,
        weights_in_sync,
        main_process_first,
        gloo_has_time_to_free_tensors,
        only_main_prints,
    ],
)
def test_collectives_in_two_processes(function, tmp_path, monkeypatch):
    environments = launcher.environments(2)
    for one in environments:
        one["MARKER"] = str(tmp_path / "marker")
    monkeypatch.setattr(launcher, "environments", lambda size: environments)
    launcher.in_ranks(function, tmp_path)
    main, other = ((tmp_path / f"rank{rank}").read_text(encoding="utf-8") for rank in (0, 1))
    assert main == ("from the main process\n" if function is only_main_prints else "")
    assert other == ""


def test_a_single_process_needs_no_communication(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with init_distributed() as dist, dist.main_process_first("thing"):
        assert dist is SINGLE_PROCESS and dist.is_main
        nats = torch.tensor(2.0)
        assert dist.all_reduce_gradients([], nats) is nats
        assert dist.all_reduce_max(3) == [3] and dist.all_reduce_sum((1.5, 2)) == [1.5, 2]
        assert dist.threads() == 0 and dist.device_name("cuda:1") == "cuda:1"
        dist.check_weights_in_sync([torch.ones(1)])


def test_each_row_belongs_to_one_rank():
    parts = [Distributed(rank=rank, size=4).local_rows(12) for rank in range(4)]
    assert [row for part in parts for row in range(12)[part]] == list(range(12))
    with pytest.raises(UserError, match="is 9 rows a step, which 4 ranks can't share evenly"):
        Distributed(size=4).local_rows(9)


def test_each_rank_has_its_own_gpu(monkeypatch):
    second = Distributed(rank=1, size=2, local_rank=1, local_size=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert second.device_name("auto") == second.device_name("cpu") == "cpu"
    with pytest.raises(UserError, match="train.device mps: several ranks can.t share one device"):
        second.device_name("mps")
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.device_name("auto") == second.device_name("cuda") == "cuda:1"
    assert chosen == [1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 ranks on a machine with 1 GPUs"):
        second.device_name("auto")


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    threads = [Distributed(size=4, local_size=local).threads() for local in (1, 2, 4, 16)]
    assert threads == [9, 4, 2, 1]


def test_an_incomplete_torchrun_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE is set, but RANK is not; start several"):
        with init_distributed():
            pass
    for name, value in launcher.environments(2)[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UserError, match="can't reach each other: invalid literal"):
        module.connect()
    monkeypatch.setattr(module.torch_dist, "is_available", lambda: False)
    with pytest.raises(UserError, match="built without torch.distributed"):
        module.connect()


def test_the_main_process_has_the_seeds_of_a_single_process():
    samples = []
    for arguments in ((3, 4), (3, 4, 0), (3, 4, 1), (3, 4, 2)):
        seed_all(*arguments)
        samples.append(tuple(torch.rand(3).tolist()))
    assert samples[0] == samples[1] and len(set(samples)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="oracle: no fork on Windows")
def test_a_rank_is_asked_to_stop_when_its_parent_is_killed(tmp_path, monkeypatch):
    """A process that connects as a rank outlives its parent; only a thread sends it SIGTERM."""
    for name, value in launcher.environments(2)[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module.torch_dist, "rendezvous", lambda *a, **k: iter([(None, 1, 2)]))
    monkeypatch.setattr(module.torch_dist, "init_process_group", lambda *a, **k: None)
    monkeypatch.setattr(module, "PARENT_POLL_S", 0.01)
    reader, writer = os.pipe()
    if not (parent := os.fork()):
        if not os.fork():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(os.write(writer, b"t") and 0))
            module.connect()
            os.write(writer, b"c")
            time.sleep(30)  # ends without a word, like a rank that nobody asked
            os._exit(0)
        os.close(writer)
        time.sleep(60)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"c", "the rank has connected"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert os.read(reader, 1) == b"t", "the rank has received SIGTERM"
    os.close(reader)
