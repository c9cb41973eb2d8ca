"""Input made to do harm: forged checkpoints, and settings that no one would type by mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import sample
import train
from scripts.eval import __main__ as evaluate
from tests.helpers.runs import copy, flags, make_text, training
from utils import errors
from utils.errors import UserError
from utils.run import checkpoint

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]
Fails = Callable[..., str]

FORGED = [
    ("format", torch.zeros(3), "format of type Tensor, this program reads 1"),
    ("format", True, "format of type bool"),
    ("step", "a", "its step has"),
    ("step", -1, "its step has"),
    ("tokens", 10**400, "damaged|its tokens has"),
    ("last_val", None, "its last_val has"),
    ("elapsed_s", float("nan"), "its elapsed_s has"),
    ("threads", 10**9, "its threads has"),
    ("ranks", 0, "its ranks has"),
    ("val_step", 1.5, "its val_step has"),
    ("training_weights", {"x": 1}, "its training_weights has"),
    ("torch", {}, "its torch has"),
    ("config", {"train": []}, "its config has"),
    ("config train eval_every_steps", 0, "its config has"),
    ("config optim", "x", "its config has"),
    ("pending_evaluation", {"step": 3}, "its pending_evaluation has"),
    ("scaler", [1], "its scaler has"),
    ("model", {1: torch.zeros(2)}, "its model has"),
    ("model head.weight", 3, "its model has"),
    ("optimizer", [1], "its optimizer has"),
    ("optimizer param_groups", [], "its optimizer state does not fit"),
    ("optimizer param_groups", [{"params": torch.zeros(3)}], "its optimizer state does not fit"),
    ("optimizer state", {0: {"step": torch.zeros(())}}, "its optimizer state does not fit"),
    ("optimizer state", {99: {}}, "its optimizer state does not fit"),
]


@pytest.mark.parametrize(("where", "value", "message"), FORGED)
def test_a_checkpoint_with_a_valid_checksum_and_wrong_types(
    where: str, value: object, message: str, fails: Fails, done: Path, tmp_path: Path
) -> None:
    run = copy(done, tmp_path)
    state: Any = checkpoint.load(run / "last.pt")
    *outer, last = where.split()
    part = state
    for key in outer:
        part = part[key]
    part[last] = value
    checkpoint.save(run / "last.pt", state)
    line = fails(train.main, ["--run_dir", str(run), "--resume", "--train.max_steps", "6"])
    assert "last.pt: " in line and re.search(message, line)
    if not where.startswith("optimizer "):
        arguments = ["--run", str(run), "--device", "cpu", "--checkpoint", "last"]
        assert re.search(message, fails(sample.main, arguments))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocab_size", 10**12, "bytes of memory"),
        ("n_layer", 10**9, "only [0-9]+ weights"),
        ("block_size", 10**12, "bytes of memory"),
        ("mlp_ratio", 1e308, "must be at most"),
        ("vocab_size", 10**8, "has shape|bytes of memory"),
    ],
)
def test_a_checkpoint_of_a_giant_model_is_refused_before_it_is_built(
    name: str, value: object, message: str, fails: Fails, done: Path, tmp_path: Path
) -> None:
    run = copy(done, tmp_path)
    state = checkpoint.load(run / "best.pt")
    state["config"]["model"][name] = value
    checkpoint.save(run / "best.pt", state)
    assert re.search(message, fails(sample.main, ["--run", str(run), "--device", "cpu"]))


@pytest.mark.parametrize(
    "value", ["!!timestamp 3", "!!bool 3", "!!float ''", "9" * 400, "[" * 500, "1e400"]
)
@pytest.mark.parametrize("name", ["optim.lr", "model.n_layer", "train.compile"])
def test_odd_values_of_settings(name: str, value: str, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(make_text(40), encoding="utf-8")
    assert f"--{name}: " in fails(train.main, training(tmp_path, f"--{name}={value}"))
    section, key = name.split(".")
    (tmp_path / "c.yaml").write_text(f"{section}:\n  {key}: {value}\n", encoding="utf-8")
    assert "c.yaml" in fails(train.main, ["--config", str(tmp_path / "c.yaml")])


def test_eval_reads_windows_as_long_as_the_model_of_the_checkpoint(
    done: Path, tmp_path: Path
) -> None:
    """config.yaml may differ from the settings in the checkpoint, which belong to its weights."""
    run = copy(done, tmp_path)
    state = checkpoint.load(run / "last.pt")
    state["config"]["model"]["block_size"] = 2
    checkpoint.save(run / "last.pt", state)
    words = ["--run", str(run), "--device", "cpu", "--checkpoint", "last"]
    assert evaluate.main(words) == 0
    assert evaluate.main([*words, "--text", str(run / "config.yaml")]) == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.n_layer", "1000000000", "bytes of memory"),
        ("model.block_size", "1e15", "bytes of memory"),
        ("train.batch_size", "1e15", "bytes of memory"),
        ("train.num_threads", "1e6", "at most 4096"),
        ("train.seed", "1e308", "at most 9223372036854775807"),
        ("model.mlp_ratio", "1e308", "at most"),
        ("model.softcap", "1e308", "not finite"),
    ],
)
def test_giant_settings(
    name: str, value: str, message: str, tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(UserError, match=message):
        train.main(flags(tmp_path / "run", settings | {name: value}))


def test_out_of_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> int:
        torch.empty(2**50)
        return 0

    with pytest.raises(SystemExit) as stop:
        errors.run_cli(main)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    assert err.startswith("error: not enough memory")
