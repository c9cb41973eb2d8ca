"""Before the first step: the memory and the numbers of the device."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from model.config import ModelConfig
from model.flops import Memory
from model.training import duration as duration_module
from model.training import preflight
from model.training.config import TrainConfig
from model.training.loss import IGNORE_INDEX
from model.training.preflight import check_numbers, compare_with_cpu, hint_if_out_of_memory, smaller
from model.training.trainer import Trainer
from tests.conftest import ROOT, run_program
from tests.helpers.runs import assert_same_run, build, flags
from utils.errors import UserError, is_out_of_memory


@pytest.mark.parametrize("min_flops", [0, math.inf])
def test_lines_before_the_first_step(
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    min_flops: float,
) -> None:
    monkeypatch.setattr(duration_module, "MIN_FLOPS", min_flops)  # 0: measure tiny runs, too
    assert train.main(flags(tmp_path / "run", settings)) == 0
    err = capsys.readouterr().err
    before, _, _ = err.partition("step 0: ")
    assert "expected first loss: ln 300 = 5.70 nats/token" in before
    # The process itself is larger than this model; a unit of 1000 or 1 byte would be far outside.
    found = re.search(r"about ([\d.,]+) MiB of memory", before)
    assert found and 50 < float(found[1].replace(",", "")) < 10_000
    assert "warning: training needs" not in err


@pytest.mark.slow
@pytest.mark.parametrize("config", ["tiny", "text", "shakespeare_cpu"])
def test_the_memory_is_estimated_within_20_percent(config: str, tmp_path: Path) -> None:
    code = (
        "import sys, train; from utils.processes import peak_rss_bytes; train.main(sys.argv[1:]); "
        "print('peak', peak_rss_bytes() / 2**20)"
    )
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "data/tiny.txt").read_text(encoding="utf-8") * 10, encoding="utf-8")
    argv = ["--config", str(ROOT / f"configs/{config}.yaml"), "--run_dir", str(tmp_path / "run")]
    argv += ["--train.max_steps", "60", "--train.eval_every_steps", "30"]
    argv += [] if config == "tiny" else ["--data.files", str(text)]
    done = run_program([sys.executable, "-c", code, *argv], cwd=ROOT)
    said = re.search(r"about ([\d.,]+) MiB of memory", done.stderr)
    peak = re.search(r"peak ([\d.]+)", done.stdout)
    assert said and peak, done.stderr
    assert float(said[1].replace(",", "")) == pytest.approx(float(peak[1]), rel=0.2)


# The second would be enough without a CPU's temporary tensors, checkpoint and plot.
@pytest.mark.parametrize("free", [2400, 10_000])
def test_too_much_memory_is_reported_before_the_first_step(
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> None:
    needed = Memory(weights=100, gradients=100, moments=200, activations=4000)
    monkeypatch.setattr(preflight, "estimate", lambda config, amp: needed)
    monkeypatch.setattr(preflight, "free_memory", lambda: free)
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


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: "
        "you tried to allocate 4 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_messages_of_other_systems(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("max_tokens", [5, 64 + 5])
def test_only_a_part_of_the_batch_is_compared(
    max_tokens: int,
    settings: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "MAX_TOKENS", max_tokens)
    one = build(tmp_path, settings, model__dropout=0.0, model__block_size=64)
    batch = one.micro_batches(one.batches.training_batch(0)[0])[0]
    scored = []

    def recorded(x_BT: torch.Tensor, y_BT: torch.Tensor, *doc: torch.Tensor) -> torch.Tensor:
        scored.append(int((y_BT != IGNORE_INDEX).sum()))
        return one.loss(x_BT, y_BT, *doc)

    found = compare_with_cpu(recorded, one.model, batch, contextlib.nullcontext)
    assert found.loss_error < 1e-6 and found.cosine == pytest.approx(1.0)
    assert scored == [min(64, max_tokens)] and (batch[1] != IGNORE_INDEX).all()


@pytest.mark.parametrize("documents", [False, True])
def test_bf16_is_close_to_fp32(
    documents: bool,
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    windows = {"data__windows": "documents", "model__block_size": 64} if documents else {}
    one = build(tmp_path, settings, **windows, model__dropout=0.0, train__amp="bf16")
    batch = one.micro_batches(one.batches.training_batch(0)[0])[0]
    found = compare_with_cpu(one.loss, one.model, batch, one.autocast)
    assert found.is_close and (found.loss_error > 0 or found.cosine < 1), "bf16 rounds"
    exact = compare_with_cpu(one.loss, one.model, batch, contextlib.nullcontext)
    assert exact.loss_error < 1e-6 and exact.cosine == pytest.approx(1.0)
    check_numbers(one)
    assert "warning" not in capsys.readouterr().err
    assert all(weight.grad is None for weight in one.weights)


@pytest.mark.parametrize(
    ("amp", "compiled", "fix"),
    [("bf16", False, "--train.amp off"), ("off", True, "--train.compile false")],
)
@pytest.mark.parametrize("factor", [1.02, math.nan])
def test_a_wrong_loss_is_reported(
    amp: str,
    compiled: bool,
    fix: str,
    factor: float,
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = build(tmp_path, settings, model__dropout=0.0, train__amp=amp)
    right, one.compiled = one.loss, compiled
    one.loss = lambda *batch: right(*batch) * factor
    check_numbers(one)
    assert f"try {fix}" in capsys.readouterr().err


def test_a_wrong_gradient_is_reported(
    settings: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = build(tmp_path, settings, model__dropout=0.0, train__amp="bf16")
    one.weights[0].register_hook(lambda gradient: -gradient)
    check_numbers(one)
    err = capsys.readouterr().err
    assert "differs from the CPU's by 0.0%, the cosine of the gradients is " in err


def test_plain_training_is_not_compared(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "compare_with_cpu", None)
    check_numbers(build(tmp_path, settings, model__dropout=0.0))


def test_dropout_in_a_compiled_model_is_not_compared(
    settings: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = build(tmp_path, settings, model__dropout=0.5)
    one.compiled = True
    check_numbers(one)
    assert "numbers not compared with the CPU's" in capsys.readouterr().err


def test_dropout_is_off_in_the_comparison(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare: Any = preflight.compare_with_cpu
    found: list[Any] = []

    def recorded(*arguments: object) -> object:
        found.append(compare(*arguments))
        return found[0]

    monkeypatch.setattr(preflight, "compare_with_cpu", recorded)
    trainer = build(tmp_path, settings, model__dropout=0.5, train__amp="bf16")
    check_numbers(trainer)
    assert len(found) == 1 and found[0].is_close and trainer.model.training


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_in_bf16_has_the_bits_of_one_that_is_not_compared(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    same = {"model__dropout": dropout, "train__amp": "bf16"}
    assert train.main(flags(tmp_path / "compared", settings, **same)) == 0
    monkeypatch.setattr(train, "check_numbers", lambda trainer: None)
    assert train.main(flags(tmp_path / "plain", settings, **same)) == 0
    assert_same_run(tmp_path / "compared", tmp_path / "plain")
