"""User errors: one line on stderr with a hint, exit status 2, and no files left behind."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sample
import train
from data import prepare
from tests.helpers.runs import copy, flags, make_text, training
from tok.tokenizer import BPETokenizer
from utils import errors
from utils.run import checkpoint

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]
Fails = Callable[..., str]


def on_folder(tmp_path: Path, data: Path) -> list[str]:
    """Return the same arguments for a prepared folder."""
    return [w for w in training(tmp_path) if not w.startswith("--data.")] + [f"--data.dir={data}"]


FEW = {"model__vocab_size": 257}  # any text has enough pairs for one merge

TEXTS = [
    (None, {}, "text.txt: No such file"),
    (b"", {}, "text.txt: no text: the files are empty"),
    (b"\n\n\n", {}, "text.txt: no text: the files are empty"),
    (
        b"a\n\nb",
        FEW | {"data__split": "bytes", "model__block_size": 1},
        "val part holds no text; .* another --data.val_fraction$",
    ),
    (b"a", {"data__split": "documents"}, "use --data.split bytes, or name --data.doc_sep$"),
    (
        b"fine\nthen \xff\xfe",
        {},
        r"text.txt: not UTF-8 at byte 10 \(0xff\); .* pass --data.errors bytes",
    ),
    ("directory", {}, "no files in this folder"),
    (b"one two", {}, "model.vocab_size: vocabulary 300 can't be filled"),
    (b"one two", FEW, "fewer than model.block_size 32"),
    (make_text(40).encode(), {"model__block_size": 4096}, "fewer than model.block_size 4096"),
    (
        make_text(40).encode(),
        {"model__vocab_size": 3000},
        r"model.vocab_size: vocabulary 3000 can't .* at most (\d+); .* set --model.vocab_size \1$",
    ),
    (make_text(40).encode(), {"model__vocab_size": 256}, "model.vocab_size: vocabulary 256 is too"),
    (make_text(40).encode(), {"model__vocab_size": 100}, "model.vocab_size: vocabulary 100 is too"),
    (make_text(40).encode(), {"data__windows": "documents"}, "more than model.block_size 32"),
    (make_text(40).encode(), {"data__stride": 33}, "data.stride 33 is more than"),
]


@pytest.mark.parametrize(("text", "changes", "message"), TEXTS)
def test_texts(
    text: bytes | str | None, changes: Settings, message: str, fails: Fails, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    if isinstance(text, bytes):
        path.write_bytes(text)
    elif text == "directory":
        path.mkdir()
    line = fails(train.main, training(tmp_path, **changes))
    assert re.search(message, line), line


@pytest.mark.parametrize("empty", ["train", "val"])
def test_the_error_names_the_empty_file(empty: str, fails: Fails, tmp_path: Path) -> None:
    for name, part in (("text", "train"), ("other", "val")):
        text = "\n" if part == empty else make_text(40)
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    line = fails(train.main, training(tmp_path, data__val_files=tmp_path / "other.txt"))
    name = tmp_path / ("text.txt" if empty == "train" else "other.txt")
    assert f"error: {name}: no text in it for the {empty} part" in line


SETTINGS = [
    (["--model.n_layers", "3"], "did you mean --model.n_layer"),
    (["--optim.learning_rat=1"], "did you mean --optim.lr?"),
    (["--optim.learning-rate=1"], "did you mean --optim.lr?"),
    (["--learning_rate=1"], "did you mean --optim.lr?"),
    (["--model.n_layer", "two"], "--model.n_layer: expected int, got 'two'"),
    (["--model.n_layer", "1.5"], "expected int"),
    (["--optim.lr", "0"], "--optim.lr: must be above 0"),
    (["--optim.lr", "nan"], "optim.lr"),
    (["--model.dropout", "1"], "must be below 1"),
    (["--model.n_head", "3"], "model.n_embd 16 is not a multiple of model.n_head 3"),
    (["--train.amp", "bf61"], "did you mean bf16"),
    (["--train.device", "gpu"], "device gpu: not available"),
    (["--config", "none.yaml"], "none.yaml: No such file"),
    (["--data.tokenizer", "none.json"], "none.json: No such file"),
    (["--data.dir", "none"], "data.files has an effect only without data.dir"),
    (["--optim.schedule=constant", "--optim.min_lr_ratio=0.1"], "optim.min_lr_ratio has an effect"),
    (["--model.position=learned", "--model.rope_theta=3"], "only with model.position rope"),
    (["--model.bigram_dropout=0.5"], "only with model.bigram_rows"),
    (["--train.sample_prompt=A", "--train.sample_tokens=0"], "only with train.sample_tokens"),
    (["--run-dir", "other"], "--run_dir: given twice"),
    (["--resume"], "no run to resume"),
    (["extra"], "unknown argument"),
]


@pytest.mark.parametrize(("argv", "message"), SETTINGS)
def test_flags(argv: list[str], message: str, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(make_text(60), encoding="utf-8")
    given = {word.partition("=")[0] for word in argv}
    same = [word for word in training(tmp_path) if word.partition("=")[0] not in given]
    assert message in fails(train.main, same + argv)


YAML = [
    (
        "optim:\n  learning_rat: 1e-3\n",
        ":2: unknown key optim.learning_rat (did you mean optim.lr?)",
    ),
    ("learning_rat: 1e-3\n", ":1: unknown key learning_rat (did you mean optim.lr?)"),
    (
        "train:\n  learning_rate: 1\n",
        ":2: unknown key train.learning_rate (did you mean optim.lr?)",
    ),
    ("model:\n  d_model: 64\n", ":2: unknown key model.d_model (did you mean model.n_embd?)"),
    ("? [a]\n: 1\n", ":1: a key must be a plain name"),
    ("model:\n  n_layer: '2'\n", ":2: model.n_layer: expected int, got '2'"),
    ('optim:\n  lr: "1e-3"\n', ":2: optim.lr: expected number, got '1e-3'"),
    ("train:\n  seed: 1\n  seed: 2\n", ":3: train.seed given twice (first on line 2)"),
    ("train:\n  grad_accum_steps: 0\n", ":2: train.grad_accum_steps: must be at least 1"),
    ("train: [1\n", ":2: not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), YAML)
def test_config_files(text: str, message: str, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(make_text(60), encoding="utf-8")
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    line = fails(train.main, training(tmp_path, "--config", str(tmp_path / "c.yaml")))
    assert f"c.yaml{message}" in line


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_damaged_checkpoints(damage: str, fails: Fails, done: Path, tmp_path: Path) -> None:
    run = copy(done, tmp_path)
    for name in ("last.pt", "best.pt"):
        path = run / name
        if damage == "flipped":
            flip(path)
        else:
            raw = path.read_bytes()
            content = {"cut": raw[: len(raw) // 2], "text": b"hello", "empty": b""}
            path.write_bytes(content[damage])
    resume = ["--run_dir", str(run), "--resume", "--train.max_steps", "6"]
    line = fails(train.main, resume)
    assert "last.pt: " in line and f"copy {run / 'best.pt'} over it" in line and "()" not in line
    assert "best.pt: " in fails(sample.main, ["--run", str(run), "--device", "cpu"])


def test_a_checkpoint_of_another_model(fails: Fails, done: Path, tmp_path: Path) -> None:
    run = copy(done, tmp_path)
    state = checkpoint.load(run / "last.pt")
    state["model"]["final_norm.weight"] = torch.ones(17)
    for name in ("last.pt", "best.pt"):
        checkpoint.save(run / name, state)
    resume = ["--run_dir", str(run), "--resume", "--train.max_steps", "6"]
    line = fails(train.main, resume)
    assert "last.pt: " in line and "final_norm.weight has shape (17,)" in line
    assert "final_norm.weight has shape" in fails(
        sample.main, ["--run", str(run), "--device", "cpu"]
    )
    state["config"]["model"]["n_embd"] = 34
    checkpoint.save(run / "last.pt", state)
    assert "model.n_embd was 34 in" in fails(train.main, resume)
    del state["optimizer"]
    checkpoint.save(run / "last.pt", state)
    assert "last.pt: not a training checkpoint, it has no optimizer" in fails(train.main, resume)


def test_another_tokenizer(fails: Fails, done: Path, settings: Settings, tmp_path: Path) -> None:
    run = copy(done, tmp_path)
    other = BPETokenizer.train(make_text(seed=5) + "zebra " * 9, vocab_size=300)
    other.save(tmp_path / "other.json")
    own = BPETokenizer.load(run / "tokenizer.json").identity[:12]
    data = tmp_path / "other"
    text = str(settings["data.files"])
    config = prepare.DataConfig(
        files=(text,), doc_sep="blank-line", tokenizer=str(tmp_path / "other.json")
    )
    prepare.prepare(config, None, data)
    shutil.copy(tmp_path / "other.json", run / "tokenizer.json")
    line = fails(sample.main, ["--run", str(run), "--device", "cpu"])
    assert other.identity[:12] in line and own in line
    for steps in ("4", "6"):
        line = fails(train.main, ["--run_dir", str(run), "--resume", "--train.max_steps", steps])
        assert f"{run / 'tokenizer.json'}: another tokenizer than the run's" in line
        assert other.identity[:12] in line and own in line
    shutil.copy(done / "tokenizer.json", run / "tokenizer.json")
    resume = ["--run_dir", str(run), "--resume", "--train.max_steps", "6"]
    line = fails(train.main, [*resume, "--data.tokenizer", str(tmp_path / "other.json")])
    assert other.identity[:12] in line and own in line
    shutil.copy(run / "config.yaml", tmp_path / "c.yaml")
    shutil.copy(done / "tokenizer.json", data / "tokenizer.json")
    assert "another tokenizer than the run's" in fails(train.main, on_folder(tmp_path, data))


def test_prepared_data_that_was_damaged(fails: Fails, settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = str(settings["data.files"])
    config = prepare.DataConfig(files=(text,), doc_sep="blank-line")
    prepare.prepare(config, 300, data)
    argv = on_folder(tmp_path, data)
    raw = (data / "val.npy").read_bytes()
    other = raw[:-2] + b"\x60\xea"  # of the same length, with an id outside the vocabulary
    for changed in (raw[:-4], other, (data / "train.npy").read_bytes()):
        (data / "val.npy").write_bytes(changed)
        assert "val.npy: not what data.prepare wrote" in fails(train.main, argv)
    os.remove(data / "val.npy")
    assert "val.npy: No such file" in fails(train.main, argv)
    (data / "meta.json").write_bytes(b"{}")
    assert "not a prepared folder" in fails(train.main, argv)
    (data / "tokenizer.json").write_bytes(b"{}")
    assert "not a prepared folder" in fails(train.main, argv)


def test_a_vocabulary_that_is_not_the_tokenizers(fails: Fails, tmp_path: Path) -> None:
    text = make_text(60)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    BPETokenizer.train(text, vocab_size=280).save(tmp_path / "tok.json")
    argv = training(tmp_path, data__tokenizer=tmp_path / "tok.json")
    assert "set --model.vocab_size 280" in fails(train.main, argv)


def test_a_run_folder_that_can_not_be_written(
    fails: Fails, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, why in [("file", "file: this is a file"), ("file/x", "file is not a folder")]:
        assert f"{why}; name a" in fails(train.main, flags(tmp_path / name, settings))
    (tmp_path / "text.txt").write_text(make_text(60), encoding="utf-8")
    line = fails(train.main, training(tmp_path, data__cache_dir=tmp_path / "file" / "x"))
    assert "file" in line


@pytest.mark.parametrize("call", [12, 15, 18])
def test_a_full_disk_in_the_middle_of_a_run(
    call: int, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original, calls = tmp_path / "run", os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as stop:
        errors.run_cli(lambda _: train.main(flags(run, settings)))
    assert stop.value.code == 2
    monkeypatch.setattr(os, "fsync", original)
    assert not list(run.glob(".*"))
    assert checkpoint.load(run / "last.pt")["step"] < 9
    assert train.main(flags(run, settings, "--resume")) == 0


def test_as_a_program(run_python: Callable[..., object], tmp_path: Path) -> None:
    argv = training(tmp_path, "--model.n_layers", "2")
    finished = run_python("train.py", *argv, timeout_s=200)
    assert finished.returncode == 2 and finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1 and "--model.n_layer" in finished.stderr
    assert not list(tmp_path.iterdir())
