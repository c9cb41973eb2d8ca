"""The run that all trials are compared with: the same settings, trained without interruption."""

import os
import runpy
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import train
from model.training.trainer import Trainer
from tests.torture.child import Child, DefectError
from utils.errors import UserError
from utils.metrics import CLOCK_COLUMNS, read_rows
from utils.run import checkpoint
from utils.run.checkpoint import digest  # this name stays the real one if a plant replaces it

MAX_STEPS, HALF = 6, 3
N_CHANGES = 90  # of files in a run, about; 46 more if it prepares its data
SETTINGS = (
    "model.vocab_size=300 model.block_size=32 model.n_layer=1 model.n_head=2 model.n_embd=16 "
    "model.dropout=0.1 data.story_bytes=20000 data.val_story_bytes=2000 train.sample_tokens=5 "
    "train.log_every_steps=1 train.num_threads=1 "
    f"train.max_steps={MAX_STEPS} train.eval_every_steps={HALF}"
)


class Reference:
    """A finished run `done`, and `half`, a run killed after half of its steps.

    Attributes:
        cache: the folder of their prepared data.
        seconds: what a run takes.
    """

    def __init__(self, folder: Path) -> None:
        """Train both runs below `folder`."""
        self.folder, self.cache = folder, folder / "cache"
        self.done, self.half = folder / "done", folder / "half"
        self.train(self.done).wait(0)  # also makes the prepared data
        self.wanted, started = fingerprint(self.done), time.monotonic()
        self.finish(folder / "again")
        self.seconds = time.monotonic() - started
        self.train(self.half, before=partial(at_step, HALF, kill_when_saved)).wait(-signal.SIGKILL)

    def train(
        self, run: Path, cache: Path | None = None, before: Callable[[], object] = lambda: None
    ) -> Child:
        """Start or resume a run; `before` is called in its process, before training."""
        words = ["--run_dir", str(run), f"--data.cache_dir={cache or self.cache}"]

        def work() -> int:
            before()
            resumes = (run / "run.json").exists()
            more = ["--resume"] if resumes else [f"--{one}" for one in SETTINGS.split()]
            return train.main(words + more)

        return Child(work)

    def export(self, out: Path) -> Child:
        """Export the finished run."""
        main = runpy.run_module("scripts.export.__main__")["main"]
        return Child(lambda: main(["--run", str(self.done), "--out", str(out)]))

    def finish(self, run: Path, cache: Path | None = None) -> None:
        """Resume a run to its end and compare it; raise DefectError if a bit differs."""
        self.train(run, cache).wait(0)
        if difference := self.difference(run):
            raise DefectError(difference)

    def difference(self, run: Path) -> str:
        """Return the first thing in which a run differs from the uninterrupted one; "" if none."""
        try:
            found = fingerprint(run)
        except (UserError, OSError) as error:
            return str(error)
        names = [name for name in self.wanted if found.get(name) != self.wanted[name]]
        names += [name for name in os.listdir(run) if ".tmp" in name]
        return f"{run}: {names[0]} differs" if names else ""


def at_step(number: int, act: Callable[[Trainer], object]) -> None:
    """Call `act` before step `number` of training in this process, counted from 0."""
    original = Trainer.train_step

    def train_step(self: Trainer) -> None:
        if self.step == number:
            act(self)
        original(self)

    Trainer.train_step = train_step  # type: ignore[assignment]


def kill_this(_: object) -> None:
    """End this process as a power cut would: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_when_saved(trainer: Trainer) -> None:
    """End this process when its last checkpoint is written."""
    trainer.saver.wait()
    kill_this(None)


def fingerprint(run: Path) -> dict[str, Any]:
    """Return all that must be equal in equal runs: everything but times and paths."""
    rows = read_rows(run / "metrics.csv")
    found: dict[str, Any] = {"samples.txt": (run / "samples.txt").read_bytes()}
    found["metrics.csv"] = [[v for k, v in row.items() if k not in CLOCK_COLUMNS] for row in rows]
    for name in ("last.pt", "best.pt"):
        state = checkpoint.load(run / name)
        del state["elapsed_s"], state["logs"], state["config"]["run_dir"]
        del state["config"]["data"]["cache_dir"]
        found |= {f"{key} of {name}": digest(value) for key, value in state.items()}
    return found
