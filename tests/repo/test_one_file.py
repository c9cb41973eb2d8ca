"""docs/one_file.py has the losses of the real trainer and the token ids of the real tokenizer."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.training.config import TrainConfig
from model.training.optim import OptimConfig, make_optimizer
from model.training.trainer import Trainer
from tests.conftest import ROOT
from tok.tokenizer import BPETokenizer
from utils.run.folder import RunFolder

TEXT = (ROOT / "data" / "tiny.txt").read_text(encoding="utf-8")[:20_000]


@pytest.fixture(scope="module")
def one_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_file", ROOT / "docs" / "one_file.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Config:
    """The settings of the real trainer, with the values of one_file."""

    model: ModelConfig
    optim: OptimConfig
    train: TrainConfig = field(default_factory=TrainConfig)


class Batches:
    """The batches of one_file in the form that the real trainer expects."""

    def __init__(self, one_file: ModuleType, ids_N: torch.Tensor) -> None:
        self.one_file, self.ids_N = one_file, ids_N

    def training_batch(self, step: int) -> tuple[tuple[torch.Tensor, torch.Tensor, None], int]:
        x_BT, y_BT = self.one_file.get_batch(self.ids_N, step)
        return (x_BT, y_BT, None), y_BT.numel()


@pytest.mark.parametrize("attention", ["sdpa", "manual"])
def test_losses_equal_those_of_the_real_trainer(
    one_file: ModuleType, attention: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    ids_N = torch.tensor(one_file.encode(TEXT, one_file.learn_merges(TEXT, 300)))
    theirs = one_file.GPT()
    config = Config(
        ModelConfig(
            vocab_size=one_file.VOCAB_SIZE,
            block_size=one_file.BLOCK_SIZE,
            n_layer=one_file.N_LAYER,
            n_head=one_file.N_HEAD,
            n_embd=one_file.N_EMBD,
            position="learned",
            norm="layernorm",
            mlp="gelu",
            bias=False,
            tie_weights=True,
            attention=attention,
        ),
        OptimConfig(
            name="adamw",
            lr=one_file.LR,
            betas=one_file.BETAS,
            weight_decay=one_file.WEIGHT_DECAY,
            grad_clip=one_file.GRAD_CLIP,
            schedule="cosine",
            warmup_steps=one_file.WARMUP_STEPS,
        ),
        TrainConfig(max_steps=one_file.STEPS, batch_size=one_file.BATCH_SIZE),
    )
    ours = TinyGPT(config.model)
    ours.load_state_dict(theirs.state_dict())
    batches, tokenizer = Batches(one_file, ids_N), BPETokenizer([])
    optimizer = make_optimizer(ours, config.optim)
    trainer = Trainer(config, ours, optimizer, batches, tokenizer, RunFolder(tmp_path))
    their_optimizer = one_file.make_optimizer(theirs)
    for step in range(20):
        assert config.optim.lr_at(step, one_file.STEPS) == pytest.approx(one_file.lr_at(step))
        trainer.train_step()
        wanted = one_file.train_step(theirs, their_optimizer, ids_N, step)
        assert trainer.flush_metrics()["train_loss"] == pytest.approx(wanted, abs=1e-5), step
    last = one_file.STEPS - 1
    assert config.optim.lr_at(last, one_file.STEPS) == pytest.approx(one_file.lr_at(last), abs=1e-9)


def test_text_comes_back_and_the_merges_are_the_real_ones(one_file: ModuleType) -> None:
    merges = one_file.learn_merges(TEXT, 300)
    assert one_file.decode(one_file.encode(TEXT, merges), merges) == TEXT
    words = "the cat sat on the mat and the hat " * 20  # no apostrophes: one pattern is GPT-2's
    ours = BPETokenizer.train(words, vocab_size=267)
    merges = one_file.learn_merges(words, 266)  # less the end-of-text token
    assert tuple(merges) == ours.merges
    assert one_file.encode(words, merges) == ours.encode(words)


def test_it_is_short_and_needs_torch_alone(one_file: ModuleType) -> None:
    source = (ROOT / "docs" / "one_file.py").read_text(encoding="utf-8")
    assert source.count("\n") <= 250
    imported = {
        line.split()[1].partition(".")[0]
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported - sys.stdlib_module_names == {"torch"}


def test_it_samples(one_file: ModuleType) -> None:
    torch.manual_seed(1)
    ids = one_file.sample(one_file.GPT(), [1, 2, 3], 5)
    assert ids[:3] == [1, 2, 3] and len(ids) == 8


def test_the_theory_links_to_its_lines() -> None:
    theory = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    lines = (ROOT / "docs" / "one_file.py").read_text(encoding="utf-8").splitlines()
    links = re.findall(r"\[`(\w+)`\]\(one_file\.py#L(\d+)\)", theory)
    assert len(links) >= 10 and theory.count("\nPlain version:") >= 6
    for name, line in links:
        assert re.match(rf"(def|class) {name}\b", lines[int(line) - 1]), f"{name}, line {line}"
