"""A training step: its metrics, phases, gradient clipping, seeds and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.training import trainer as trainer
from model.training.optim import clip_gradients
from tests.helpers.runs import build, step
from utils import device
from utils.errors import UserError
from utils.run import checkpoint

Settings = dict[str, object]


def test_asynchronous_metrics_do_not_change_the_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(tmp_path, settings)
    numbers = [step(one) for _ in range(3)][-1]
    monkeypatch.setattr(trainer.device, "is_synchronous", lambda device: False)
    other = build(tmp_path, settings)
    assert [trained.train_step() for trained in (one, other)] == [None, None], "on every device"
    other.train_step()
    other.train_step()
    assert one.step == 4 and other.step == 3
    assert other.flush_metrics() == numbers == other.flush_metrics()
    other.train_step()
    assert checkpoint.digest(one.model.state_dict()) == checkpoint.digest(other.model.state_dict())


def test_the_phases_of_a_step_end_in_order(settings: Settings, tmp_path: Path) -> None:
    one, phases = build(tmp_path, settings, train__grad_accum_steps=2), list[str]()
    one.train_step(phases.append)
    assert phases == ["data", *["forward", "backward"] * 2, "clip", "optimizer"]


@pytest.mark.parametrize("largest", [0.0, 0.5, 2.0, 100.0])
def test_gradient_clipping_equals_pytorchs(largest: float) -> None:
    torch.manual_seed(1)
    ours = [torch.nn.Parameter(torch.zeros(n, 3)) for n in (1, 4, 7)]
    theirs = [torch.nn.Parameter(torch.zeros(n, 3)) for n in (1, 4, 7)]
    for one, other in zip(ours[:2], theirs):  # the third has no gradient
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    norm = clip_gradients(ours, largest)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, largest or float("inf"))
    assert norm.item() == pytest.approx(wanted.item(), rel=1e-6)
    for one, other in zip(ours[:2], theirs):
        assert torch.allclose(one.grad, other.grad, rtol=1e-6)


def test_seed_all_equals_torch_manual_seed() -> None:
    device.seed_all(3, 4)
    found, state = torch.rand(5), torch.initial_seed()
    torch.manual_seed(state)
    assert torch.equal(torch.rand(5), found)


def test_freed_memory_is_reused_without_page_faults(run_python) -> None:
    code = """
import resource
import torch
from utils.processes import keep_freed_memory
if keep_freed_memory():
    for _ in range(3):
        torch.empty(8 << 20).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(8 << 20).fill_(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    # Each of the 20 arrays has 32 MiB, which glibc would return: 8,192 pages of 4 KiB.
    assert not done.stdout or int(done.stdout) < 10 * 8192


def test_a_step_sets_muon_momentum(settings: Settings, tmp_path: Path) -> None:
    muon = {"optim__name": "muon", "optim__muon_momentum": 0.95, "optim__muon_warmup_steps": 2}
    one = build(tmp_path, settings, **muon)
    for momentum in (0.85, 0.9, 0.95, 0.95):
        one.train_step()
        found = [g["momentum"] for g in one.optimizer.param_groups if g.get("muon")]
        assert found == pytest.approx([momentum] * 2)


def test_head_lr_ratio_with_tied_weights_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="head_lr_ratio has an effect only without model.tie_weights"
    ):
        build(tmp_path, settings, optim__head_lr_ratio=2.0, model__tie_weights="true")
