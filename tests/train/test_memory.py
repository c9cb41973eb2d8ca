"""The memory of a training run: the estimate, and the setting to change if it is too much."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import torch

import train
from model.config import ModelConfig
from model.flops import Memory
from model.training import duration as duration_module
from model.training import memory as memory_module
from model.training.config import TrainConfig
from model.training.memory import hint_if_out_of_memory, smaller
from model.training.trainer import Trainer
from tests.helpers.runs import build, flags
from utils.errors import UserError


def test_lines_before_the_first_step(
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duration_module, "MIN_FLOPS", 0)  # measure tiny runs, too
    assert train.main(flags(tmp_path / "run", settings)) == 0
    err = capsys.readouterr().err
    before, _, _ = err.partition("step 0: ")
    assert "expected first loss: ln 300 = 5.70 nats/token" in before
    # The process itself is larger than this model; a unit of 1000 or 1 byte would be far outside.
    found = re.search(r"about ([\d.,]+) MiB of memory", before)
    assert found and 50 < float(found[1].replace(",", "")) < 10_000
    assert "warning: training needs" not in err


def test_too_much_memory_is_reported_before_the_first_step(
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duration_module, "MIN_FLOPS", 0)
    needed = Memory(weights=100, gradients=100, moments=200, activations=4000)
    monkeypatch.setattr(memory_module, "estimate", lambda trainer: needed)
    free = type("Free", (), {"available": 2400, "total": 2**40})
    monkeypatch.setattr(memory_module.psutil, "virtual_memory", lambda: free)
    assert train.main(flags(tmp_path / "run", settings)) == 0  # the estimate may be wrong
    err = capsys.readouterr().err
    assert "set train.batch_size 2 and train.grad_accum_steps 2" in err, "2 of 4 rows fit"


@pytest.mark.parametrize(
    ("free", "hint"),
    [
        (100_000, "train.batch_size 16 and train.grad_accum_steps 4, "),
        (3000 + 999, "model.n_embd 96"),
        (3000 + 1000, "train.batch_size 1 and train.grad_accum_steps 64, "),
        (3000 + 8999, "train.batch_size 8 and train.grad_accum_steps 8, "),
    ],
)
def test_the_largest_batch_that_fits(free: int, hint: str) -> None:
    memory = Memory(weights=1000, gradients=1000, moments=2000, activations=32_000)
    settings = TrainConfig(batch_size=32, grad_accum_steps=2)
    assert smaller(ModelConfig(n_embd=192), settings, memory, free).startswith(hint)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("x")]
)
def test_an_exhausted_memory_names_a_setting(
    error: Exception, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(tmp_path, settings)
    expected = "cpu: not enough memory; set train.batch_size 2 and train.grad_accum_steps 2"
    other = str(error) == "x"
    with pytest.raises(RuntimeError if other else UserError, match="x" if other else expected):
        with hint_if_out_of_memory(one):
            raise error


def test_training_reports_it(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(Trainer, "backward", fail)
    with contextlib.closing(build(tmp_path, settings).batches):
        with pytest.raises(UserError, match="not enough memory; set train.batch_size 2"):
            train.main(flags(tmp_path / "run", settings))
