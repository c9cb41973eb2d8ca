"""Prepare, train and score a copy of a nanoGPT checkout. The checkout itself is not changed."""

import contextlib
import io
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from scripts.bench.checkout import load_module
from scripts.report import last_line
from utils.config.tables import read_table
from utils.errors import UserError

CONFIG = Path("config") / "train_shakespeare_char.py"
DATASET = Path("data") / "shakespeare_char"
USED_FILES = ("train.py", "model.py", "configurator.py", CONFIG, DATASET / "prepare.py")
FLAGS = read_table(Path(__file__).parent.with_name("shapes.yaml"))["race"].split()
OUT = "out-race"
WINDOWS_PER_BATCH = 64  # windows in one forward pass
SEED_LINE = "torch.manual_seed(1337 + seed_offset)"  # nanoGPT has no flag for the seed
LOSS_LINE = re.compile(r"^step \d+: train loss [\d.]+, val loss ([\d.]+)", re.MULTILINE)


def copy_checkout(checkout: Path, folder: Path, corpus: Path, seed: int) -> None:
    """Copy the used files into `folder`, replace nanoGPT's text by the corpus, and run prepare.py.

    nanoGPT's prepare.py imports `requests` but downloads only if the text is missing. An empty
    requests.py next to prepare.py makes the library unnecessary, and a download impossible.

    Raises:
        UserError: prepare.py failed, or the seed can't be set.
    """
    for part in USED_FILES:
        source, target = checkout / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copyfile(corpus, folder / DATASET / "input.txt")
    (folder / DATASET / "requests.py").touch()
    program = folder / "train.py"
    source_text = program.read_text(encoding="utf-8")
    if seed != 1:  # seed 1 runs the unchanged checkout
        seeded = source_text.replace(SEED_LINE, SEED_LINE.replace("1337", str(1336 + seed)))
        if seeded == source_text:
            raise UserError(f"{checkout}: train.py sets no seed of 1337; use --seeds 1")
        program.write_text(seeded, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "prepare.py"],
        cwd=folder / DATASET,
        env=environment(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = last_line(done.stderr) or f"exit status {done.returncode}"
        raise UserError(f"{checkout / DATASET / 'prepare.py'} failed: {reason}")


def environment() -> dict[str, str]:
    """Return the environment for nanoGPT's programs: this process's, unbuffered and in UTF-8."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def train_command() -> list[str]:
    """Return the command that trains nanoGPT, to run in the copy."""
    return [sys.executable, "train.py", str(CONFIG), *FLAGS, f"--out_dir={OUT}"]


def read_losses(log: Path, chars_per_byte: float) -> list[float]:
    """Return the evaluations in nanoGPT's log so far, in order, in bits per byte.

    Args:
        chars_per_byte: converts the log's nats per character.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    return [float(nats) / np.log(2) * chars_per_byte for nats in LOSS_LINE.findall(text)]


def character_ids(whole: str, part: str) -> np.ndarray:
    """Return nanoGPT's ids of a text, int64: indices into the sorted characters of the whole text.

    >>> character_ids("banana", "nab").tolist()
    [2, 0, 1]
    """
    index = {character: i for i, character in enumerate(sorted(set(whole)))}
    return np.array([index[character] for character in part], np.int64)


def consecutive_windows(
    ids: np.ndarray, block_size: int, rows: int = WINDOWS_PER_BATCH
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield inputs and targets (B, T) of consecutive windows; all ids but the first are targets.

    The last window may be shorter and is then a separate batch.

    >>> [y_BT.tolist() for _, y_BT in consecutive_windows(np.arange(6), block_size=2)]
    [[[1, 2], [3, 4]], [[5]]]
    """
    ids = ids.astype(np.int64)
    n_windows = (len(ids) - 1) // block_size  # the N of the names below
    x_NT = ids[: n_windows * block_size].reshape(n_windows, block_size)
    y_NT = ids[1 : n_windows * block_size + 1].reshape(n_windows, block_size)
    for start in range(0, n_windows, rows):
        yield torch.from_numpy(x_NT[start : start + rows]), torch.from_numpy(
            y_NT[start : start + rows]
        )
    if rest := (len(ids) - 1) % block_size:
        tail = torch.from_numpy(ids[-rest - 1 :])
        yield tail[None, :-1], tail[None, 1:]


def score_checkpoint(folder: Path, whole: str, val: str) -> tuple[float, int]:
    """Return the total nats of nanoGPT's checkpoint on a text, and its number of parameters.

    All characters of `val` but the first are scored.

    Args:
        folder: the copy in which nanoGPT was trained.
        whole: the whole corpus, which determines the character ids.

    Raises:
        UserError: there is no checkpoint, or its vocabulary is not that of the corpus.
    """
    checkpoint = folder / OUT / "ckpt.pt"
    if not checkpoint.exists():
        raise UserError("nanoGPT left no checkpoint; its loss may be NaN: use another version")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    arguments, n_kinds = state["model_args"], len(set(whole))
    if arguments["vocab_size"] != n_kinds:
        raise UserError(
            f"{checkpoint}: can't be scored: it knows {arguments['vocab_size']} characters, "
            f"the text has {n_kinds}; use another version of nanoGPT"
        )
    module = load_module(folder / "model.py")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = module.GPT(module.GPTConfig(**arguments))
    model.load_state_dict(state["model"])
    model.eval()
    nats = 0.0
    with torch.inference_mode():
        for x_BT, y_BT in consecutive_windows(character_ids(whole, val), arguments["block_size"]):
            logits_BTV, _ = model(x_BT, y_BT)  # without targets, it returns only the last logits
            nats += F.cross_entropy(logits_BTV.double().mT, y_BT, reduction="sum").item()
    assert math.isfinite(nats)
    return nats, sum(weight.numel() for weight in model.parameters())
