"""The duration of a run, measured before its first step, and train.max_minutes."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from model.training import duration as duration_module
from model.training.config import TrainConfig
from model.training.duration import BUDGET_SHARE, Duration, is_worth_measuring, measure, plan
from tests.helpers.runs import assert_same_run, flags
from utils.config.load import load
from utils.errors import UserError
from utils.run.folder import RunFolder

WITHOUT_STEPS = {"train.eval_every_steps": 40}


def without_steps(settings: dict[str, object]) -> dict[str, object]:
    rest = {name: value for name, value in settings.items() if name != "train.max_steps"}
    return rest | WITHOUT_STEPS


def test_a_run_with_a_budget_is_the_run_with_the_steps_that_were_logged(
    settings: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, budget, steps = without_steps(settings), tmp_path / "budget", tmp_path / "steps"
    assert train.main(flags(budget, settings, train__max_minutes=0.005)) == 0
    found = re.search(
        r"^(\d+) steps? fits? into 0.005 minutes: about ", capsys.readouterr().err, re.M
    )
    assert found, "the number of steps is not logged"
    stored, _ = load(train.Config, [str(budget / "config.yaml")], {})
    assert (stored.train.max_steps, stored.train.max_minutes) == (int(found[1]), 0.0)
    assert train.main(flags(steps, settings, train__max_steps=found[1])) == 0
    assert_same_run(budget, steps)
    # `make train MINUTES=4` again finds the run finished: its number of steps stays.
    assert train.main(flags(budget, settings, "--resume", train__max_minutes=0.5)) == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is the library of Linux wheels")
@pytest.mark.parametrize(
    ("env", "used"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
    ],
)
@pytest.mark.parametrize("words", [["train.py", "--print_config"], ["sample.py", "--help"]])
def test_waiting_threads_soon_give_their_core_to_other_programs(
    run_python: Callable[..., Any],
    words: list[str],
    env: dict[str, str],
    used: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)  # programs that ran in this process set it
    env = {"OMP_DISPLAY_ENV": "VERBOSE"} | env
    done = run_python(*words, env=env)
    assert done.returncode == 0
    assert f"GOMP_SPINCOUNT = '{used}'" in done.stderr


def test_a_killed_run_with_a_budget_resumes_as_the_run_with_its_steps(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, budget, steps = without_steps(settings), tmp_path / "budget", tmp_path / "steps"
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", lambda trainer, resumed: 1)  # killed before the first step
        train.main(flags(budget, settings, train__max_minutes=0.005))
    stored, _ = load(train.Config, [str(budget / "config.yaml")], {})
    assert train.main(flags(budget, settings, "--resume", train__max_minutes=0.005)) == 0
    assert train.main(flags(steps, settings, train__max_steps=stored.train.max_steps)) == 0
    assert_same_run(budget, steps)


def test_the_budget_replaces_the_steps_of_a_file(tmp_path: Path) -> None:
    steps, minutes = tmp_path / "steps.yaml", tmp_path / "minutes.yaml"
    steps.write_text("train: {max_steps: 7}\n", encoding="utf-8")
    minutes.write_text("train: {max_minutes: 2, max_steps: 7}\n", encoding="utf-8")
    config, given = load(train.Config, [str(steps)], {"train.max_minutes": "2"})
    assert config.train.max_minutes == 2 and "train.max_steps" not in given
    with pytest.raises(UserError, match=r"minutes.yaml:1: train.max_minutes: train.max_steps is"):
        load(train.Config, [str(minutes)], {})
    minutes.write_text("train: {max_minutes: 2}\n", encoding="utf-8")
    config, given = load(train.Config, [str(minutes), str(steps)], {})
    assert (config.train.max_minutes, config.train.max_steps) == (0, 7), "the last file counts"
    both = {"train.max_minutes": "2", "train.max_steps": "7"}
    with pytest.raises(UserError, match="--train.max_minutes: train.max_steps is set, too; drop"):
        load(train.Config, [], both)
    off = {"train.max_minutes": "0", "train.max_steps": "7"}  # as in the config.yaml of every run
    assert load(train.Config, [], off)[0].train.max_steps == 7


@given(
    step_s=st.floats(0.001, 10),
    evaluation_s=st.floats(0.001, 100),
    every=st.integers(1, 500),
    seconds=st.floats(1, 10_000),
)
def test_the_steps_that_fit_are_the_most_that_fit(
    step_s: float, evaluation_s: float, every: int, seconds: float
) -> None:
    duration = Duration(step_s, evaluation_s)
    steps = duration.steps_within(seconds, every)

    def total_s(max_steps: int) -> float:
        return duration.total_s(TrainConfig(max_steps=max_steps, eval_every_steps=every))

    assert steps == 1 or total_s(steps) <= seconds * (1 + 1e-9)
    # One step more than one more must be too long: the last one may be lost to rounding.
    assert total_s(steps + 2) > seconds or total_s(steps + 1) > seconds


class SlowTrial:
    """A trainer whose steps take given seconds on a clock that nothing else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, grad_accum_steps: int) -> None:
        self.now, self.steps = 0.0, 0
        self.config = types.SimpleNamespace(
            train=TrainConfig(grad_accum_steps=grad_accum_steps, sample_tokens=0)
        )
        self.device = types.SimpleNamespace(type="cpu")
        self.dist = types.SimpleNamespace(size=1, all_reduce_max=lambda *numbers: list(numbers))
        monkeypatch.setattr(duration_module.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(duration_module, "evaluation_seconds", lambda trial, train: 4.0)

    def train_step(self, on_phase_end: Callable[[str], object]) -> None:
        self.steps += 1
        for phase, seconds in {
            "data": 0.5,
            "forward": 1.0,
            "backward": 2.0,
            "optimizer": 3.0,
        }.items():
            self.now += seconds * (10 if self.steps == 1 else 1)
            on_phase_end(phase)


def test_the_first_step_does_not_count_and_passes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    trial: Any = SlowTrial(monkeypatch, grad_accum_steps=1)
    train_config = TrainConfig(grad_accum_steps=4)
    found = measure(trial, train_config, seconds=200.0, max_steps=40)
    # 65 s, then 6.5 s each; the clock starts again after a third of the 200 s, which step 2 ends.
    assert found == Duration(step_s=4 * 3.5 + 3.0, evaluation_s=4.0) and trial.steps == 22


@pytest.mark.parametrize(("minutes", "trial_s"), [(18.0, BUDGET_SHARE * 18 * 60), (600.0, 120.0)])
def test_the_trial_is_part_of_the_budget(
    minutes: float, trial_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration_module, "MAX_TRIAL_S", 120.0)  # the first step takes 65 s
    trial: Any = SlowTrial(monkeypatch, grad_accum_steps=1)
    trial.batches = types.SimpleNamespace(epoch_at=lambda step: 1e-6)
    planned, line = plan(TrainConfig(max_minutes=minutes), trial)
    run_s = Duration(6.5, 4.0).total_s(planned)
    # The trial ends with a whole step.
    assert trial.now == pytest.approx(trial_s, abs=6.5)
    assert run_s + trial_s == pytest.approx(60 * minutes, abs=6.5 + 4.0), line


def test_one_slow_step_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    trial: Any = SlowTrial(monkeypatch, grad_accum_steps=1)
    assert measure(trial, TrainConfig(), seconds=1.0, max_steps=20).step_s == 65.0
    assert trial.steps == 1


def test_only_long_runs_are_measured(settings: dict[str, object], tmp_path: Path) -> None:
    tiny, tiny_config = train.parse(flags(tmp_path, settings))[0], "configs/tiny.yaml"
    assert not is_worth_measuring(tiny)
    long = train.parse(["--config", tiny_config])[0]
    assert is_worth_measuring(long)
    compiled = train.parse(["--config", tiny_config, "--train.compile=true"])[0]
    assert not is_worth_measuring(compiled), "compiling it twice would be slow"


def test_a_resumed_run_logs_the_time_left(
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(duration_module, "MIN_FLOPS", 0)  # measure tiny runs, too
    assert train.main(flags(run, settings)) == 0
    assert re.search(r"^about \d\d:\d\d here, 9 steps of ", capsys.readouterr().err, re.M)
    assert train.main(flags(run, settings, "--resume", train__max_steps=12)) == 0
    assert "left, at the rate of the first 9 steps" in capsys.readouterr().err
    assert RunFolder(str(run)).last.exists()
