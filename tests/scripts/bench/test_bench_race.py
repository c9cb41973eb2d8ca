"""scripts.bench race against a fake nanoGPT with the same files, flags, output and checkpoint."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.bench import __main__ as script
from scripts.bench.checkout import load_module
from scripts.bench.process import run_timed
from scripts.bench.race import nanogpt, plot
from tests.helpers.runs import TINY, make_text
from utils.errors import UserError

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class GPTConfig:
    block_size: int = 1
    vocab_size: int = 1

class GPT(nn.Module):  # the next character depends on the current one and on its position
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.place = nn.Embedding(config.block_size, config.vocab_size)
        print("a line on stdout")

    def forward(self, idx, targets=None):
        return self.table(idx) + self.place.weight[: idx.shape[1]], None
"""
TRAIN = """
import os, pickle, sys
import numpy as np
import torch
from model import GPT, GPTConfig
flags = dict(word[2:].split("=") for word in sys.argv[2:])
assert sys.argv[1] == "config/train_shakespeare_char.py" and flags["device"] == "cpu", sys.argv
seed_offset = 0
torch.manual_seed(1337 + seed_offset)
with open("data/shakespeare_char/meta.pkl", "rb") as file:
    vocab_size = pickle.load(file)["vocab_size"]
ids = np.fromfile("data/shakespeare_char/train.bin", np.uint16).astype(np.int64)
arguments = {"block_size": 4, "vocab_size": vocab_size}
model = GPT(GPTConfig(**arguments))
for step, loss in ((0, 3.0), (250, 2.5)):
    print(f"step {step}: train loss 9.9999, val loss {loss:.4f}")
os.makedirs(flags["out_dir"])
state = {"model": model.state_dict(), "model_args": arguments, "iter_num": 2000}
torch.save(state, flags["out_dir"] + "/ckpt.pt")
"""
PREPARE = """
import pickle
import numpy as np
import requests
with open("input.txt") as file:
    text = file.read()
place = {c: i for i, c in enumerate(sorted(set(text)))}
ids = np.array([place[c] for c in text], np.uint16)
ids[: len(ids) * 9 // 10].tofile("train.bin")
with open("meta.pkl", "wb") as file:
    pickle.dump({"vocab_size": len(place)}, file)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "config").mkdir()
    (folder / nanogpt.DATASET).mkdir(parents=True)
    for name, text in (
        ("model.py", MODEL),
        ("train.py", TRAIN),
        ("configurator.py", ""),
        (nanogpt.CONFIG, ""),
        (nanogpt.DATASET / "prepare.py", PREPARE),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(make_text() + "naïve – ünd\n" * 20, encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "ours.yaml"
    ours = {name: value for name, value in TINY.items() if not name.startswith("data.")}
    lines = [f"  {name.split('.')[1]}: {value}" for name, value in ours.items()]
    sections = {name.split(".")[0] for name in ours}
    text = "".join(
        f"{section}:\n"
        + "".join(
            f"{line}\n"
            for line, name in zip(lines, ours, strict=True)
            if name.startswith(f"{section}.")
        )
        for section in sorted(sections)
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_a_race(checkout, corpus, config, tmp_path, capsys):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    out, picture = tmp_path / "race.json", tmp_path / "race.png"
    argv = ["race", "--nanogpt", checkout, "--corpus", corpus, "--config", config]
    argv += ["--json", out, "--plot", picture]
    assert script.main([str(word) for word in argv]) == 0
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    record = json.loads(out.read_text(encoding="utf-8"))
    table, progress = capsys.readouterr()
    assert [line.split(":")[1].strip() for line in progress.splitlines()[:2]] == [
        "nanoGPT",
        "ours",
    ]
    assert picture.read_bytes()[:4] == b"\x89PNG"

    raw = corpus.read_bytes()
    assert record["train_bytes"] + 1 + record["scored_bytes"] == len(raw)
    assert record["scored_bytes"] + 1 == pytest.approx(len(raw) / 10, abs=3)
    for one in record["nanogpt"] + record["ours"]:
        seconds = [point[0] for point in one["curve"]]
        assert 0 < seconds[0] <= seconds[-1] <= one["seconds"]
    theirs, ours = record["nanogpt"], record["ours"]
    val = raw[record["train_bytes"] :].decode()
    per_char = record["scored_bytes"] + 1
    assert theirs[0]["curve"][0][1] == pytest.approx(3.0 / math.log(2) * len(val) / per_char)
    assert ours[0]["steps"] == 9 and len(ours[0]["curve"]) == 4  # steps 0, 4, 8, 9
    # The log also counts the end-of-text token and the first byte, which matters on a short text.
    assert ours[0]["curve"][-1][1] == pytest.approx(ours[0]["bits_per_byte"], rel=0.01)
    assert ours[0]["bits_per_byte"] != ours[0]["zeroed_bits_per_byte"]
    target = theirs[0]["bits_per_byte"]
    assert record["target_bits_per_byte"] == target
    assert record["reached_s"] == [next(s for s, bits in ours[0]["curve"] if bits <= target)]
    assert record["reached_share"] == record["reached_s"][0] / theirs[0]["seconds"]
    assert f"{ours[0]['parameters']:,}" in table and "4-grams of tokens (vocabulary 300)" in table


def test_the_score_of_a_checkpoint_is_the_sum_over_its_windows(checkout, tmp_path):
    whole, val = "the cat sat – naïve", "cat – the"
    module = load_module(checkout / "model.py")
    arguments = {"block_size": 4, "vocab_size": len(set(whole))}
    state = module.GPT(module.GPTConfig(**arguments)).state_dict()
    ids, nats = nanogpt.character_ids(whole, val), 0.0
    (tmp_path / nanogpt.OUT).mkdir()
    shutil.copy(checkout / "model.py", tmp_path)
    torch.save({"model": state, "model_args": arguments}, tmp_path / nanogpt.OUT / "ckpt.pt")
    found, parameters = nanogpt.score_checkpoint(tmp_path, whole, val)
    for t in range(1, len(ids)):  # windows of four: positions 0 to 3
        logits = state["table.weight"][ids[t - 1]] + state["place.weight"][(t - 1) % 4]
        nats -= float(logits.double().log_softmax(0)[ids[t]])
    assert found == pytest.approx(nats, rel=1e-6)
    assert parameters == sum(weight.numel() for weight in state.values())
    with pytest.raises(UserError, match=r"scored: it knows \d+ characters, the text has 6"):
        nanogpt.score_checkpoint(tmp_path, "the cat", "cat")
    (tmp_path / nanogpt.OUT / "ckpt.pt").unlink()
    with pytest.raises(UserError, match="left no checkpoint"):
        nanogpt.score_checkpoint(tmp_path, whole, val)


def test_the_seed_is_set_in_the_copied_train_py(checkout, corpus, tmp_path):
    nanogpt.copy_checkout(checkout, tmp_path / "one", corpus, seed=1)
    nanogpt.copy_checkout(checkout, tmp_path / "three", corpus, seed=3)
    one, three = (tmp_path / name / "train.py" for name in ("one", "three"))
    assert one.read_bytes() == (checkout / "train.py").read_bytes()
    assert three.read_bytes() == one.read_bytes().replace(b"seed(1337", b"seed(1339")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--seeds": "0"}, "--seeds: must be at least 1"),
        ({"--nanogpt": "."}, "not a nanoGPT checkout, it has no train.py"),
        ({"--config": "nowhere.yaml"}, "nowhere.yaml"),
        ({"--plot": "race.gif3"}, "race.gif3: can't write a .gif3 picture; supported: "),
        ({"--plot": "nowhere/race.png"}, "--plot nowhere/race.png: there is no folder nowhere"),
        ({"--json": "nowhere/race.json"}, "--json nowhere/race.json: there is no folder nowhere"),
    ],
)
def test_user_errors_are_reported_before_training(
    changes, message, checkout, corpus, config, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    given = {"--nanogpt": checkout, "--corpus": corpus, "--config": config} | changes
    with pytest.raises(UserError, match=message):
        script.main(["race", *(str(word) for pair in given.items() for word in pair)])


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"a\r\nb" * 9, "carriage returns"), (b"a", "too short"), (b"\xff", "UTF-8")],
)
def test_an_unsuitable_corpus_is_refused(raw, message, checkout, config, tmp_path):
    (tmp_path / "text").write_bytes(raw)
    argv = ["--nanogpt", checkout, "--corpus", tmp_path / "text", "--config", config]
    with pytest.raises(UserError, match=message):
        script.main(["race", *map(str, argv)])


def test_the_error_quotes_the_last_line_of_a_failed_program(checkout, corpus, config, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken)
    (broken / "train.py").write_text("raise SystemExit('no luck today')", encoding="utf-8")
    argv = ["--nanogpt", broken, "--corpus", corpus, "--config", config]
    with pytest.raises(UserError, match="nanoGPT's train.py failed: no luck today"):
        script.main(["race", *map(str, argv)])


def test_reported_values_are_timed_when_they_appear(tmp_path):
    log, code = tmp_path / "log", (
        "import os, time\n"
        "for i in range(3):\n"
        "    print(i, flush=True)\n"
        "    while not os.path.exists(f'seen{i + 1}'): time.sleep(0.01)\n"
    )

    def read_values() -> list[float]:
        values = [float(line) for line in log.read_text(encoding="utf-8").split()]
        (tmp_path / f"seen{len(values)}").touch()  # the program waits for this file
        return values

    command = [sys.executable, "-c", code]
    timed = run_timed("it", command, cwd=tmp_path, env={}, log=log, read_values=read_values)
    assert [value for _, value in timed.values] == [0.0, 1.0, 2.0]
    first, second, third = (seconds for seconds, _ in timed.values)
    assert 0 < first < second < third <= timed.seconds


@pytest.mark.parametrize(("n", "block_size"), [(2, 5), (11, 5), (12, 5), (700, 5)])
def test_windows_contain_every_target_once(n, block_size):
    ids = np.arange(n, dtype=np.uint16)
    pairs = list(nanogpt.consecutive_windows(ids, block_size))
    assert torch.cat([y.flatten() for _, y in pairs]).tolist() == list(range(1, n))
    assert all(torch.equal(x + 1, y) and x.shape[1] <= block_size for x, y in pairs)


def test_the_plot_can_be_read_without_its_source(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, out: saved.append(figure))
    curves = {
        "ours": [[(0, 8.0), (5, 3.0), (9, 2.2)], [(0, 8.0)]],
        "nanogpt": [[(0, 8.0), (6, 4.0)]],
    }
    record = {
        key: [{"curve": curve, "seconds": 10.0, "bits_per_byte": 2.0} for curve in found]
        for key, found in curves.items()
    }
    plot.plot_race(record | {"ngrams": {"4-grams": 2.22}, "corpus": "a.txt"}, tmp_path / "race.png")
    axes, (legend,) = saved[0].axes[0], saved[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ours: score of the checkpoint (2 runs, mean 2.0000)",
        "nanoGPT: score of the checkpoint (1 run, mean 2.0000)",
        "4-grams, counted: 2.2200",
    ]
    lines = axes.get_lines()
    assert lines[0].get_xdata().tolist() == [5, 9]  # no line from the evaluation before training
    assert (lines[0].get_color(), lines[0].get_marker()) != (
        lines[3].get_color(),
        lines[3].get_marker(),
    )
    assert "a.txt" in axes.get_title("left") and "line: evaluations" in axes.get_title("left")
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "seconds since the process started",
        "val bits per byte",
    )
