"""Tiny training runs, complete or killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import pytest

import train
from data.dataset import Dataset
from model.training import trainer as trainer
from utils.config import load
from utils.config.schema import flatten
from utils.errors import run_cli
from utils.metrics import CLOCK_COLUMNS, CsvLog, read_rows
from utils.run import checkpoint, plot
from utils.run.folder import RunFolder

WORDS = "the cat sat on a mat and saw big red dogs run far from home with old Anna until night came"

# About 20 kB of text, a few thousand parameters: a step takes a millisecond or two.
TINY = {
    "model.vocab_size": 300,
    "model.block_size": 32,
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.dropout": 0.1,
    "data.doc_sep": "blank-line",
    "optim.warmup_steps": 3,
    "train.max_steps": 9,
    "train.batch_size": 4,
    "train.eval_every_steps": 4,
    "train.log_every_steps": 1,
    "train.sample_tokens": 5,
    "train.num_threads": 1,
}


def make_text(n_documents: int = 300, seed: int = 1, words: tuple[int, int] = (3, 20)) -> str:
    """Documents of random words, separated by blank lines."""
    rng = random.Random(seed)
    vocabulary = WORDS.split()
    lines = (
        " ".join(rng.choice(vocabulary) for _ in range(rng.randint(*words)))
        for _ in range(n_documents)
    )
    return "\n\n".join(f"{line}." for line in lines) + "\n"


def make_corpus(folder: Path) -> dict[str, object]:
    """Write text.txt; return the settings of a tiny run on it, which share its prepared data."""
    text = folder / "text.txt"
    text.write_text(make_text(), encoding="utf-8", newline="")
    return {**TINY, "data.files": text, "data.cache_dir": folder / "cache"}


def flags(run_dir: Path, settings: dict[str, object], *more: str, **changes: object) -> list[str]:
    """The command line of a run; `train__max_steps=3` sets train.max_steps."""
    merged = settings | {name.replace("__", "."): value for name, value in changes.items()}
    words = [f"--{name}={value}" for name, value in merged.items() if not isinstance(value, tuple)]
    for name, value in merged.items():
        if isinstance(value, tuple):
            words += [f"--{name}", *map(str, value)]
    return ["--run_dir", str(run_dir), *words, *more]


def build_with_data(
    run_dir: Path, settings: dict[str, object], **changes: object
) -> tuple[trainer.Trainer, Dataset]:
    """A trainer and its data, for tests that call train_step themselves."""
    config, _, _ = train.parse(flags(run_dir, settings, **changes))
    return train.build_trainer(config, RunFolder(run_dir))


def build(run_dir: Path, settings: dict[str, object], **changes: object) -> trainer.Trainer:
    """A trainer, for tests that call train_step themselves."""
    return build_with_data(run_dir, settings, **changes)[0]


def step(one: trainer.Trainer) -> dict[str, float]:
    """Take a step and return its metrics."""
    one.train_step()
    return one.flush_metrics()


def state_of(path: Path) -> dict[str, Any]:
    """A checkpoint without the values that differ between equal runs: times and folder name."""
    state = checkpoint.load(path)
    del state["elapsed_s"], state["logs"], state["config"]["run_dir"]
    return state


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without the wall-clock columns."""
    rows = read_rows(run_dir / "metrics.csv")
    return [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Check that weights, optimizer, counters, metrics and samples are equal bit for bit."""
    assert rows_of(one) == rows_of(other)
    for name in ("last.pt", "best.pt"):
        mine, theirs = state_of(one / name), state_of(other / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert checkpoint.digest(mine[key]) == checkpoint.digest(theirs[key]), (name, key)
    assert (one / "samples.txt").read_bytes() == (other / "samples.txt").read_bytes()
    lines = (one / "metrics.csv").read_text(encoding="utf-8").splitlines()
    steps = [int(line.split(",")[0]) for line in lines[1:]]
    assert lines[0].startswith("step,") and steps == sorted(set(steps))
    assert not [path.name for path in one.iterdir() if ".tmp" in path.name]


def forkserver() -> Any:
    """The context of a server that has already imported train.py, which takes seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on Windows")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train", "torch._dynamo"])
    return context


class Child:
    """train.py in a separate process, forked from a server that has already imported it."""

    def __init__(
        self,
        argv: list[str],
        log: Path,
        hang: tuple[str, int] | None = None,
        pause_s: float = 0.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start the process.

        Args:
            log: the file that receives stderr.
            hang: the function and the call at which it hangs, see hang_at.
            pause_s: sleep this long after each step.
            environment: additional variables.
        """
        context = forkserver()
        self.marker = Path(f"{log}.hangs")
        self.log = log
        self.process: BaseProcess = context.Process(
            target=run_train,
            args=(argv, str(log), hang, str(self.marker), pause_s, environment or {}),
            daemon=True,
        )
        self.process.start()

    def wait_for(self, path: Path, step: int | None = None, timeout_s: float = 60) -> None:
        """Wait until `path` exists or, with a step, until that metrics.csv holds the step."""
        end = time.monotonic() + timeout_s
        while not path.exists() or step is not None and last_step(path) < step:
            assert self.process.is_alive(), f"ended too early: {self.errors()}"
            assert time.monotonic() < end, f"nothing within {timeout_s} s: {self.errors()}"
            time.sleep(0.002)

    def kill(self) -> None:
        """Kill the process, which must still be running, with SIGKILL."""
        assert self.process.is_alive()
        self.process.kill()
        self.process.join(30)
        assert self.process.exitcode == -signal.SIGKILL

    def release(self) -> None:
        """Let a hanging child continue."""
        self.marker.unlink()

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def join(self) -> int | None:
        self.process.join(60)
        return self.process.exitcode

    def errors(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def last_step(metrics: Path) -> int:
    """The step of the last complete row of a metrics.csv; -1 without one."""
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]
    return int(lines[-1].split(",")[0]) if len(lines) > 1 else -1


def run_train(
    argv: list[str],
    log: str,
    hang: tuple[str, int] | None,
    marker: str,
    pause_s: float,
    environment: dict[str, str],
) -> NoReturn:
    """Run train.main in the child process, with stderr in a file, hanging at `hang`."""
    sys.stderr = open(log, "w", encoding="utf-8", buffering=1)
    os.environ.update(environment)
    from utils.run import folder as runs

    runs.git_commit = lambda: None
    plot.plot_losses = lambda *args, **kwargs: None
    if pause_s:
        step = train.Trainer.train_step
        train.Trainer.train_step = lambda self: (step(self), time.sleep(pause_s))[0]

    if hang is not None:
        hang_at(*hang, Path(marker))
    run_cli(lambda _: train.main(argv))


def hang_at(where: str, call: int, marker: Path) -> None:
    """Make call number `call` (from 1) of a function create the marker and wait for its removal.

    Args:
        where: `replace` (a checkpoint is written but not renamed yet), `step` (after the optimizer
            step), `evaluate` or `save` (for example between best.pt and last.pt).
    """
    owner, name = {
        "replace": (os, "replace"),
        "step": (trainer.Trainer, "train_step"),
        "evaluate": (trainer.Trainer, "evaluate"),
        "save": (checkpoint, "save"),
    }[where]
    original, calls = getattr(owner, name), [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        result = original(*args, **kwargs) if where == "step" else None
        if calls[0] == call:
            marker.touch()
            while marker.exists():
                time.sleep(0.005)
        return result if where == "step" else original(*args, **kwargs)

    setattr(owner, name, wrapped)


def training(tmp_path: Path, *more: str, **changes: object) -> list[str]:
    """Return arguments of train.py that keep all files below tmp_path."""
    text = tmp_path / "text.txt"
    same = {**TINY, "data.files": text, "data.cache_dir": tmp_path / "cache"}
    return flags(tmp_path / "runs" / "x", same, *more, **changes)


def copy(done: Path, tmp_path: Path) -> Path:
    """A copy of a run, which the test may damage."""
    return Path(shutil.copytree(done, tmp_path / "run"))


def fake_run(
    source: Path,
    folder: Path,
    config: train.Config,
    loss: float,
    steps: int,
    seed: int,
    changed: Mapping[str, Any] = {},
) -> None:
    """Write a finished run with this loss, in nats per token and in bits per byte.

    Args:
        source: run folder whose run.json is copied.
        config: its settings, apart from those in `changed`; one step has 100 tokens.
    """
    folder.mkdir(parents=True)
    shutil.copy(source / "run.json", folder)
    values = flatten(config) | {"train.max_steps": steps, "train.seed": seed, **changed}
    (folder / "config.yaml").write_text(
        load.dump(load.build(train.Config, values)), encoding="utf-8"
    )
    log = CsvLog(folder / "metrics.csv")
    log.write({"step": 0, "val_loss": 9.0, "val_bpb": 9.0})
    log.write(
        {"step": steps, "tokens": 100 * steps, "val_loss": loss, "val_bpb": loss, "elapsed_s": 1.0}
    )
