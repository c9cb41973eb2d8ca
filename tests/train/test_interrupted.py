"""A run that is stopped: nothing shows a loss of another step, and resuming gives the same run."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sample
import train
from model.training import step_log
from model.training.evaluate import EvaluationStoppedError, evaluate_split
from scripts.eval import __main__ as eval_script
from tests.helpers.runs import assert_same_run, build, flags, rows_of
from utils.distributed import Distributed
from utils.errors import UserError
from utils.run import checkpoint

Settings = dict[str, object]
Stop = Callable[[str, int], None]


@pytest.fixture(scope="module")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 9 steps with evaluations at 0, 4, 8 and 9."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train.main(flags(run, settings)) == 0
    return run


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Return stop_at("step" or "evaluation", step): Ctrl-C there, once."""

    def prepare(where: str, step: int) -> None:
        sent: list[int] = []
        owner, name = {
            "step": (train.Trainer, "train_step"),
            "evaluation": (step_log.StepLog, "show_evaluation"),
        }[where]
        original = getattr(owner, name)

        def wrapped(self, *args):
            original(self, *args)
            now = self.step if where == "step" else self.trainer.step * (args[0] == 1) or -1
            if where == "evaluation" and step == 0 and args[0] == 1 and self.trainer.step == 0:
                now = 0
            if now == step and not sent:
                sent.append(step)
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(owner, name, wrapped)

    return prepare


def test_step_0_is_never_the_best(whole: Path) -> None:
    assert [row["step"] for row in rows_of(whole) if row["val_loss"]] == ["0", "4", "8", "9"]
    assert checkpoint.load(whole / "best.pt")["step"] > 0


def test_a_run_stopped_before_its_first_evaluation_names_the_trained_weights(
    settings: Settings, whole: Path, tmp_path: Path, stop_at: Stop, capsys
) -> None:
    run = tmp_path / "run"
    stop_at("step", 3)
    assert train.main(flags(run, settings)) == 130
    err = capsys.readouterr().err
    assert "stopped at step 3, not evaluated yet; continue with --resume" in err
    assert f"no best.pt yet; plot {run / 'loss.png'}; sample with `python sample.py --run" in err
    assert err.rstrip().endswith("--checkpoint last`") and "best val" not in err
    first_loss = f"{float(rows_of(run)[0]['val_loss']):.4f}"
    with pytest.raises(UserError, match="no checkpoint yet; .* --resume`, or .* --checkpoint last"):
        sample.main(["--run", str(run)])
    last = ["--run", str(run), "--checkpoint", "last"]
    assert sample.main([*last, "--steps", "2"]) == 0 and eval_script.main(last) == 0
    err = capsys.readouterr().err
    assert err.count("last.pt: step 3, not evaluated") == 2 and first_loss not in err
    assert train.main(flags(run, settings, "--resume")) == 0
    assert_same_run(run, whole)


def test_a_loss_is_shown_next_to_its_own_step(
    settings: Settings, whole: Path, tmp_path: Path, stop_at: Stop, capsys
) -> None:
    run = tmp_path / "run"
    stop_at("step", 6)
    assert train.main(flags(run, settings)) == 130
    assert "stopped at step 6, not evaluated since step 4" in capsys.readouterr().err
    state, row = checkpoint.load(run / "last.pt"), rows_of(run)[4]
    loss = f"val loss {float(row['val_loss']):.4f} nats/token"
    assert row["step"] == "4"
    assert checkpoint.describe(state) == f"step 6, not evaluated (step 4: {loss})"
    assert checkpoint.describe(checkpoint.load(run / "best.pt")) == f"step 4, {loss}"
    del state["val_step"]  # as older versions wrote it
    assert checkpoint.describe(state) == "step 6, not evaluated"
    assert train.main(flags(run, settings, "--resume")) == 0
    assert_same_run(run, whole)


@pytest.mark.parametrize("step", [0, 4, 9])
def test_ctrl_c_stops_an_evaluation_which_the_resumed_run_repeats(
    step: int, settings: Settings, whole: Path, tmp_path: Path, stop_at: Stop, capsys
) -> None:
    run = tmp_path / "run"
    stop_at("evaluation", step)
    assert train.main(flags(run, settings)) == 130
    err, steps = capsys.readouterr().err, [int(row["step"]) for row in rows_of(run)]
    assert step not in steps and (run / "best.pt").exists() == (step == 9)
    if step == 0:
        assert not (run / "last.pt").exists() and "stopped before the first step" in err
        assert "sample with" not in err
    else:
        assert f"stopped at step {step}, not evaluated" in err
        assert checkpoint.load(run / "last.pt")["step"] == step
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert train.main(flags(run, settings, "--resume")) == 0
    assert_same_run(run, whole)
    if step == 0:
        return  # tests of crashes cover this
    shutil.copy(run / "metrics.csv", copy)  # killed after the row was written, before last.pt
    shutil.copy(run / "samples.txt", copy)
    assert train.main(flags(copy, settings, "--resume")) == 0
    assert_same_run(copy, whole)


def test_one_rank_stops_the_evaluation_of_all(settings: Settings, tmp_path: Path) -> None:
    store = torch.distributed.HashStore()
    ranks = [Distributed(rank, 2, rank, 2, store) for rank in range(2)]
    assert not ranks[0].stop_requested(False)
    assert ranks[1].stop_requested(True) and ranks[0].stop_requested(False)
    assert Distributed().stop_requested(True) and not Distributed().stop_requested(False)
    trainer = build(tmp_path / "run", settings)

    class OtherRankStopped(Distributed):
        def all_reduce_sum(self, numbers):
            return [*numbers[:3], numbers[3] + 1]

    with pytest.raises(EvaluationStoppedError):
        evaluate_split(
            trainer.model,
            trainer.batches,
            4,
            trainer.byte_lengths,
            trainer.autocast,
            OtherRankStopped(),
        )


def test_a_long_evaluation_is_announced_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    clock = [0.0]
    monkeypatch.setattr(step_log.time, "perf_counter", lambda: clock[0])
    trainer = build(tmp_path / "run", settings)
    steps = step_log.StepLog(trainer, None)
    for _ in range(2):
        for number in range(10):
            steps.show_evaluation(number, 100)
            clock[0] += 0.5
        steps.after_evaluation()
    tokens = trainer.batches.n_tokens("val")
    assert capsys.readouterr().err == f"evaluating {tokens} tokens, about 50 s\n"


def test_a_warning_if_evaluations_take_longer_than_training(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    clock = [0.0]
    monkeypatch.setattr(step_log.time, "perf_counter", lambda: clock[0])
    trainer = build(tmp_path / "run", settings, train__eval_every_steps=100, train__max_steps=999)
    for evaluation_s, warned in ((19.0, False), (21.0, True)):
        steps = step_log.StepLog(trainer, None)
        clock[0] += evaluation_s
        steps.after_evaluation()
        for _ in range(3):
            trainer.train_step()
            clock[0] += 0.2
            steps.after_step()
        warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert len(warnings) == warned
    assert warnings == [
        "warning: evaluations take longer than training: 21 s each, and the 100 steps before each "
        "20 s; raise train.eval_every_steps, or set a lower data.val_max_bytes"
    ]


@pytest.mark.parametrize("columns", [0, 40, 72, 80, 200])
def test_the_bar_shows_the_loss_in_40_columns_and_the_rate_in_80(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        bar = step_log.step_bar(19073, 12345, disable=False)
        step_log.show_metrics(bar, {"train_loss": 3.14159, "tokens_per_s": 812345.6})
        bar.close()
        shown = ""
        while not shown.endswith("\n"):
            shown += os.read(master, 1 << 16).decode()
    os.close(master)
    line = shown.rstrip().split("\r")[-1]
    columns = columns or 80  # a terminal without a size
    assert len(line) <= columns and "12345/19073" in line and "loss 3.142" in line
    assert ("812,346 tokens/s" in line) == (columns > 40)


def test_a_kill_before_the_plot_leaves_no_plot_of_an_earlier_state(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings)) == 0
    (run / "loss.png").write_bytes(b"the plot of the first steps")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "report_end", killed)
    more = ["--run_dir", str(run), "--resume", "--train.max_steps", "20"]
    with pytest.raises(KeyboardInterrupt):
        train.main(more)
    assert checkpoint.load(run / "last.pt")["step"] == 20 and not (run / "loss.png").exists()
