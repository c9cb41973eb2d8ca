"""A sweep with a ladder: worth, seeds and time, as tables and JSON; ladders that do not fit."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.finished import finished_runs
from scripts.sweep import __main__ as script
from scripts.sweep import progress
from scripts.sweep.ranking import (
    Group,
    changes_table,
    describe_power,
    ranking_table,
    seeds_left_out,
    summary,
    worth_table,
)
from tests.helpers.runs import fake_run
from tests.scripts.sweep.helpers import make_points
from utils.errors import UserError

STEPS = (4, 9, 20)


@pytest.fixture(scope="module")
def ladder(text_run, base, tmp_path_factory) -> Path:
    """Return a ladder of the base config: 20 / steps + 1 bits per byte, and 0.01 for each seed."""
    folder = tmp_path_factory.mktemp("ladder")
    (job,) = make_points(base, tmp_path_factory.mktemp("points"))
    for steps in STEPS:
        for seed in (1, 2):
            run = folder / f"{steps}-{seed}"
            fake_run(text_run, run, job.config, 20 / steps + 1 + 0.01 * seed, steps, seed)
    return folder


def group(label: str, *bits: float) -> Group:
    values = {str(seed): one for seed, one in enumerate(bits, 1)}
    return Group(label, {"val_bpb": values, "val_loss": values})


def test_a_worth_is_read_from_the_ladder(ladder):
    runs = finished_runs(str(ladder), "--ladder")
    groups = [group("good", 3.01, 3.02), group("same", 20 / 9 + 1.01, 20 / 9 + 1.02)]
    groups += [group("best", 0.1, 0.1), group("other", math.nan, 1.0)]
    results = summary(groups, "same", runs, 9)
    records = {one["label"]: one for one in results}
    assert records["good"]["worth"] == {"steps": 1, "low": 1, "high": 1, "seeds": 2}
    assert records["good"]["beyond_ladder"] == records["other"]["beyond_ladder"] == {}
    assert records["best"]["beyond_ladder"] == {"steps": "above", "high": "above"}
    (worst,) = summary([group("worst", 9.0, 9.1)], "base", runs, 9)
    assert worst["beyond_ladder"] == {"steps": "below", "low": "below"}
    assert records["good"]["verdict"] == "better" and "verdict" not in records["same"]
    assert records["other"]["worth"] == {}
    lines = worth_table(results, 9).splitlines()
    assert [line.split() for line in lines[1:-1]] == [
        ["good", "+1", "+1", "+1", "2"],
        ["same", "+0", "+0", "+0", "2"],
        ["best", "+inf", "+11", "+inf", "2"],
    ]
    assert lines[-1].startswith("with that many steps more than 9, the base has the same loss")


def test_seeds_that_the_ladder_lacks_are_named(ladder):
    """One rung without seed 2: the worth has one seed, and so no interval."""
    runs = finished_runs(str(ladder), "--ladder")
    groups = [group("good", 3.01, 3.02)]
    assert seeds_left_out(groups, runs) == seeds_left_out(groups, []) == ""
    runs = [run for run in runs if run.path.name not in ("20-2", "4-2")]
    line = "seeds left out of the worth: 2 (the ladder has no finished run of it with 4, 20 steps)"
    assert seeds_left_out(groups, runs) == line
    assert worth_table(summary(groups, "good", runs, 9), 9).splitlines()[1].split() == [
        "good", "+1", "-", "-", "1",
    ]  # fmt: skip


def test_no_table_has_nan():
    groups = [group("base", 1.0, 1.1), group("diverged", math.nan, math.nan)]
    for text in (ranking_table(groups), changes_table(groups, "base")):
        assert "nan" not in text and "diverged" in text


def test_the_seeds_that_a_difference_needs_come_from_the_known_spread(ladder):
    runs = finished_runs(str(ladder), "--ladder")
    assert "not known" in describe_power([group("a", 1.0, 1.1)], [], None)
    assert "not known" in describe_power([group("a", 1.0), group("b", 1.1)], [], None)
    line = describe_power([], runs, None)  # a ladder without noise
    assert "seeds needed: about 2 to find" in line
    groups = [group("a", 1.0, 1.2), group("b", 1.1, 1.4)]
    line = describe_power(groups, [], 0.1)
    assert "seeds needed: about 7 to find 0.1000 " in line
    assert line.endswith("std dev of 0.0707, estimated from 4 runs, 1 degree of freedom")
    more = [*groups, group("c", 1.0, 1.3), group("d", 1.05)]
    line = describe_power([*more, group("e", 1.0, 1.2)], [], 0.1)  # e is a part of a
    assert line.endswith("estimated from 7 runs, 2 degrees of freedom")
    assert "100+ to find 0.0118 " in describe_power(groups, [], None)


def test_no_differences_to_a_base_without_a_finished_run():
    (one,) = summary([group("a", 1.0)], "base", [], 9)
    assert one["seeds"] == 1 and "verdict" not in one and one["worth"] == {}
    late = dataclasses.replace(group("late", 1.0, 1.0), unfinished=1)
    assert summary([group("base", 2.0, 2.1), late], "base", [], 9)[1]["verdict"] == "1 unfinished"


def test_a_sweep_with_a_ladder(sweep_file, ladder, tmp_path, capsys):
    argv = [*sweep_file("each: {n_layer: [2]}\nseeds: [1, 2]"), "--workers", "2"]
    other = shutil.copytree(ladder, tmp_path / "other")
    for path in other.glob("*/run.json"):  # the same files had another content
        record = json.loads(path.read_text(encoding="utf-8"))
        record["data"]["identity"] = "other"
        path.write_text(json.dumps(record), encoding="utf-8")
    assert script.main([*argv, "--ladder", str(other), "--detect", "0.5"]) == 0
    out, err = capsys.readouterr()
    assert "seeds needed: about 2 to find 0.5000" in err and "4 points to run" in err
    *_, note, last = out.splitlines()
    assert note.endswith("no row: its data or seeds are not those of it)")
    assert json.loads(last)["results"][0]["worth"] == {}
    assert script.main([*argv, "--ladder", str(ladder)]) == 0
    out, err = capsys.readouterr()
    assert "to run" not in err  # all points are done
    found = {one["label"]: one for one in json.loads(out.splitlines()[-1])["results"]}
    assert set(found["n_layer=2"]["worth"]) == {"steps", "low", "high", "seeds"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optim.lr": 0.5}, "has optim.lr 0.5, not .* as the sweep's base"),
        ({"data.files": ("other.txt",)}, r"has data.files \[other.txt\], not"),
    ],
)
def test_a_ladder_of_another_recipe_is_refused(
    sweep_file, base, text_run, tmp_path, changed, message
):
    (job,) = make_points(base, tmp_path)
    for steps in STEPS:
        fake_run(text_run, tmp_path / "ladder" / str(steps), job.config, 2.0, steps, 1, changed)
    argv = [*sweep_file("each: {n_layer: [2]}"), "--ladder", str(tmp_path / "ladder")]
    with pytest.raises(UserError, match=f"--ladder .*: .* {message}"):
        script.main(argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0, 1])
def test_a_ladder_needs_two_finished_lengths(sweep_file, ladder, tmp_path, capsys, kept):
    """Runs that are not finished, or whose loss is not a number, do not count."""
    copy = shutil.copytree(ladder, tmp_path / "ladder")
    for path in copy.glob("*/metrics.csv"):
        if int(path.parent.name.split("-")[0]) not in STEPS[:kept]:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(lines[:-1]), encoding="utf-8")
    argv = [*sweep_file("each: {n_layer: [2]}"), "--ladder", str(copy)]
    with pytest.raises(UserError, match="two numbers of steps; train .* new --out") as caught:
        script.main(argv)
    assert str(caught.value).count(str(copy)) == 1  # no advice to mix runs in it
    left_out = 2 * (3 - kept)
    assert f"ladder: {left_out} of 6 runs left out: not finished" in capsys.readouterr().err
    with pytest.raises(UserError, match="--ladder .*nowhere: no runs there"):
        script.main([*argv[:-1], str(tmp_path / "nowhere")])


def test_the_duration_is_measured_before_the_first_point(base, tmp_path, monkeypatch):
    """Two of three points of 10 steps are left, and one of them has taken half of its steps."""
    jobs = make_points(base, tmp_path, "grid: {lr: [1e-3, 2e-3, 3e-3]}\nset: {max_steps: 10}")
    jobs[0].status = "done"
    assert progress.describe_duration(jobs, 2) == "2 points to run, 2 in parallel"  # of seconds
    monkeypatch.setattr(progress, "is_worth_measuring", lambda config: True)
    monkeypatch.setattr(progress, "steps_done", lambda run: 5 * ("0.002" in run.path.name))
    given: list[Any] = []

    def measure(trainer: Any, train: Any, *limits: Any) -> Any:
        given.append((trainer.config.model.n_embd, train.max_steps))
        return argparse.Namespace(total_s=lambda train: 200.0)

    monkeypatch.setattr(progress, "measure", measure)
    words = "2 points to run, 1 in parallel, about 05:10 in all"
    assert progress.describe_duration(jobs, 1) == words
    assert given == [(16, 10)] and not jobs[1].run.path.exists()
    assert "about 02:35" in progress.describe_duration(jobs, 2)

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(progress, "measure", fail)
    assert progress.describe_duration(jobs, 1) == "2 points to run, 1 in parallel"
