"""A nanoGPT checkout as a rival: a copy of it is prepared, trained and scored.

Nothing is written into the checkout.
"""

from __future__ import annotations

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
from scripts.bench.process import last_line
from utils.errors import UserError

CONFIG = Path("config") / "train_shakespeare_char.py"
DATASET = Path("data") / "shakespeare_char"
PARTS = (Path("train.py"), Path("model.py"), Path("configurator.py"), CONFIG, DATASET)
# Its own recipe for a CPU, from its README; evaluations of 20 batches.
FLAGS = (
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
)
OUT = "out-race"
ROWS = 64  # windows in one forward pass
SEED_LINE = "torch.manual_seed(1337 + seed_offset)"  # it has no flag for the seed
LOSS_LINE = re.compile(r"^step \d+: train loss [\d.]+, val loss ([\d.]+)", re.MULTILINE)


def copy_checkout(checkout: Path, folder: Path, corpus: Path, seed: int) -> None:
    """Copies what is used into `folder`, with the corpus in place of its text, and prepares it.

    Its prepare.py loads that text only where it is missing; an empty `requests` beside it shows
    that it does not, and spares an installation.

    Raises:
        UserError: prepare.py failed.
    """
    for part in PARTS:
        source, target = checkout / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir(parents=True)
            shutil.copyfile(source / "prepare.py", target / "prepare.py")
        else:
            shutil.copyfile(source, target)
    shutil.copyfile(corpus, folder / DATASET / "input.txt")
    (folder / DATASET / "requests.py").touch()
    program = folder / "train.py"
    source_text = program.read_text(encoding="utf-8")
    if seed != 1:  # the first run is the checkout as it is
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
        reason = last_line(done.stderr, done.returncode)
        raise UserError(f"{checkout / DATASET / 'prepare.py'} failed: {reason}")


def environment() -> dict[str, str]:
    """This process's environment; lines come as they are printed, and text is UTF-8."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def command() -> list[str]:
    """What trains it, in the copy."""
    return [sys.executable, "train.py", str(CONFIG), *FLAGS, f"--out_dir={OUT}"]


def losses(log: Path, chars_per_byte: float) -> list[float]:
    """Bits per byte of its own estimates so far, in order, from nats per character."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return [float(nats) / np.log(2) * chars_per_byte for nats in LOSS_LINE.findall(text)]


def character_ids(whole: str, part: str) -> np.ndarray:
    """Its ids: places in the sorted row of the characters of the whole text, int64.

    >>> character_ids("banana", "nab").tolist()
    [2, 0, 1]
    """
    place = {character: i for i, character in enumerate(sorted(set(whole)))}
    return np.array([place[character] for character in part], np.int64)


def consecutive(
    ids: np.ndarray, block_size: int, rows: int = ROWS
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets (B, T) of windows one after the other; every id but the first is a target.

    The last window may be shorter, and comes by itself.

    >>> [y_BT.tolist() for _, y_BT in consecutive(np.arange(6), block_size=2)]
    [[[1, 2], [3, 4]], [[5]]]
    """
    ids = ids.astype(np.int64)
    whole = (len(ids) - 1) // block_size
    x_NT = ids[: whole * block_size].reshape(whole, block_size)
    y_NT = ids[1 : whole * block_size + 1].reshape(whole, block_size)
    for start in range(0, whole, rows):
        yield torch.from_numpy(x_NT[start : start + rows]), torch.from_numpy(
            y_NT[start : start + rows]
        )
    if rest := (len(ids) - 1) % block_size:
        tail = torch.from_numpy(ids[-rest - 1 :])
        yield tail[None, :-1], tail[None, 1:]


def score(folder: Path, whole: str, val: str) -> tuple[float, int]:
    """Nats of its checkpoint on all characters of a text but the first, and its parameters.

    Raises:
        UserError: there is no checkpoint, or it is not of this text.
    """
    checkpoint = folder / OUT / "ckpt.pt"
    if not checkpoint.exists():
        raise UserError("nanoGPT left no checkpoint; its validation loss was not a number?")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    arguments, n_kinds = state["model_args"], len(set(whole))
    if arguments["vocab_size"] != n_kinds:
        raise UserError(
            f"{checkpoint}: can't be scored: {arguments['vocab_size']} characters, "
            f"the text has {n_kinds}"
        )
    module = load_module(folder / "model.py")
    with contextlib.redirect_stdout(io.StringIO()):  # its number of parameters
        model = module.GPT(module.GPTConfig(**arguments))
    model.load_state_dict(state["model"])
    model.eval()
    nats = 0.0
    with torch.inference_mode():
        for x_BT, y_BT in consecutive(character_ids(whole, val), arguments["block_size"]):
            logits_BTV, _ = model(x_BT, y_BT)  # with targets it gives the logits of all places
            nats += F.cross_entropy(logits_BTV.double().mT, y_BT, reduction="sum").item()
    assert math.isfinite(nats)
    return nats, sum(weight.numel() for weight in model.parameters())
