"""scripts.sweep: every point is run once, also after failures and signals."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex

import pytest
from filelock import FileLock

from scripts.sweep import __main__ as script
from scripts.sweep.grid_file import load_sweep
from scripts.sweep.points import make_jobs, point_status
from scripts.sweep.pools import LocalPool
from tests.scripts.sweep.helpers import make_points, results
from train import Config
from utils.config.load import load
from utils.errors import UserError
from utils.run.folder import RunFolder


def test_one_failing_point_does_not_stop_the_rest(sweep_file, tmp_path, capsys, monkeypatch):
    argv = sweep_file("grid: {lr: [1e30, 0.01]}")
    assert script.main([*argv, "--workers", "2"]) == 1
    out, err = capsys.readouterr()
    rows = results(tmp_path / "out")
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert [row["optim.lr"] for row in rows] == ["1e+30", "0.01"]
    assert rows[1]["step"] == "9" and 0 < float(rows[1]["val_bpb"]) < float(rows[1]["val_loss"])
    assert "1 of 2 points failed: lr=1e+30" in err and "stopped: step" in err
    assert "lr=0.01" in out and "1e+30" not in out  # a failed point is not ranked
    assert json.loads(out.splitlines()[-1])["failed"] == 1
    assert err.index("seeds needed: not known") < err.index("2 points to run, 2 in parallel")
    assert err.index("2 points to run") < err.index("lr=0.01: done")

    config, _ = load(Config, [str(tmp_path / "out" / "lr=0.01" / "config.yaml")], {})
    assert config.optim.lr == 0.01 and config.train.num_threads == 1  # as in the base config

    started: list[list[str]] = []
    monkeypatch.setattr(LocalPool, "_run", lambda self, command, log: started.append(command))
    assert script.main(argv) == 1
    (command,) = started  # the finished point is not run again
    assert str(tmp_path / "out" / "lr=1e+30") in command


def test_a_stopped_sweep_says_how_to_continue(sweep_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "run_jobs", lambda *args: 130)  # Ctrl-C before a point is done
    argv = [*sweep_file("grid: {lr: [0.01, 0.02]}"), "--out", str(tmp_path / "the out")]
    assert script.main(argv) == 130
    printed = capsys.readouterr()
    command = " ".join(map(shlex.quote, argv))
    assert (
        f"stopped; the same command continues: `python -m scripts.sweep {command}`" in printed.err
    )
    record = json.loads(printed.out)  # no table without rows
    assert (record["done"], record["base"], record["results"]) == (0, None, [])


@pytest.mark.usefixtures("forked_points")
def test_the_last_line_is_there_if_all_points_fail(sweep_file, capsys):
    assert script.main(sweep_file("each: {n_layer: [2]}\nset: {lr: 1e30}")) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["failed"], record["base"], record["results"]) == (2, None, [])


def test_an_unknown_format_of_the_plots_is_refused(sweep_file, tmp_path):
    with pytest.raises(UserError, match="--plot-format: .*'jpg'.*png"):
        script.main([*sweep_file(""), "--plot-format", "jpg"])
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands_and_writes_nothing(sweep_file, tmp_path, capsys):
    argv = sweep_file("grid: {d_model: [8, 16]}\nseeds: [1, 2]\nset: {n_layer: 2}")
    assert script.main([*argv, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("new: ") for line in lines)
    assert "--model.n_layer=2 --model.n_embd=8 --train.seed=1" in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "grid: {d_model: [15]}",
            "point n_embd=15: model.n_embd 15 is not a multiple of model.n_head 2",
        ),
        ("grid: {data.files: [[nowhere.txt]]}", "nowhere.txt"),
        ("grid: {n_layers: [1]}", "sweep.yaml:3: unknown key grid.n_layers .*n_layer"),
    ],
)
def test_a_bad_point_is_refused_before_anything_runs(sweep_file, tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        script.main(sweep_file(text))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("forked_points")
def test_each_change_is_compared_with_the_base_of_its_seed(sweep_file, tmp_path, capsys):
    argv = sweep_file(
        "each:\n  two layers: {n_layer: 2, dropout: 0.0}\n  lr: [1e-5]\n"
        "seeds: [1, 2]\nset: {lr: 0.01, max_steps: 4}"
    )
    assert script.main([*argv, "--workers", "2", "--plot-format", "svg"]) == 0
    assert (tmp_path / "out" / "changes.svg").read_text(encoding="utf-8").startswith("<?xml")
    lines = capsys.readouterr().out.splitlines()
    rows = results(tmp_path / "out")
    assert [row["change"] for row in rows[::2]] == ["base", "two layers", "lr=1e-05"]
    assert [(row["model.n_layer"], row["optim.lr"]) for row in rows[::2]] == [
        ("1", "0.01"),
        ("2", "0.01"),
        ("1", "1e-05"),
    ]
    loss = {(row["change"], row["seed"]): float(row["val_loss"]) for row in rows}
    added = sum(loss["lr=1e-05", seed] - loss["base", seed] for seed in ("1", "2")) / 2
    (slow,) = (line for line in lines if line.startswith("lr=1e-05"))
    assert slow.split()[2] == f"{added:+.4f}" and added > 0
    assert lines[1].startswith("base ") and "95% interval" in lines[-2]
    record = json.loads(lines[-1])  # the last line is for programs
    assert (record["points"], record["done"], record["failed"], record["base"]) == (6, 6, 0, "base")
    (found,) = (one for one in record["results"] if one["label"] == "lr=1e-05")
    assert found["verdict"] == slow.split("2  ")[-1].strip() and found["seeds"] == 2
    assert found["difference"] == pytest.approx(
        added * found["val_bpb"] / found["val_loss"], rel=0.1
    )


def test_a_change_that_changes_nothing_is_refused(sweep_file, tmp_path):
    with pytest.raises(UserError, match="points base and n_layer=1 have the same settings"):
        script.main(sweep_file("each: {n_layer: [1, 2]}"))
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_refused(sweep_file, tmp_path):
    with pytest.raises(UserError, match="--workers: must be at least 1"):
        script.main([*sweep_file(""), "--workers", "0"])
    with pytest.raises(UserError, match="--workers and --cluster: drop one"):
        script.main([*sweep_file(""), "--workers", "2", "--cluster", "tcp://127.0.0.1:9"])
    with pytest.raises(UserError, match="train.max_minutes: set train.max_steps instead"):
        script.main(sweep_file("set: {train.max_minutes: 1}"))
    with pytest.raises(UserError, match="nowhere.yaml"):
        script.main(["--config", "nowhere.yaml"])
    (tmp_path / "sweep.yaml").write_text("config: nowhere.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="nowhere.yaml"):
        script.main(["--config", str(tmp_path / "sweep.yaml")])


def test_a_folder_with_another_run_is_refused(sweep_file, story_run, tmp_path):
    argv = sweep_file("grid: {d_model: [16]}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "n_embd=16").symlink_to(story_run)
    with pytest.raises(UserError, match="contains a run with model.vocab_size 400, not 300"):
        script.main(argv)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("data", "files", ("other.txt",)), ("train", "early_stop_patience", 3)],
)
def test_settings_that_may_change_on_resume_make_another_point(part, name, value, story_run):
    """Otherwise the table would show a finished run under settings that it was not trained with."""
    own, _ = load(Config, [str(story_run / "config.yaml")], {})
    assert point_status(RunFolder(story_run), own) == "done"
    object.__setattr__(getattr(own, part), name, value)
    with pytest.raises(UserError, match=f"contains a run with {part}.{name} "):
        point_status(RunFolder(story_run), own)


def test_fewer_points_than_requested_are_logged(sweep_file, capsys):
    argv = sweep_file("random: {n_layer: [1, 2, choice]}\npoints: 9")
    assert script.main([*argv, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and "no more than 2 combinations" in err


def test_workers_share_the_cores(sweep_file, base, tmp_path, monkeypatch):
    text = base.read_text(encoding="utf-8").replace("  num_threads: 1\n", "")
    (tmp_path / "free.yaml").write_text(text, encoding="utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(f"config: {tmp_path / 'free.yaml'}\n", encoding="utf-8")
    sweep = load_sweep(str(path), Config)
    (job,) = make_jobs(sweep, "sweep.yaml", tmp_path / "out", threads=8 // 3)
    assert job.config.train.num_threads == 2 and "--train.num_threads=2" in job.command("")
    path.write_text(f"config: {base}\n", encoding="utf-8")  # sets num_threads itself
    (job,) = make_jobs(load_sweep(str(path), Config), "", tmp_path / "out", threads=5)
    assert job.config.train.num_threads == 1 and "num_threads" not in str(job.command(""))


@pytest.mark.parametrize(
    ("variable", "workers", "threads"),
    [("", 1, 6), ("", 4, 1), ("1", 1, 1), ("1", 2, 1), ("2", 2, 2), ("9", 2, 3), ("9", 1, 9)],
)
def test_runs_use_no_more_threads_than_omp_num_threads(monkeypatch, variable, workers, threads):
    monkeypatch.setattr(script, "available_cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert script.threads_per_run(workers) == threads
    monkeypatch.setenv("OMP_NUM_THREADS", f"{variable or 'x'},8")  # nested levels, and nonsense
    assert script.threads_per_run(workers) == threads


def test_the_threads_of_a_sweep_are_those_of_the_environment(sweep_file, base, monkeypatch, capsys):
    text = base.read_text(encoding="utf-8").replace("  num_threads: 1\n", "")
    free = base.with_name("free.yaml")
    free.write_text(text, encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert script.main([*sweep_file(""), "--base", str(free), "--dry-run"]) == 0
    assert "--train.num_threads=1" in capsys.readouterr().out


def test_flags_make_a_sweep_without_a_file(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--grid", "d_model=8,16", "--seeds", "1,2", "--set", "lr=0.02"]
    assert script.main(["--base", str(base), *flags, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "runs/sweep-base/n_embd=8_seed=1 --config" in lines[0]
    assert "--optim.lr=0.02 --model.n_embd=8 --train.seed=1" in lines[0]


def test_gpus_are_assigned_only_if_no_run_names_one(base, tmp_path, monkeypatch):
    (job,) = make_points(base, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    given: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(script, "LocalPool", lambda workers, gpus: given.append((workers, gpus)))
    args = argparse.Namespace(cluster=None, workers=2)
    numbered = dataclasses.replace(job.config.train, device="cuda:1")
    script.make_pool(args, [job], FileLock(tmp_path / "lock"))
    other = dataclasses.replace(job, config=dataclasses.replace(job.config, train=numbered))
    script.make_pool(args, [job, other], FileLock(tmp_path / "lock"))
    assert given == [(2, ["4", "5"]), (2, [])]
