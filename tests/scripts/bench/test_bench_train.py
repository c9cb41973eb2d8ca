"""scripts.bench train: shapes, phases of a step, and turns of ours and a fake nanoGPT."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from scripts.bench import __main__ as script
from scripts.bench.contestants import PHASES, SHAPES, LlmTiny, NanoGPT, time_phases
from scripts.bench.turns import show_turns, summarise
from scripts.matmul_peak import matmul_peak
from train import Config
from utils.config.load import load
from utils.errors import UserError

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("number of parameters: few")
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas)

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""
TRAIN = """
raise SystemExit("must not be run")
def get_batch(split):
    data = np.memmap(os.path.join(data_dir, split + '.bin'), dtype=np.uint16, mode='r')
    x = torch.from_numpy(data[:batch_size * block_size].astype(np.int64))
    return x.view(batch_size, block_size).to(device), x.view(batch_size, block_size).to(device)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "peer"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    return folder


def small(**changes: object) -> Config:
    few = {"model.n_layer": 1, "model.n_embd": 16, "model.n_head": 2, "train.batch_size": 2}
    settings = SHAPES["nanogpt"] | few | changes
    return load(Config, [], {name: str(value) for name, value in settings.items()})[0]


def test_shapes_are_valid_settings() -> None:
    for name in SHAPES:
        config, _ = load(Config, [], {key: str(value) for key, value in SHAPES[name].items()})
        assert config.model.tie_weights and not config.model.bias


def test_our_trainer_steps_on_random_tokens(tmp_path: Path) -> None:
    ours, phases = LlmTiny(small(), tmp_path, random=True), []
    assert [ours.step(phases.append) for _ in range(2)] == [128, 128]
    assert phases == [*PHASES] * 2
    assert ours.trainer.evaluate().tokens == 100_000
    assert not ours.compiled


def test_nanogpt_steps_with_its_own_get_batch(checkout: Path, tmp_path: Path) -> None:
    theirs, phases = NanoGPT(checkout, small(), tmp_path), []
    before = theirs.raw.table.weight.detach().clone()
    assert theirs.step(phases.append) == 128
    assert sorted(phases) == sorted(PHASES)
    assert not torch.equal(theirs.raw.table.weight, before)
    (checkout / "train.py").write_text("x = 1", encoding="utf-8")
    with pytest.raises(UserError, match="has no get_batch"):
        NanoGPT(checkout, small(), tmp_path)


def test_each_phase_is_timed_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Fake:
        device, compiled = torch.device("cpu"), False

        def step(self, on_phase_end) -> int:
            for seconds, part in ((1.0, "data"), (2.0, "forward"), (4.0, "backward")) * 2:
                now[0] += seconds
                on_phase_end(part)
            return 1

    spent = time_phases(Fake(), 3)
    assert spent == dict.fromkeys(PHASES, 0.0) | {"data": 2.0, "forward": 4.0, "backward": 8.0}


def test_matmul_peak_is_measured() -> None:
    assert matmul_peak(torch.device("cpu"), "off") > 1e8


def test_ratios_are_computed_per_turn() -> None:
    def turn(rate: float) -> dict[str, object]:
        return {"tokens_per_s": rate, "parts_s": dict.fromkeys(PHASES, 0.5), "peak_bytes": 1 << 20}

    record = summarise(
        {"ours": [turn(20), turn(60), turn(90)], "nanogpt": [turn(10), turn(20), turn(60)]}
    )
    assert record["ratio"] == {"median": 2.0, "low": 1.5, "high": 3.0}
    text = show_turns({"eager": record, "compiled": {"error": "ours: no compiler"}}, 3)
    assert "ours / nanogpt: 2.000 (1.500 to 3.000)" in text and "500.00" in text
    assert "compiled: not measured, ours: no compiler" in text


@pytest.mark.parametrize(
    "more, message",
    [
        (["--runs", "0"], "--runs: must be at least 1"),
        (["--nanogpt", "nowhere"], "model.position learned, not rope; try --shape nanogpt"),
        (["--shape", "nanogpt", "--nanogpt", "nowhere"], "nowhere: not a nanoGPT checkout"),
        (["--shape", "nanogtp"], "invalid choice|did you mean"),
    ],
)
def test_bad_arguments_are_refused(more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        script.main(["train", *more])


@pytest.mark.slow
def test_contestants_run_in_turns(checkout: Path, printed) -> None:
    argv = ["train", "--shape", "nanogpt", "--nanogpt", checkout, "--runs", "2", "--windows", "1"]
    argv += ["--model.n_layer", "1", "--model.n_embd", "16", "--steps-per-window", "2", "--json"]
    record, people = printed(script.main, *argv)
    eager = record["turns"]["eager"]
    assert eager["ours"]["peak_bytes"] > 1e7 and eager["ratio"]["median"] > 0
    assert "ours / nanogpt:" in people
