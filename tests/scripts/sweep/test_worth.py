"""A sweep with a ladder: worth, seeds and time, as tables and JSON; ladders that do not fit."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.finished import finished_runs
from scripts.report import worth_table
from scripts.sweep import __main__ as script
from scripts.sweep import progress
from scripts.sweep.ranking import (
    Group,
    changes_table,
    describe_power,
    ranking_table,
    summary,
)
from tests.conftest import ROOT
from tests.helpers.runs import fake_run
from tests.scripts.sweep.helpers import make_points
from utils.errors import UserError
from utils.metrics import CsvLog

pytestmark = pytest.mark.usefixtures("forked_points")

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
    assert records["other"]["worth_note"] == "no worth: seed 1 is not finite"
    lines = worth_table(results, 9).splitlines()
    assert lines[-2] == "other: no worth: seed 1 is not finite"
    assert [line.split() for line in lines[1:-2]] == [
        ["good", "+1", "+1", "+1", "2"],
        ["same", "+0", "+0", "+0", "2"],
        ["best", "+inf", "+11", "+inf", "2"],
    ]
    assert lines[-1].startswith(
        "with that many steps more than 9, the ladder's recipe has the same"
    )


def test_seeds_that_the_ladder_lacks_are_named(ladder):
    """Two rungs without seed 2: the worth has one seed, and so no interval."""
    runs = [run for run in finished_runs(str(ladder), "--ladder") if run.path.name != "4-2"]
    results = summary([group("good", 3.01, 3.02)], "good", runs, 9)
    note = "left out, as runs of the ladder are missing: seed 2"
    assert results[0]["worth_note"] == note
    *_, row, shown, _ = worth_table(results, 9).splitlines()
    assert row.split() == ["good", "+1", "-", "-", "1"] and shown == f"good: {note}"
    (nothing,) = summary([Group("far", {"val_bpb": {"7": 1.0}, "val_loss": {}})], "x", runs, 9)
    assert nothing["worth"] == {} and "none of its seeds has three rungs" in nothing["worth_note"]
    (unasked,) = summary([group("good", 3.01, 3.02)], "good", None, 9)
    assert unasked["worth"] == {} and unasked["worth_note"] == ""


def test_a_rung_that_lacks_seeds_is_left_out_and_named(ladder, text_run, base, tmp_path):
    """The last rung was interrupted after seed 1."""
    copy, (job,) = shutil.copytree(ladder, tmp_path / "ladder"), make_points(base, tmp_path)
    fake_run(text_run, copy / "40-1", job.config, 1.5 + 0.01, 40, 1)
    groups = [group("good", 3.01, 3.03)]
    (whole,), (found,) = (
        summary(groups, "good", finished_runs(str(one), "--ladder"), 9) for one in (ladder, copy)
    )
    assert found["worth"] == whole["worth"] and found["worth"]["seeds"] == 2
    note = "left out, as runs of the ladder are missing: 40 steps"
    assert (whole["worth_note"], found["worth_note"]) == ("", note)


def test_no_worth_while_a_seed_is_missing(ladder):
    runs = finished_runs(str(ladder), "--ladder")
    failed = dataclasses.replace(group("x", 3.01, 3.02), failed=("3",))
    late = dataclasses.replace(group("y", 3.01, 3.02), unfinished=1)
    found = summary([group("base", 3.3, 3.3), failed, late], "base", runs, 9)
    assert [one["failed"] for one in found] == [0, 1, 0]
    assert [one["unfinished"] for one in found] == [0, 0, 1]
    assert [one["worth"] for one in found[1:]] == [{}, {}]
    assert [one["verdict"] for one in found[1:]] == ["seed 3 failed", "1 unfinished"]
    assert found[1]["worth_note"] == "no worth: seed 3 failed"
    found = summary([failed, group("other", 3.1, 3.1)], "x", runs, 9)
    assert found[1]["verdict"] == "base: seed 3 failed"


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
    assert "seeds needed: not known" in err and "4 points to run" in err
    found = json.loads(out.splitlines()[-1])["results"][0]
    note = "no worth: none of its seeds has three rungs of the ladder on the same data"
    assert found["worth"] == {} and found["worth_note"] == note and note in out.splitlines()[-3]
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


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_ladder_needs_three_finished_lengths(sweep_file, ladder, tmp_path, capsys, kept):
    """Runs that are not finished, or whose loss is not a number, do not count."""
    copy = shutil.copytree(ladder, tmp_path / "ladder")
    for path in copy.glob("*/metrics.csv"):
        if int(path.parent.name.split("-")[0]) not in STEPS[:kept]:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(lines[:-1]), encoding="utf-8")
    argv = [*sweep_file("each: {n_layer: [2]}"), "--ladder", str(copy)]
    with pytest.raises(UserError, match="three numbers of steps; train .* new --out") as caught:
        script.main(argv)
    assert str(caught.value).count(str(copy)) == 1  # no advice to mix runs in it
    left_out = 2 * (3 - kept)
    assert f"ladder: {left_out} of 6 runs left out: not finished" in capsys.readouterr().err
    with pytest.raises(UserError, match="--ladder .*nowhere: no runs there"):
        script.main([*argv[:-1], str(tmp_path / "nowhere")])


def set_settings(run: Path, **changed: Any) -> None:
    """Change settings in the stored config of a run."""
    path = run / "config.yaml"
    text = path.read_text(encoding="utf-8")
    for name, value in changed.items():
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{name}: "))
        text = text.replace(line, f"{line.partition(':')[0]}: {value}")
    path.write_text(text, encoding="utf-8")


def test_a_ladder_has_one_recipe(sweep_file, ladder, text_run, base, tmp_path):
    """The setting that a grid varies may differ from the sweep's, but not within the ladder."""
    copy = shutil.copytree(ladder, tmp_path / "ladder")
    argv = [*sweep_file("grid: {d_model: [16, 24]}"), "--ladder", str(copy)]
    (job,) = make_points(base, tmp_path)
    fake_run(text_run, copy / "wide", job.config, 2.0, 50, 1, {"model.n_embd": 24})
    with pytest.raises(UserError, match="wide has model.n_embd 24, not 16 as 20-1; only steps"):
        script.main(argv)
    set_settings(copy / "wide", n_embd=16)
    assert script.main([*argv, "--dry-run"]) == 0
    set_settings(copy / "wide", max_steps=9, eval_every_steps=3)
    words = "wide has train.eval_every_steps 3, not 4, and the steps and seed of 9-1; remove one"
    with pytest.raises(UserError, match=words):
        script.main(argv)
    assert not (tmp_path / "out").exists()


def test_a_grid_with_a_ladder(sweep_file, ladder, tmp_path, capsys):
    """The ladder's recipe is one of the grid, not the first; all variants are compared with it."""
    copy = shutil.copytree(ladder, tmp_path / "ladder")
    for run in copy.iterdir():
        set_settings(run, n_embd=24)
    argv = [*sweep_file("grid: {d_model: [16, 24]}\nseeds: [1, 2]"), "--ladder", str(copy)]
    assert script.main([*argv, "--workers", "2"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["worth"]["seeds"] for one in found["results"]] == [2, 2]
    assert found["base"] == found["results"][0]["label"]


def test_the_reason_why_a_run_is_no_rung_is_given(sweep_file, ladder, tmp_path, capsys):
    copy = shutil.copytree(ladder, tmp_path / "ladder")
    for seed in (1, 2):
        path = copy / f"20-{seed}" / "metrics.csv"
        set_settings(path.parent, early_stop_patience=1)
        log = CsvLog(path)
        for step, loss in ((0, 9.0), (4, 2.0), (8, 2.1)):
            log.write({"step": step, "val_loss": loss, "val_bpb": loss})
    path = copy / "9-1" / "metrics.csv"
    log = CsvLog(path)
    log.write({"step": 9, "val_loss": math.nan, "val_bpb": math.nan})
    with pytest.raises(UserError, match="three numbers of steps"):
        script.main([*sweep_file("each: {n_layer: [2]}"), "--ladder", str(copy)])
    err = capsys.readouterr().err
    assert "2 of 6 runs left out: stopped early at step 8; set train.early_stop_patience 0" in err
    assert "1 of 6 runs left out: its loss is not finite" in err and "not finished" not in err


def test_losses_of_other_validation_texts_are_not_compared(sweep_file, ladder, capsys):
    """Another vocabulary is another identity of the data, but the same text."""
    text = "each:\n  data.val_max_bytes: [500]\n  vocab_size: [290]\nseeds: [1, 2]"
    argv = [*sweep_file(text), "--ladder", str(ladder), "--workers", "2"]
    assert script.main(argv) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = {one["label"]: one for one in json.loads(last)["results"]}
    other, same = found["val_max_bytes=500"], found["vocab_size=290"]
    assert other["verdict"] == "other validation text" and other["worth"] == {}
    assert "difference" not in other and "interval" not in other
    assert other["worth_note"] == "no worth: other validation text"
    assert any(line.endswith("other validation text") for line in lines)
    assert same["worth"]["seeds"] == found["base"]["worth"]["seeds"] == 2 and "difference" in same


def test_no_winner_among_different_validation_texts(sweep_file, capsys):
    assert script.main(sweep_file("grid: {data.val_max_bytes: [500, 600]}\nseeds: [1, 2]")) == 0
    words = json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"]
    assert words.startswith("no winner: ") and words.endswith("share no seed or no validation text")


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


def keys_of(value: Any) -> set[str]:
    """Return the keys of JSON objects at any depth; beyond_ladder has those of worth."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_the_keys_of_the_last_line_are_those_of_the_docs(sweep_file, ladder, capsys):
    found: set[str] = set()
    for text in ("grid: {n_layer: [1, 2]}", "each: {n_layer: [2]}"):
        argv = [*sweep_file(f"{text}\nset: {{max_steps: 4}}"), "--ladder", str(ladder)]
        out = ["--out", f"{argv[1]}-{text[:4]}"]
        assert script.main([*argv, *out, "--workers", "2"]) == 0
        found |= keys_of(json.loads(capsys.readouterr().out.splitlines()[-1]))
    page = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    (paragraph,) = (one for one in page.split("\n\n") if one.startswith("Keys of the last line"))
    assert found == set(re.findall(r"`(\w+)`", paragraph))
