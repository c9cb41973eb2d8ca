"""Write a golden file: a stopped run and its prepared data, as a version of llm-tiny writes them.

    python tests/golden/make.py CHECKOUT NAME [SETTING ...]

CHECKOUT is `.`, or a checkout of an older version; a setting is --optim.name=muon, for example.
tests/golden/NAME.tar.xz then holds `run/`, a run that Ctrl-C stopped at step 3 of 6; `data/`, its
prepared data; and `expected.json`: what that version itself computes from the two.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

TEXT = "Once upon a time, Anna's 3 cats \u2014 and a \U0001f98a! \n\n  slept.\tThe end"
SETTINGS = """--data.dir=data --model.vocab_size=264 --model.block_size=8 --model.n_layer=1
 --model.n_head=1 --model.n_embd=2 --model.tie_weights=true --model.dropout=0.1 --train.max_steps=6
 --train.batch_size=2 --train.eval_every_steps=2 --train.log_every_steps=1 --train.sample_tokens=5
 --train.num_threads=1""".split()
# Run a program with Ctrl-C in its third training step.
STOP = """import os, runpy, signal, sys, torch
backward, calls = torch.Tensor.backward, []
def counted(*args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return backward(*args, **kwargs)
torch.Tensor.backward = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def digest(path: Path) -> str:
    """Return the sha256 of the weights in a checkpoint."""
    weights = torch.load(path, weights_only=True)["model"]
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode() + weights[name].numpy().tobytes())
    return hasher.hexdigest()


def losses(path: Path) -> dict[str, list[str]]:
    """Return training and validation loss of each step in a metrics.csv."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row["step"]: [row["train_loss"], row["val_loss"]] for row in csv.DictReader(file)}


def make(checkout: Path, here: Path, settings: list[str]) -> None:
    """Run the programs of `checkout` in the folder `here`, with relative paths only."""

    def call(*words: str, status: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=here,
            env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            input=stdin,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == status, (words, done.returncode)
        return done.stdout

    (here / "code").symlink_to(checkout)  # run.json repeats the path of train.py
    (here / "stop.py").write_text(STOP, encoding="utf-8")
    stories = call("-m", "data.stories", "--bytes", "3000", "--seed", "1")
    (here / "text.txt").write_text(stories, encoding="utf-8")
    call("-m", "tok.bpe", "train", "text.txt", "--vocab-size", "264", "--out", "tok.json")
    call("-m", "data.prepare", "text.txt", "--tokenizer", "tok.json", "--out", "data")
    train = "code/train.py"
    call("stop.py", train, "--run_dir", "run", *SETTINGS, *settings, status=130)
    shutil.copytree(here / "run", here / "resumed")
    call(train, "--run_dir", "resumed", "--resume")
    encode = ("-m", "tok.bpe", "encode", "--tokenizer", "data/tokenizer.json")
    sample = ("code/sample.py", "--run", "run", "--steps", "12", "--temp", "0")
    expected = {
        "text": TEXT,
        "ids": [int(word) for word in call(*encode, stdin=TEXT).split()],
        "train_ids": np.load(here / "data" / "train.npy").tolist()[:40],
        "val_ids": np.load(here / "data" / "val.npy").tolist()[:40],
        "sample": call(*sample, "--prompt", "Once"),
        "weights": digest(here / "run" / "last.pt"),
        "losses_after_resume": losses(here / "resumed" / "metrics.csv"),
        "weights_after_resume": digest(here / "resumed" / "last.pt"),
    }
    (here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    record = here / "run" / "run.json"
    text = record.read_text(encoding="utf-8").replace(platform.platform(), "Linux")
    record.write_text(text, encoding="utf-8")
    for name in ("loss.png", "lock"):
        (here / "run" / name).unlink(missing_ok=True)


def without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the entry of an archive without names, numbers and times of this machine."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def main(checkout: str, name: str, *settings: str) -> None:
    """Make the files, and pack them."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(checkout).resolve(), Path(folder), list(settings))
        target = Path(__file__).with_name(f"{name}.tar.xz")
        with tarfile.TarFile.xzopen(target, "w", preset=9) as archive:
            for part in ("run", "data", "expected.json"):
                archive.add(Path(folder) / part, part, filter=without_owner)


if __name__ == "__main__":
    main(*sys.argv[1:])
