"""The training loop: gradients, counters, evaluation, checkpoints and non-finite losses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import train
from data.windows import IGNORE_INDEX
from model.training import loss as loss_module
from model.training import optim
from model.training import trainer as trainer
from model.training.evaluate import Evaluation
from model.training.trainer import Trainer
from tests.helpers.runs import build, build_with_data, flags, rows_of
from tests.helpers.runs import step as step_of
from utils.errors import UserError
from utils.run import checkpoint

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]
DOCUMENTS: Settings = {"data__windows": "documents", "model__block_size": 64}


def gradients(one: Trainer) -> list[torch.Tensor]:
    return [p.grad for p in one.model.parameters() if p.grad is not None]


# Gradients, counters, the optimizer.


@pytest.mark.parametrize("windows", [DOCUMENTS, {"data__stride": 20}], ids=["documents", "packed"])
def test_gradient_accumulation_equals_the_large_batch(
    windows: Settings, settings: Settings, tmp_path: Path
) -> None:
    same = {**windows, "model__dropout": 0.0, "optim__grad_clip": 0.0}
    big = build(tmp_path, settings, **same, train__batch_size=32)
    small = build(tmp_path, settings, **same, train__batch_size=4, train__grad_accum_steps=8)
    for step in range(3):
        batch = big.batches.get_batch("train", step)
        n_targets = [int((y != IGNORE_INDEX).sum()) for y in batch.y_BT.split(4)]
        if windows is DOCUMENTS:
            assert len(set(n_targets)) > 1, "with equal counts a mean of means would pass"
        one, other = step_of(big), step_of(small)
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-5)
        assert big.tokens == small.tokens
        if step == 0:
            for mine, theirs in zip(gradients(big), gradients(small), strict=True):
                assert (mine - theirs).abs().max() < 1e-6


def test_tokens_and_epochs_are_those_of_the_batches(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, **DOCUMENTS, train__grad_accum_steps=2)) == 0
    one, data = build_with_data(run, settings, **DOCUMENTS, train__grad_accum_steps=2)
    tokens = 0
    for step, row in enumerate(rows_of(run)):
        assert int(row["tokens"]) == tokens
        assert float(row["epoch"]) == step * 8 / data.meta["train"]["documents"]
        tokens += int((one.batches.get_batch("train", step).y_BT != IGNORE_INDEX).sum())


def test_an_epoch_of_steps_counts_every_token_once(settings: Settings, tmp_path: Path) -> None:
    one, data = build_with_data(tmp_path, settings, train__batch_size=1, data__stride=7)
    n = one.batches.splits["train"].n_windows
    for _ in range(n):
        batch = one.batches.get_batch("train", one.step)
        one.step, one.tokens = one.step + 1, one.tokens + int((batch.y_BT != IGNORE_INDEX).sum())
    assert one.tokens == data.meta["train"]["tokens"] and one.batches.epoch_at(n) == 1.0


@pytest.mark.parametrize("tied", ["true", "false"])
def test_each_parameter_is_in_exactly_one_group(
    tied: str, settings: Settings, tmp_path: Path
) -> None:
    one = build(tmp_path, settings, model__tie_weights=tied, model__bias="true")
    groups = one.optimizer.param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted({id(p) for p in one.model.parameters()})
    names = {id(p): name for name, p in one.model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            decays = not ("norm" in names[id(parameter)] or names[id(parameter)].endswith("bias"))
            assert group["weight_decay"] == (0.1 if decays else 0.0), names[id(parameter)]


def test_the_norm_is_clipped_and_logged_before_clipping(settings: Settings, tmp_path: Path) -> None:
    free = build(tmp_path, settings, optim__grad_clip=0.0)
    clipped = build(tmp_path, settings, optim__grad_clip=0.25)
    norms = step_of(free)["grad_norm"], step_of(clipped)["grad_norm"]
    assert norms[0] == norms[1] > 0.25
    after = [torch.stack([g.norm() for g in gradients(one)]).norm() for one in (free, clipped)]
    assert after[0] == pytest.approx(norms[0], rel=1e-5)
    assert after[1] == pytest.approx(0.25, rel=1e-4)


def test_two_runs_are_equal_and_another_seed_is_not(settings: Settings, tmp_path: Path) -> None:
    one, same, other = (step_of(build(tmp_path, settings, train__seed=seed)) for seed in (1, 1, 2))
    assert one == same and one["train_loss"] != other["train_loss"]


# Evaluation.


def reference_nats(one: Trainer) -> tuple[float, int]:
    """Total loss of the validation documents, each alone, in float64, and their bytes."""
    raw = torch.from_numpy(one.batches.splits["val"].tokens.read(0, 10**9).astype("int64"))
    model, end = one.model.double().eval(), one.tokenizer.eot_id
    nats, n_bytes, start = 0.0, 0, 0
    for stop in [i + 1 for i, token in enumerate(raw.tolist()) if token == end]:
        ids = raw[start:stop]
        x = torch.cat((torch.tensor([end]), ids[:-1]))
        with torch.no_grad():
            log_probs = model(x[None])[0].log_softmax(-1)
        nats -= float(log_probs[torch.arange(len(ids)), ids].sum())
        n_bytes += len(one.tokenizer.decode_bytes(ids[:-1].tolist()))
        start = stop
    return nats, n_bytes


def test_evaluation_equals_the_loss_of_each_document_alone(
    settings: Settings, tmp_path: Path
) -> None:
    results = [
        build(tmp_path, settings, **DOCUMENTS, train__batch_size=size, model__dropout=p).evaluate()
        for size, p in [(1, 0.0), (7, 0.5), (1000, 0.9)]
    ]
    one, data = build_with_data(tmp_path, settings, **DOCUMENTS)
    nats, n_bytes = reference_nats(one)
    for result in results:
        assert result.bytes == n_bytes == data.meta["val"]["bytes"]
        assert result.tokens == data.meta["val"]["tokens"]
        assert result.nats_per_token == pytest.approx(nats / result.tokens, abs=1e-6)
        assert result.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, abs=1e-6)


def test_evaluation_of_packed_text_counts_every_byte(settings: Settings, tmp_path: Path) -> None:
    one, data = build_with_data(tmp_path, settings, data__stride=9)
    result = one.evaluate()
    assert result.bytes == data.meta["val"]["bytes"]
    assert result.tokens == data.meta["val"]["tokens"]


def test_stories_are_scored_from_their_start_with_packed_windows_too(
    settings: Settings, tmp_path: Path
) -> None:
    stories: Settings = {"data__files": "[]", "data__doc_sep": "", "data__story_bytes": 20_000}
    stories |= {"data__val_story_bytes": 3_000}
    packed, data = build_with_data(tmp_path, settings, **stories, model__block_size=640)
    whole, same = build_with_data(
        tmp_path, settings, **stories, model__block_size=640, data__windows="documents"
    )
    assert packed.config.data.windows == "packed" and data.floor and data.floor == same.floor
    assert packed.evaluate() == whole.evaluate()
    assert "times the floor" in packed.summary({}, packed.evaluate())
    assert packed.batches.get_batch("train", 0).x_BT.shape == (4, 640)
    cut, data = build_with_data(tmp_path, settings, **stories, model__block_size=64)
    assert data.floor is None and data.metadata()["floor_nats_per_token"] is None
    assert "floor" not in cut.summary({}, cut.evaluate())
    assert data.note.endswith("more than block_size 64: no floor is reported")


def test_evaluations_do_not_change_training(settings: Settings, tmp_path: Path) -> None:
    weights = []
    for every in (1, 3, 100):
        run = tmp_path / str(every)
        more = {"train__eval_every_steps": every, "model__dropout": 0.3}
        assert train.main(flags(run, settings, **more)) == 0
        weights.append(checkpoint.digest(checkpoint.load(run / "last.pt")["model"]))
    assert len(set(weights)) == 1
    evaluated = [row["step"] for row in rows_of(tmp_path / "100") if row["val_loss"]]
    assert evaluated == ["0", "9"], "the first and the last step are always evaluated"


# best.pt, last.pt, early stopping, non-finite losses.

LOSSES = st.sampled_from([1.0, 2.0, 2.5, 3.0, math.inf, math.nan])


def script(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Make the evaluations of a run return these losses, one after the other."""
    remaining = iter(losses)
    monkeypatch.setattr(
        Trainer, "evaluate", lambda self: Evaluation(nats=next(remaining), tokens=1, bytes=1)
    )


@examples(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(losses=st.lists(LOSSES, min_size=2, max_size=6))
def test_best_has_the_minimum_loss_and_last_the_last_step(
    losses: list[float], settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("best") / "run"
    more = {"train__max_steps": len(losses) - 1, "train__eval_every_steps": 1}
    with pytest.MonkeyPatch.context() as patch:
        script(patch, losses)
        assert train.main(flags(run, settings, **more, train__sample_tokens=0)) == 0
    logged = [float(row["val_loss"]) for row in rows_of(run)]
    assert repr(logged) == repr(losses)
    best, last = checkpoint.load(run / "best.pt"), checkpoint.load(run / "last.pt")
    assert last["step"] == len(losses) - 1
    finite = [loss for loss in logged[1:] if math.isfinite(loss)]  # step 0 is never the best
    if finite:
        assert best["last_val"] == min(finite) == last["best_val"]
        assert best["step"] == logged.index(min(finite), 1), "the first of equal losses"


def test_a_run_shorter_than_eval_every_steps_saves_both_checkpoints(
    settings: Settings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = {"train__max_steps": 2, "train__eval_every_steps": 1000, "train__log_every_steps": 1000}
    assert train.main(flags(run, settings, **more)) == 0
    assert checkpoint.load(run / "last.pt")["step"] == 2
    assert checkpoint.load(run / "best.pt")["last_val"] == float(rows_of(run)[-1]["val_loss"])


def test_early_stopping(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    script(monkeypatch, [5.0, 3.0, 3.0, math.nan, 2.9, 9.0])
    more = {"train__early_stop_patience": 2, "train__eval_every_steps": 1}
    assert train.main(flags(run, settings, **more)) == 0
    assert [row["step"] for row in rows_of(run)] == ["0", "1", "2", "3"]
    assert checkpoint.load(run / "best.pt")["step"] == 1
    assert train.main(["--run_dir", str(run), "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert len(rows_of(run)) == 4
    script(monkeypatch, [2.0, 1.0])
    more = ["--train.early_stop_patience", "0", "--train.max_steps", "5"]
    assert train.main(["--run_dir", str(run), "--resume", *more]) == 0
    assert (
        checkpoint.load(run / "best.pt")["last_val"] == 1.0
    ), "the run may continue without early stopping"


@pytest.mark.parametrize(
    "broken, synchronous", [("loss", True), ("gradient", True), ("loss", False)]
)
def test_a_non_finite_loss_or_gradient_stops_before_the_step(
    broken: str,
    synchronous: bool,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, original, calls = tmp_path / "run", loss_module.cross_entropy_sum, [0]

    def breaks(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = original(logits, targets)
        calls[0] += 1
        if calls[0] == 7:  # make the loss NaN, or only its gradient
            loss = loss * math.nan if broken == "loss" else loss + (loss * 0).abs().sqrt()
        return loss

    monkeypatch.setattr(loss_module, "cross_entropy_sum", breaks)
    monkeypatch.setattr(trainer.device, "is_synchronous", lambda device: synchronous)
    log_every = 1 if synchronous else 9  # it must be detected before the evaluation after step 9
    with pytest.raises(UserError) as stop:
        train.main(
            flags(run, settings, train__eval_every_steps=3, train__log_every_steps=log_every)
        )
    assert calls[0] == (7 if synchronous else 9)
    message = str(stop.value)
    assert "step 7 had loss" in message and "lr 0.00" in message and "norm nan" in message
    assert rows_of(run)[-1]["step"] == "6"
    for name in ("last.pt", "best.pt"):
        state = checkpoint.load(run / name)
        assert all(bool(torch.isfinite(w).all()) for w in state["model"].values())
    assert checkpoint.load(run / "last.pt")["step"] == 6
    monkeypatch.undo()
    assert (
        train.main(["--run_dir", str(run), "--resume"]) == 0
    ), "the checkpoints must still be usable"


def test_non_finite_weights_are_not_saved(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = {"optim__lr": 1e38, "optim__warmup_steps": 0, "train__eval_every_steps": 1}
    with pytest.raises(UserError, match="not finite|stopped: step"):
        train.main(flags(run, settings, **more, optim__weight_decay=10.0))
    assert not (run / "best.pt").exists()
    state = checkpoint.load(run / "last.pt")
    assert all(bool(torch.isfinite(w).all()) for w in state["model"].values())


def test_fp16_skips_a_step_whose_gradient_overflows(settings: Settings, tmp_path: Path) -> None:
    one = build(tmp_path, settings, train__amp="fp16")
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = checkpoint.digest(one.model.state_dict())
    assert not math.isfinite(step_of(one)["grad_norm"])
    assert checkpoint.digest(one.model.state_dict()) == before
    assert one.scaler.get_scale() == 2.0**39 and one.step == 1
    one.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    one.optimizer.zero_grad()
    with torch.no_grad():
        next(one.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="step 2 had loss"):
        one.train_step()


def test_optim_is_used_as_configured(settings: Settings, tmp_path: Path) -> None:
    one = build(tmp_path, settings, optim__lr=0.7, optim__betas=(0.5, 0.6), optim__eps=1e-3)
    group = one.optimizer.param_groups[0]
    assert isinstance(one.optimizer, torch.optim.AdamW)
    assert (group["betas"], group["eps"]) == ((0.5, 0.6), 1e-3)
    config = replace(one.config.optim, lr=0.25, warmup_steps=0)
    assert optim.set_step(one.optimizer, config, 0, 9) == 0.25
    assert {group["lr"] for group in one.optimizer.param_groups} == {0.25}


def test_the_best_checkpoint_of_a_resumed_run_counts_earlier_evaluations(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, train__max_steps=4)) == 0
    low = min(float(row["val_loss"]) for row in rows_of(run) if row["val_loss"])
    worse = trainer.Evaluation(nats=99.0, tokens=1, bytes=1)
    monkeypatch.setattr(trainer.Trainer, "evaluate", lambda self: worse)
    assert train.main(["--run_dir", str(run), "--resume", "--train.max_steps", "8"]) == 0
    assert checkpoint.load(run / "best.pt")["last_val"] == low
    assert checkpoint.load(run / "last.pt")["best_val"] == low
