"""optim.average_fraction: what is evaluated and saved is an average of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import train
from model.load import load_model
from model.training.evaluate import AVERAGE_EVERY as EVERY
from model.training.evaluate import EvaluationStoppedError
from tests.helpers.runs import build, flags, rows_of
from utils.errors import UserError
from utils.run import checkpoint
from utils.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick")

STEPS, FRACTION = 42, 0.25


def test_checkpoints_hold_the_average_and_the_weights_of_training(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """Against a plain loop; training itself is the same as without an average."""
    one, plain = (
        build(tmp_path / name, settings, train__max_steps=STEPS, **more)
        for name, more in (("one", {"optim__average_fraction": FRACTION}), ("plain", {}))
    )
    mean, n = dict[str, torch.Tensor](), 0
    for step in range(1, STEPS + 1):
        one.train_step()
        plain.train_step()
        if step <= STEPS // 2 or step % EVERY:
            continue
        n += 1
        share = max(1 / n, EVERY / (FRACTION * STEPS))
        for name, weight in plain.model.named_parameters():
            old = mean.get(name, torch.zeros_like(weight))
            mean[name] = (share * weight + (1 - share) * old).detach()
    assert n == 4 and share > 1 / n  # both rules were used
    assert one.evaluate().nats_per_token != plain.evaluate().nats_per_token
    state, own = one.state(), {name: x.clone() for name, x in plain.model.named_parameters()}
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(state["training_weights"][name], weight)
        torch.testing.assert_close(state["model"][name], mean[name])
        with torch.no_grad():
            weight.copy_(state["model"][name])
    assert one.evaluate() == plain.evaluate()
    assert one.sample() == plain.sample()
    for name, weight in one.model.named_parameters():  # the average was used for a while only
        assert torch.equal(weight, own[name])


def test_the_metrics_are_those_of_the_saved_weights(
    settings: dict[str, object], tmp_path: Path
) -> None:
    changes = {"train__max_steps": STEPS, "train__eval_every_steps": 10}
    runs = RunFolder(tmp_path / "average"), RunFolder(tmp_path / "plain")
    for run, fraction in zip(runs, (FRACTION, 0), strict=True):
        argv = flags(run.path, settings, **changes, optim__average_fraction=fraction)
        assert train.main(argv) == 0
    rows, others = (rows_of(run.path) for run in runs)
    same = [one["val_loss"] == other["val_loss"] for one, other in zip(rows, others, strict=True)]
    steps = [int(row["step"]) for row in rows]
    for step, equal in zip(steps, same, strict=True):
        assert equal or step > STEPS // 2
    assert not same[-1]
    state = checkpoint.load(runs[0].last)
    other = build(tmp_path / "other", settings, **changes)
    other.model.load_state_dict(load_model(state).state_dict())
    assert f"{other.evaluate().nats_per_token:.6g}" == f"{float(rows[-1]['val_loss']):.6g}"


def test_a_stopped_evaluation_leaves_the_weights(
    settings: dict[str, object], tmp_path: Path
) -> None:
    one = build(tmp_path / "run", settings, train__max_steps=20, optim__average_fraction=0.5)
    for _ in range(20):
        one.train_step()
    own = [weight.clone() for weight in one.weights]
    assert not torch.equal(one.average.means[0], own[0])
    one.stop_evaluation = lambda *_: True
    with pytest.raises(EvaluationStoppedError):
        one.evaluate()
    assert all(map(torch.equal, one.weights, own))


def test_a_run_with_more_steps_drops_the_average_that_began_too_early(
    settings: dict[str, object], tmp_path: Path
) -> None:
    changes = {"optim__average_fraction": 0.5, "train__eval_every_steps": 6}
    argv = [
        flags(tmp_path / "run", settings, train__max_steps=steps, **changes) for steps in (12, 60)
    ]
    assert train.main(argv[0]) == 0
    assert "training_weights" in checkpoint.load(tmp_path / "run" / "last.pt")
    assert train.main([*argv[1], "--resume"]) == 0
    losses = [row["val_loss"] for row in rows_of(tmp_path / "run") if row["val_loss"]]
    assert len(set(losses)) == len(losses) == 11


def test_training_weights_of_another_model_are_refused(
    settings: dict[str, object], tmp_path: Path
) -> None:
    argv = flags(tmp_path / "run", settings, train__max_steps=20, optim__average_fraction=0.5)
    assert train.main(argv) == 0
    path = tmp_path / "run" / "last.pt"
    state = checkpoint.load(path) | {"step": 19}
    del state["training_weights"]["final_norm.weight"]
    checkpoint.save(path, state)
    with pytest.raises(UserError, match="last.pt: weight final_norm.weight is missing.*new run"):
        train.main([*argv, "--resume"])
