"""scripts.sweep.grid: the file of a sweep, and its points."""

from __future__ import annotations

import pytest

from scripts.sweep.grid import Sweep, folder_name, short_names
from scripts.sweep.grid_file import load_sweep
from tests.scripts.sweep.helpers import Settings
from utils.errors import UserError


@pytest.fixture
def sweep_of(tmp_path):
    def load(text: str) -> Sweep:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return load_sweep(str(path), Settings)

    return load


def test_every_combination_in_the_order_of_the_file(sweep_of):
    sweep = sweep_of(
        "config: base.yaml\nout: runs/here\nseeds: [3, 1]\n"
        "grid:\n  dropout: [0, 0.5]\n  d_model: [8, 16]\nset: {train.size: 7}\n"
    )
    assert (sweep.config, sweep.out) == ("base.yaml", "runs/here")
    points = sweep.points()
    assert [tuple(point.settings.values()) for point in points] == [
        (7, dropout, width, seed) for dropout in (0.0, 0.5) for width in (8, 16) for seed in (3, 1)
    ]
    assert list(points[0].settings) == ["train.size", "model.dropout", "model.n_embd", "train.seed"]
    assert list(points[0].values) == ["model.dropout", "model.n_embd"] and points[0].seed == 3
    assert points[0].name == "dropout=0.0_n_embd=8_seed=3"
    assert len({point.name for point in points}) == 8


@pytest.mark.parametrize(
    "text",
    [
        "grid: {model.n_embd: [8, 16]}",
        "grid: {n_embd: [8, 16]}",
        "grid: {d_model: [8, 16]}",
        "grid:\n  model:\n    n_embd: [8, 16]",
    ],
)
def test_a_setting_has_several_names(sweep_of, text):
    assert sweep_of(text).axes == {"model.n_embd": [8, 16]}


def test_one_change_at_a_time(sweep_of):
    sweep = sweep_of(
        "set: {dropout: 0.1}\nseeds: [1, 2]\neach:\n  no dropout: {dropout: 0}\n"
        "  wide, v0.2: {model: {n_embd: 128}, train.size: 2}\n  n_embd: [8, 16]\n"
    )
    found = [
        (point.name, point.change, point.settings) for point in sweep.points() if point.seed == 2
    ]
    dropout, seed = {"model.dropout": 0.1}, {"train.seed": 2}
    assert found == [
        ("base_seed=2", "base", dropout | seed),
        ("no-dropout_seed=2", "no dropout", {"model.dropout": 0.0} | seed),
        (
            "wide-v0.2_seed=2",
            "wide, v0.2",
            dropout | {"model.n_embd": 128, "train.size": 2} | seed,
        ),
        ("n_embd=8_seed=2", "n_embd=8", dropout | {"model.n_embd": 8} | seed),
        ("n_embd=16_seed=2", "n_embd=16", dropout | {"model.n_embd": 16} | seed),
    ]
    assert sweep.setting_names == ["model.dropout", "model.n_embd", "train.size"]
    assert len(sweep.points()) == 10


def test_changes_of_settings_with_the_same_last_part_have_full_names(sweep_of):
    sweep = sweep_of("each: {model.size: [2], train.size: [2]}")
    assert list(sweep.changes) == ["model.size=2", "train.size=2"]


def test_a_change_named_like_the_folder_of_logs_gets_another_folder(sweep_of):
    points = sweep_of("each: {logs: {n_embd: 8}, results.csv: {n_embd: 9}}").points()
    assert [point.name for point in points] == ["base", "logs_point=1", "results.csv_point=2"]


def test_a_seed_is_not_a_change(sweep_of):
    with pytest.raises(UserError, match="a seed is not a change; give seeds"):
        sweep_of("each: {train.seed: [2]}")


def test_an_empty_file_is_one_point(sweep_of):
    (point,) = sweep_of("").points()
    assert point.name == "base" and point.settings == {} and point.seed is None


def test_pairs_and_texts_in_folder_names(sweep_of):
    sweep = sweep_of(
        'grid:\n  betas: [[0.9, 0.95], [0.8, 0.9]]\n  text: ["../a b", "../a/b", ""]\n'
    )
    names = [point.name for point in sweep.points()]
    assert names[0] == "betas=0.9+0.95_text=a-b" and names[2] == "betas=0.9+0.95_text=empty"
    assert len(set(names)) == 6 and not any("/" in name for name in names)


def test_long_names_are_cut_and_stay_different():
    sweep = Sweep(axes={"train.text": ["x" * 300 + "1", "x" * 300 + "2"]})
    names = [point.name for point in sweep.points()]
    assert len(set(names)) == 2 and max(map(len, names)) < 140
    assert folder_name({}) == "base"


def test_an_ambiguous_last_part_is_not_a_short_name():
    assert "size" not in short_names(["model.size", "train.size"])


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "grid: {model.n_embdd: [1]}",
            r"sweep.yaml:1: unknown key grid.model.n_embdd \(did you mean",
        ),
        ("gird: {n_embd: [1]}", r"sweep.yaml:1: unknown key gird \(did you mean grid\?\)"),
        ("grid: {size: [1]}", "unknown key grid.size"),
        ("grid: {run_dir: [a]}", "unknown key grid.run_dir"),
        ("\ngrid:\n  n_embd: 8", r"sweep.yaml:3: grid.n_embd: expected a list of values"),
        ("grid: {n_embd: []}", "expected a list of values"),
        ("grid: {n_embd: [8, x]}", r"grid.n_embd: expected int, got 'x'"),
        ("grid: {dropout: [0.1, 1.5]}", "grid.dropout: must be below 1, got 1.5"),
        ("grid: {n_embd: [8, 8]}", "a value is given twice"),
        ("grid: {n_embd: [8], d_model: [9]}", "model.n_embd is already given by .*sweep.yaml:1: "),
        (
            "grid: {n_embd: [8]}\nset: {n_embd: 9}",
            "sweep.yaml:2: .* already given by .*sweep.yaml:1: grid.n_embd",
        ),
        ("grid: {n_embd: [8]}\ngrid: {dropout: [0]}", "grid given twice"),
        ("set: {n_embd: [8]}", "expected int"),
        ("seeds: [1]\nset: {seed: 2}", "seeds are already given"),
        ("seeds: [1, 1]", "seeds: must be different"),
        ("seeds: [-1]", "seeds: must be different"),
        ("config: 3", "config: expected text"),
        ("each: {x: {n_embdd: 1}}", r"sweep.yaml:1: unknown key each.x.n_embdd \(did you mean"),
        ("each: {n_embd: 8}", "each.n_embd: expected a list of values"),
        ("each:\n  x: {n_embd: [8]}", "sweep.yaml:2: each.x.n_embd: expected int"),
        ("each: {x: {dropout: 2}}", "each.x.dropout: must be below 1"),
        (
            "each: {x: {n_embd: 8, d_model: 9}}",
            "model.n_embd is already given by .*sweep.yaml:1: ",
        ),
        ("each: {n_embd=8: {dropout: 0}, n_embd: [8]}", "a change n_embd=8 already exists"),
        ("each: {x: {}}", "each: x: a change without settings"),
        ("each: {x: {n_embd: 1}, x: {n_embd: 2}}", "each.x given twice"),
        ("each: {base: {n_embd: 1}}", "base is the name of the point without a change"),
        ("each: {n_embd: [1]}\ngrid: {n_embd: [2]}", "has grid and each; .* only one of them"),
        ("each: {seed: [2]}\nseeds: [1]", "seeds are already given"),
        ("each: [1]", "must hold"),
        ("each: {x: ", "not valid YAML"),
        ("grid: [1]", "must hold `name: value` lines"),
    ],
)
def test_errors_name_the_line(sweep_of, text, message):
    with pytest.raises(UserError, match=message):
        sweep_of(text)
