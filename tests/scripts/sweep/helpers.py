"""Helpers: example settings to sweep, sweeps started as programs, their processes and results."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from scripts.sweep.grid_file import load_sweep
from scripts.sweep.points import Job, make_jobs
from tests.conftest import ROOT, clean_environment
from train import Config
from utils.config.schema import setting
from utils.metrics import CLOCK_COLUMNS

EIGHT = (
    "grid: {d_model: [8, 16], lr: [0.01, 0.02]}\nseeds: [1, 2]\n"
    "set: {max_steps: 60, eval_every_steps: 10}"
)


@dataclasses.dataclass(frozen=True)
class Model:
    n_embd: int = setting(64, "width", minimum=1)
    dropout: float = setting(0.0, "share", minimum=0, below=1)
    size: int = setting(1, "one of two settings of this name")


@dataclasses.dataclass(frozen=True)
class Train:
    seed: int = setting(1, "seed", minimum=0)
    betas: tuple[float, float] = setting((0.9, 0.95), "pair")
    size: int = setting(1, "the other")
    text: str = setting("", "words")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an example program."""

    run_dir: str = setting("", "folder")
    model: Model = dataclasses.field(default_factory=Model)
    train: Train = dataclasses.field(default_factory=Train)


def results(out: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv without the wall-clock columns."""
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in csv.DictReader(file)
        ]


def start_sweep(argv: list[str], out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a sweep as a separate process in its own session."""
    command = [sys.executable, str(ROOT / "scripts" / "sweep"), *argv, "--out", str(out), *more]
    return subprocess.Popen(
        command, cwd=out.parent, env=clean_environment(), start_new_session=True
    )


def wait_until(holds: Callable[[], object], timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def make_points(base: Path, folder: Path, text: str = "") -> list[Job]:
    """Return the points of a sweep of a base config; nothing is run."""
    path = folder / "points.yaml"
    path.write_text(f"config: {base}\n{text}\n", encoding="utf-8")
    return make_jobs(load_sweep(str(path), Config), str(path), folder / "out", threads=1)


def trainers(out: Path) -> list[int]:
    """Return the ids of the processes that train a point of a sweep."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        here = any(word.startswith(f"{out}{os.sep}") for word in words)
        if here and len(words) > 1 and words[1].endswith(f"{os.sep}train.py"):
            found.append(process.info["pid"])
    return found
