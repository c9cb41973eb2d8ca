"""Trials: a run is interrupted, damaged or raced, and must end with the bits of the reference."""

import errno
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

import data.prepare
import sample
from data.prepared_folder import is_up_to_date, read_meta
from model.training.trainer import Trainer
from tests.torture.child import Child, DefectError, at_change, limit_file_size
from tests.torture.fuzz import ODD, change_value, mutate_bytes
from tests.torture.reference import MAX_STEPS, N_CHANGES, Reference, at_step
from utils.run import checkpoint

# Ways to interrupt a run.
CUT_WRITE, FULL_DISK, SMALL_FILES = "killed in a write", "full disk", "limit of file sizes"
INTERRUPTIONS = {
    "kill": ("SIGKILL", "SIGKILL", CUT_WRITE),
    "signal": ("SIGTERM", "SIGINT", "SIGHUP"),
    "disk": (FULL_DISK, SMALL_FILES),
}


def prepare(acts: Sequence[Callable[[], object]], slow: bool) -> None:
    """Prepare a run: call `acts`; if slow, training gets ahead of its checkpoints' writes."""
    if slow:
        write = checkpoint.write_atomic
        checkpoint.write_atomic = lambda *args: [time.sleep(0.1), write(*args)]  # type: ignore
    for act in acts:
        act()


def interrupt(reference: Reference, rng: Random, folder: Path, kind: str) -> Counter[str]:
    """Interrupt a run one to three times, then resume it to its end; count what ended it.

    A signal comes before a change of a file, or at any moment. A quarter of the runs also prepare
    their data.
    """
    run, cache = folder / "run", folder / "cache" if rng.random() < 0.25 else reference.cache
    counts: Counter[str] = Counter()
    for way in rng.choices(INTERRUPTIONS[kind], k=rng.randint(1, 3)):
        change, n_bytes = rng.randint(1, N_CHANGES), int(10 ** rng.uniform(0, 5))
        number = signal.SIGXFSZ if way == CUT_WRITE else getattr(signal, way, 0)
        # -number: the signal came before a handler was installed.
        statuses = (0, 128 + number, -number) if number else (0, 2)
        at_any_moment = hasattr(signal, way) and rng.random() < 0.3
        before = {
            CUT_WRITE: partial(limit_file_size, n_bytes, kill=True),
            FULL_DISK: partial(at_change, folder, change, no_space),
            SMALL_FILES: partial(limit_file_size, n_bytes),
        }.get(way, partial(at_change, folder, change, partial(send_once, [number])))
        acts = [] if at_any_moment else [before]
        child = reference.train(run, cache, partial(prepare, acts, rng.random() < 0.5))
        if at_any_moment:
            time.sleep(rng.uniform(0, reference.seconds))
            os.kill(child.process.pid or 0, number)
        counts[way if child.wait(*statuses) else "too late"] += 1
    reference.finish(run, cache)
    return counts


def send_once(numbers: list[int], event: str) -> None:
    """Send this process the signal in `numbers`, unless it has been sent."""
    if numbers:
        os.kill(os.getpid(), numbers.pop())


def no_space(event: str) -> None:
    """Fail as on a full disk, where files can still be renamed and removed."""
    if event in ("open", "os.mkdir", "sync"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nan(reference: Reference, rng: Random, folder: Path) -> Counter[str]:
    """Make a weight, the loss or a gradient NaN or infinite at one step."""
    run, which, value = folder / "run", rng.random(), rng.choice((math.nan, math.inf))
    where = rng.choice(("weight", "loss", "gradient"))

    def spoil(trainer: Trainer) -> None:
        weight, loss = trainer.weights[int(which * len(trainer.weights))], trainer.loss
        if where == "loss":
            trainer.loss = lambda *batch: loss(*batch) * value
        elif where == "gradient":
            weight.register_hook(lambda gradient: torch.full_like(gradient, value))
        else:  # after the step, as if it had overflowed
            element: Any = weight.data.view(-1)[int(which * weight.numel())]
            trainer.optimizer.register_step_post_hook(lambda *_: element.fill_(value))

    child = reference.train(run, before=partial(at_step, rng.randrange(MAX_STEPS), spoil))
    child.wait(2)
    if "stopped" not in child.text or "intact" not in child.text:
        raise DefectError(child.text)
    for path in run.glob("*.pt"):
        if not all(weight.isfinite().all() for weight in checkpoint.load(path)["model"].values()):
            raise DefectError(f"{path}: holds a value that is not finite")
    reference.finish(run)
    return Counter({where: 1})


def damage(reference: Reference, rng: Random, folder: Path) -> Counter[str]:
    """Damage one file of a half-finished run or of prepared data, then resume."""
    run, cache = folder / "run", folder / "cache"
    shutil.copytree(reference.half, run)
    shutil.copytree(reference.cache, cache)
    files = sorted(path for path in folder.rglob("*.*") if path.is_file())
    path, other = rng.choice(files), rng.choice(files).read_bytes()
    raw = path.read_bytes()
    cut, changed = raw[: rng.randrange(len(raw) or 1)], mutate_bytes(raw, raw, rng)
    damaged = rng.choice((None, b"", cut, other, changed, changed))
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    before = contents(run)
    child = reference.train(run, cache)
    verdict = "detected" if child.wait(0, 2) else "repaired or no effect"
    if verdict == "detected" and contents(run) != before:
        raise DefectError(f"{path.name}: refused, but the run was written: {child.text}")
    if verdict != "detected" and (difference := reference.difference(run)):
        verdict = "edited, missing or detected later"
        if path.name == "best.pt":
            Child(partial(sample.load_run, run, "best", "cpu")).wait(2)
        # Of config.yaml, only settings that may change on resume are accepted.
        elif path.name != "config.yaml" and f"{path.name} is missing" not in child.text:
            raise DefectError(f"{path.name}: the damage was accepted, but {difference}")
    return Counter({verdict: 1, path.name: 1})


def contents(folder: Path) -> dict[str, bytes]:
    """Return name -> content of the files of a folder, without the lock."""
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


def forge(reference: Reference, rng: Random, folder: Path) -> Counter[str]:
    """Change a value of a checkpoint, with a valid checksum; load it, and resume from it."""
    run, name = folder / "run", rng.choice(("last", "best"))
    shutil.copytree(reference.half, run)
    state = checkpoint.load(run / f"{name}.pt")
    change_value(state, rng.randrange(10**6), rng.choice(ODD), rng.choice(("put", "remove")))
    try:
        checkpoint.save(run / f"{name}.pt", state)
    except (AssertionError, ValueError, RuntimeError):
        return Counter({"no checkpoint can hold it": 1})
    load = Child(partial(sample.load_run, run, name, "cpu"))
    statuses = [child.wait(0, 2) for child in (load, reference.train(run))]
    return Counter({"refused" if any(statuses) else "valid": 1})


def race(reference: Reference, rng: Random, folder: Path) -> Counter[str]:
    """Let two processes meet in one of four ways."""
    way = rng.choice((two_trainers, two_preparations, sample_in_training, two_exports))
    way(reference, rng, folder)
    if left := [path.name for path in folder.iterdir() if path.name.startswith(".")]:
        raise DefectError(f"{way.__name__} left behind: {left}")
    return Counter({way.__name__.replace("_", " "): 1})


def wait_for_two(*children: Child) -> int:
    """Wait for two writers of the same files: one succeeds; return the status of the other."""
    first, second = sorted(child.wait(0, 2) for child in children)
    if first:
        raise DefectError(f"both are refused: {children[0].text}")
    return second


def two_trainers(reference: Reference, rng: Random, folder: Path) -> None:
    """Train one run twice: one process is refused, unless it comes after the other has finished."""
    wait_for_two(reference.train(folder / "run"), reference.train(folder / "run"))
    reference.finish(folder / "run")


def two_preparations(reference: Reference, rng: Random, folder: Path) -> None:
    """Prepare one folder twice; with different settings, one process is refused."""
    text, out, same = folder / "text.txt", folder / "out", rng.random() < 0.5
    text.write_text("One day Tom saw a dog.\n\nIt was big.\n\n" * 50, encoding="utf-8")
    tokenizer = reference.done / "tokenizer.json"
    argv = [str(text), f"--tokenizer={tokenizer}", f"--out={out}", "--doc-sep=blank-line"]
    argvs = [[*argv, f"--val-fraction={fraction}"] for fraction in (0.1, 0.1 if same else 0.3)]
    status = wait_for_two(*(Child(partial(data.prepare.main, argv)) for argv in argvs))
    if status != (0 if same else 2) or not is_up_to_date(out, read_meta(out)["identity"]):
        raise DefectError(f"two {'equal' if same else 'different'} preparations: status {status}")


def sample_in_training(reference: Reference, rng: Random, folder: Path) -> None:
    """Sample again and again from a run in training: a text, or no checkpoint yet."""
    trainer = reference.train(folder / "run")
    for _ in range(6):
        words = ["--run", str(folder / "run"), "--checkpoint", rng.choice(("best", "last"))]
        Child(partial(sample.main, [*words, "--steps=3", "--device=cpu"])).wait(0, 2)
    trainer.wait(0)
    reference.finish(folder / "run")


def two_exports(reference: Reference, rng: Random, folder: Path) -> None:
    """Export a run twice into one folder: it is complete, and nothing is left next to it."""
    wait_for_two(reference.export(folder / "out"), reference.export(folder / "out"))
    found = set(os.listdir(folder / "out"))
    if not found >= {"model.safetensors", "tokenizer.json", "README.md"}:
        raise DefectError(f"two exports: {found}")
