"""scripts.bench train: timed windows, their median and range, and the derived figures."""

from __future__ import annotations

import time

import pytest

from model.config import ModelConfig
from model.flops import count_parameters, training_flops_per_token
from scripts.bench import __main__ as script
from scripts.bench.timing import Spread, time_windows
from tests.helpers.runs import flags
from utils.errors import UserError

FEW = ["--windows", "3", "--steps-per-window", "2", "--warmup-steps", "1"]


@pytest.fixture
def argv(story_settings):
    """Return the arguments of `bench train` with the settings of the tiny run."""
    return ["train", *FEW, *flags("unused", story_settings)]


def test_figures_are_consistent(argv, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, people = printed(script.main, *argv, "--json")
    rate, step_s = record["tokens_per_s"], record["step_s"]
    assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert 0 < step_s["low"] <= step_s["median"] <= step_s["high"]
    # Batches of stories differ in length, so the rate of the timed steps agrees only roughly.
    assert 0.5 < rate["median"] * step_s["median"] / record["tokens_per_step"] < 2
    assert 0 < record["fetch_s"] and record["fetch_share"] == record["fetch_s"] / step_s["median"]
    assert 0 <= record["padding_share"] < 1
    model = ModelConfig(vocab_size=400, block_size=640, n_layer=1, n_head=2, n_embd=16)
    assert record["parameters"] == count_parameters(model).total
    length = round(record["tokens_per_step"] / 4)  # four rows
    assert record["flops_per_token"] == training_flops_per_token(model, length)
    assert record["flops_per_s"] == record["flops_per_token"] * rate["median"]
    assert record["peak_memory_bytes"] > 1e7 and record["threads"] == 1
    assert (record["windows"], record["steps_per_window"], record["warmup_steps"]) == (3, 2, 1)
    assert record["command"] == "train" and "tokens/s" in people
    lines = [line for line in people.splitlines() if line.startswith("window ")]
    assert [line.partition(":")[0] for line in lines] == ["window 1/3", "window 2/3", "window 3/3"]
    assert lines[0].endswith(" tokens/s")
    assert list(tmp_path.iterdir()) == []  # no run folder


def test_without_json_a_table_is_printed(argv, capsys):
    assert script.main(argv) == 0
    out = capsys.readouterr().out
    assert "median of 3 windows of 2 steps" in out and "FLOPs per token" in out
    assert "{" not in out


@pytest.mark.parametrize(
    "more, message",
    [
        (["--windows", "0"], "--windows: must be at least 1"),
        (["--steps_per_window", "0"], "--steps-per-window: must be at least 1"),
        (["--warmup-steps", "-1"], "--warmup-steps: must be at least 0"),
        (["--model.n_layers", "2"], "did you mean --model.n_layer"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_arguments_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        script.main(["train", *more])


def test_a_missing_command_is_refused():
    with pytest.raises(UserError, match="train"):
        script.main([])


def test_windows_are_timed_between_synchronisations(monkeypatch):
    clock, calls = [0.0], []

    def step() -> int:
        calls.append("step")
        clock[0] += 1.0  # time to launch the work
        return 10

    def wait() -> None:
        calls.append("wait")
        clock[0] += 0.5  # time until the work is finished

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    windows = list(time_windows(step, steps=2, windows=2, warmup=1, synchronize=wait))
    assert calls == ["step", *["wait", "step", "step", "wait"] * 2]
    assert [(window.seconds, window.units, window.rate) for window in windows] == [
        (2.5, 20, 8.0)
    ] * 2
    assert Spread.of([one.rate for one in windows]) == Spread(8.0, 8.0, 8.0)
