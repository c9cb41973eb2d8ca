"""scripts.sweep.grid_file: random search in a file, and flags over a file or without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.sweep.grid import Sweep
from scripts.sweep.grid_file import load_sweep
from scripts.sweep.random_search import Range
from tests.scripts.sweep.helpers import Settings
from utils.errors import UserError


@pytest.fixture
def sweep_of(tmp_path: Path):
    def load(text: str, **flags: object) -> Sweep:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return load_sweep(str(path) if text else "", Settings, flags)

    return load


def test_ranges_of_a_file(sweep_of):
    sweep = sweep_of(
        "random:\n  n_embd: [8, 64, log]\n  dropout: [0, 0.5]\n  text: [a, b, choice]\n"
        "points: 4\nrandom_seed: 3"
    )
    assert sweep.ranges == {
        "model.n_embd": Range(8, 64, log=True, whole=True),
        "model.dropout": Range(0.0, 0.5),
        "train.text": Range(choices=("a", "b")),
    }
    assert len(sweep.points()) == 4 and sweep.points() == sweep.points()
    assert sweep.points() != sweep_of("random: {n_embd: [8, 64]}\npoints: 4").points()


def test_flags_without_a_file(sweep_of):
    sweep = sweep_of(
        "",
        grid=["model.n_embd=64,128", "betas=[0.9, 0.95],[0.8, 0.9]"],
        set=["train.size=2", "text=12"],
        seeds="1,2",
        config="base.yaml",
        out="runs/x",
    )
    assert sweep.axes == {"model.n_embd": [64, 128], "train.betas": [(0.9, 0.95), (0.8, 0.9)]}
    assert sweep.fixed == {"train.size": 2, "train.text": "12"} and sweep.seeds == (1, 2)
    assert (sweep.config, sweep.out) == ("base.yaml", "runs/x")
    assert sweep_of("", each=["n_embd=8,16"]).changes == {
        "n_embd=8": {"model.n_embd": 8},
        "n_embd=16": {"model.n_embd": 16},
    }
    sampled = sweep_of("", random=["dropout=0.1,0.2,log"], points="2", random_seed="5")
    assert sampled.ranges == {"model.dropout": Range(0.1, 0.2, log=True)}
    assert (sampled.n_combinations, sampled.random_seed) == (2, 5)


def test_flags_override_the_settings_of_the_file(sweep_of):
    text = "grid: {n_embd: [8], dropout: [0.1]}\nset: {train.size: 7}\nseeds: [1]"
    sweep = sweep_of(text, grid=["d_model=16,32", "train.size=1,2"], set=["dropout=0.2"], seeds="3")
    assert sweep.axes == {"model.n_embd": [16, 32], "train.size": [1, 2]}
    assert sweep.fixed == {"model.dropout": 0.2} and sweep.seeds == (3,)
    named = sweep_of("each: {x: {n_embd: 8}, n_embd: [9]}", each=["n_embd=10"])
    assert named.changes == {"x": {"model.n_embd": 8}, "n_embd=10": {"model.n_embd": 10}}


@pytest.mark.parametrize(
    "text, flags, message",
    [
        ("", {"grid": ["n_embd"]}, "--grid n_embd: expected a setting and ="),
        ("", {"grid": ["n_embdd=1"]}, r"--grid n_embdd: unknown key n_embdd \(did you mean"),
        ("", {"grid": ["n_embd=1", "d_model=2"]}, "--grid d_model: model.n_embd is already given"),
        ("", {"grid": ["n_embd=1,x"]}, "--grid n_embd: expected int, got 'x'"),
        ("", {"grid": ["n_embd="]}, "--grid n_embd: expected a list of values"),
        ("", {"grid": ["text=[a"]}, "--grid text: expected a list of values"),
        ("", {"set": ["n_embd=0"]}, "--set n_embd: must be at least 1"),
        ("", {"seeds": "1,x"}, "--seeds: expected int"),
        ("", {"random": ["dropout=0,0.5"]}, "the flags: random needs the number of points"),
        ("each: {n_embd: [1]}", {"grid": ["dropout=0"]}, "has grid and each"),
        ("random: {n_embd: [1, 2]}", {}, "sweep.yaml: random needs the number of points, such as"),
        ("random: {n_embd: [1, 2]}", {"points": "0"}, "random needs the number of points"),
        ("random: {n_embd: [1, 2]}", {"points": "x"}, "--points: expected int"),
        ("grid: {n_embd: [1, 2]}\npoints: 3", {}, "points has an effect only with random"),
        (
            "grid: {n_embd: [1, 2]}\nrandom_seed: 3",
            {},
            "random_seed has an effect only with random",
        ),
        ("random: {n_embd: [2, 1]}\npoints: 1", {}, "sweep.yaml:1: random.n_embd: 2 is not below"),
        ("random: {n_embd: [1, 2, 3]}\npoints: 1", {}, r"expected \[low, high\]"),
        ("random: {n_embd: 3}\npoints: 1", {}, r"expected \[low, high\]"),
        ("random: {n_embd: []}\npoints: 1", {}, r"expected \[low, high\]"),
        ("random: {text: [a, b]}\npoints: 1", {}, "another, choice"),
        ("random: {text: [choice]}\npoints: 1", {}, "expected a list of values"),
        ("random: {dropout: [0, 0.5, log]}\npoints: 1", {}, "must start above 0"),
        ("random: {dropout: [0, 1.5]}\npoints: 1", {}, "random.dropout: must be below 1"),
        ("random: {n_embd: [1, 2]}\ngrid: {dropout: [0]}\npoints: 1", {}, "has grid and random"),
    ],
)
def test_errors_name_the_flag(sweep_of, text, flags, message):
    with pytest.raises(UserError, match=message):
        sweep_of(text, **flags)
