"""What one step of training does, part by part."""

from __future__ import annotations

from pathlib import Path

import pytest

import trainer
from tests.training import build, make_corpus
from utils import checkpoint
from utils.errors import UserError

Settings = dict[str, object]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_run_that_waits_for_nothing_is_the_same_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(tmp_path, settings)
    numbers = [one.train_step() for _ in range(3)][-1]
    monkeypatch.setattr(trainer.device, "answers_at_once", lambda device: False)
    other = build(tmp_path, settings)
    assert [other.train_step() for _ in range(3)] == [{}, {}, {}]
    assert other.read() == numbers == other.read()
    assert checkpoint.digest(one.model.state_dict()) == checkpoint.digest(other.model.state_dict())


def test_the_parts_of_a_step_are_told_in_order(settings: Settings, tmp_path: Path) -> None:
    one, told = build(tmp_path, settings, train__grad_accum_steps=2), []
    one.mark = told.append
    one.train_step()
    assert told == ["data", *["forward", "backward"] * 2, "clip", "optimizer"]


def test_a_step_sets_rate_and_momentum(settings: Settings, tmp_path: Path) -> None:
    muon = {"optim__name": "muon", "optim__muon_momentum": 0.95, "optim__muon_warmup_steps": 2}
    one = build(tmp_path, settings, **muon)
    for momentum in (0.85, 0.9, 0.95, 0.95):
        one.train_step()
        found = [g["momentum"] for g in one.optimizer.param_groups if g.get("muon")]
        assert found == pytest.approx([momentum] * 2)


def test_a_rate_of_a_head_that_is_no_weight_of_its_own(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="head_lr_ratio has an effect without model.tie_weights"):
        build(tmp_path, settings, optim__head_lr_ratio=2.0, model__tie_weights="true")
