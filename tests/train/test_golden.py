"""The first losses of classic models: optimizations must not change them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.runs import build, make_corpus, step

GPT2 = {
    "model.position": "learned",
    "model.bias": "true",
    "model.tie_weights": "true",
    "model.dropout": "0.0",
}
NEOX = {"model.position": "rope", "model.dropout": "0.0", "train.grad_accum_steps": 2}
# Training loss in nats of steps 1, 2, ..., 20, computed by the code of 2026-11-24.
CURVES = {
    "gpt2": (GPT2, [  # fmt: skip
        5.69386, 5.65393, 5.49454, 5.29510, 5.08294,
        4.88778, 4.68972, 4.52034, 4.34219, 4.22172,
        4.10156, 4.06710, 3.97049, 3.91766, 3.87751,
        3.81906, 3.86877, 3.81950, 3.85090, 3.91095,
    ]),
    "neox": (NEOX, [  # fmt: skip
        5.70922, 5.64659, 5.56523, 5.38217, 5.19272,
        5.02897, 4.85120, 4.65582, 4.52326, 4.41642,
        4.26695, 4.19864, 4.09451, 4.07763, 4.01266,
        3.98066, 3.92103, 3.93675, 3.91471, 3.89341,
    ]),
}


@pytest.mark.parametrize("kind", CURVES)
def test_the_first_twenty_losses(kind: str, tmp_path: Path) -> None:
    changes, wanted = CURVES[kind]
    settings = make_corpus(tmp_path) | {"train.max_steps": 20, "optim.lr": 0.01} | changes
    one = build(tmp_path / "run", settings)
    losses = [step(one)["train_loss"] for _ in range(20)]
    # CPUs sum in different orders; a change of the computation shows in the third digit.
    assert losses == pytest.approx(wanted, rel=1e-4)
