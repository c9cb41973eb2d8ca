"""Fine-tuning that makes the model worse says so, in the log and at the end."""

from __future__ import annotations

import dataclasses

import pytest

import train
from model.training.trainer import Trainer
from tests.helpers.hf import COMBINATIONS, ORACLE, config_of, make_model, write
from tests.helpers.runs import flags, make_corpus, make_text, state_of
from tok.tokenizer import BPETokenizer

pytest.importorskip("safetensors.torch", reason=ORACLE)


@pytest.fixture
def settings(tmp_path):
    """A run that fine-tunes a GPT-2 for 4 steps."""
    tokenizer = BPETokenizer.train([make_text(50)], vocab_size=300)
    folder = write(tmp_path, make_model(config_of(COMBINATIONS[0])), tokenizer)
    corpus = make_corpus(tmp_path)
    kept = {name: one for name, one in corpus.items() if not name.startswith("model.")}
    short = {"train.max_steps": 4, "train.eval_every_steps": 2}
    return kept | short | {"train.init_from": folder}


def test_a_worse_model_is_not_called_the_best(settings, tmp_path, capsys, monkeypatch):
    """The loss of step 0 is that of a good model: one that nothing in this run reaches."""
    evaluate, losses = Trainer.evaluate, {0: 1.5, 2: 1.75, 4: 1.625}

    def changed(self):
        result = evaluate(self)
        return dataclasses.replace(result, nats=losses[self.step] * result.tokens)

    monkeypatch.setattr(Trainer, "evaluate", changed)
    assert train.main(flags(tmp_path / "worse", settings)) == 0
    err = capsys.readouterr().err
    assert err.count("(worse than the starting model, 1.5000)\n") == 2 and "(best)" not in err
    assert "best val 1.6250 nats/token (worse than the starting model, 1.5000); plot" in err
    assert state_of(tmp_path / "worse" / "best.pt")["step"] == 4, "the rule of best.pt is the same"
    resumed = ["--run_dir", str(tmp_path / "worse"), "--resume", "--train.max_steps", "6"]
    losses[6] = 1.875
    assert train.main(resumed) == 0
    assert capsys.readouterr().err.count("(worse than the starting model, 1.5000)") == 2
    losses[4] = 1.25
    assert train.main(flags(tmp_path / "better", settings)) == 0
    err = capsys.readouterr().err
    assert (
        err.count("worse than") == 1
        and "(best)" in err
        and "best val 1.2500 nats/token; plot" in err
    )
    losses[0] = 1.0  # without init_from, these are untrained weights
    plain = {name: value for name, value in settings.items() if name != "train.init_from"}
    plain |= {"model.vocab_size": 300, "model.n_layer": 1, "model.n_embd": 16, "model.n_head": 2}
    assert train.main(flags(tmp_path / "plain", plain, model__block_size=16)) == 0
    assert "worse than" not in capsys.readouterr().err
