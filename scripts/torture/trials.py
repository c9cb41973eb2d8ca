"""Trials: a run is interrupted, damaged or raced, and must end with the bits of the reference."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

import data.prepare
import sample
from data.prepared_folder import is_up_to_date, read_meta
from model.training.trainer import Trainer
from scripts.torture.child import Child, DefectError, at_change, limit_file_size
from scripts.torture.mutation import ODD, change_value, flip_bit, mutate_bytes
from scripts.torture.reference import MAX_STEPS, N_CHANGES, Reference
from utils.run import checkpoint


def place(reference: Reference, rng: Random) -> tuple[Path, Path]:
    """Return a new run folder, and a cache: mostly the shared one, sometimes one to be made."""
    folder = reference.new_folder()
    return folder / "run", folder / "cache" if rng.random() < 0.25 else reference.cache


def interrupt(reference: Reference, rng: Random, run: Path, cache: Path, number: int) -> str:
    """Send a signal to a run: before a change of a file, or at any moment."""
    change, seconds = rng.randint(1, N_CHANGES), rng.uniform(0, reference.seconds)
    pending, at_any_moment = [number], rng.random() < 0.3

    def send(event: str) -> None:
        if pending:  # it is sent once
            os.kill(os.getpid(), pending.pop())

    before = partial(at_change, run.parent, change, send)
    child = reference.train(run, cache, list if at_any_moment else before)
    if at_any_moment:
        time.sleep(seconds)
        os.kill(child.pid, number)
    # -number: it came before a handler was installed.
    return signal.Signals(number).name if child.wait(0, 128 + number, -number) else "too late"


def kill(reference: Reference, rng: Random) -> Counter[str]:
    """Kill a run one to three times: before a change of a file, at any moment, or in a write."""
    run, cache = place(reference, rng)
    counts: Counter[str] = Counter()
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.7:
            counts[interrupt(reference, rng, run, cache, signal.SIGKILL)] += 1
        else:
            limit = partial(limit_file_size, int(10 ** rng.uniform(1, 5)), kill=True)
            killed = reference.train(run, cache, limit).wait(0, -signal.SIGXFSZ)
            counts["killed in a write" if killed else "too late"] += 1
    reference.finish(run, cache)
    return counts


def stop(reference: Reference, rng: Random) -> Counter[str]:
    """Send SIGTERM, SIGINT or SIGHUP to a run."""
    run, cache = place(reference, rng)
    number = rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    counts = Counter([interrupt(reference, rng, run, cache, number)])
    reference.finish(run, cache)
    return counts


def no_space(event: str) -> None:
    """Fail as on a full disk, where files can still be renamed and removed."""
    if event in ("open", "os.mkdir", "sync"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk(reference: Reference, rng: Random) -> Counter[str]:
    """Fill the disk before a change of a file, or limit the size of files."""
    run, cache = place(reference, rng)
    full = partial(at_change, run.parent, rng.randint(1, N_CHANGES), no_space)
    small = partial(limit_file_size, int(10 ** rng.uniform(0, 5)))
    refused = reference.train(run, cache, rng.choice((full, small))).wait(0, 2)
    reference.finish(run, cache)
    return Counter({"refused" if refused else "too late": 1})


def nan(reference: Reference, rng: Random) -> Counter[str]:
    """Make a weight, the loss or a gradient NaN or infinite at one step."""
    run, cache = place(reference, rng)
    step, which, value = rng.randrange(MAX_STEPS), rng.random(), rng.choice((math.nan, math.inf))
    where = rng.choice(("weight", "loss", "gradient"))
    original: Any = Trainer.train_step

    def train_step(self: Any) -> None:
        now, weight = self.step == step, self.weights[int(which * len(self.weights))]
        if now and where == "loss":
            loss, self.loss = self.loss, lambda *batch: loss(*batch) * value
        if now and where == "gradient":
            weight.register_hook(lambda gradient: torch.full_like(gradient, value))
        original(self)
        if now and where == "weight":  # after the step, as if it had overflowed
            weight.data.view(-1)[int(which * weight.numel())] = value

    child = reference.train(run, cache, lambda: setattr(Trainer, "train_step", train_step))
    child.wait(2)
    if "stopped" not in child.text or "intact" not in child.text:
        raise DefectError(child.text)
    for path in run.glob("*.pt"):
        if not all(weight.isfinite().all() for weight in checkpoint.load(path)["model"].values()):
            raise DefectError(f"{path}: holds a value that is not finite")
    reference.finish(run, cache)
    return Counter({where: 1})


def damage(reference: Reference, rng: Random) -> Counter[str]:
    """Damage one file of a half-finished run or of prepared data, then resume."""
    folder = reference.new_folder()
    run, cache = folder / "run", folder / "cache"
    shutil.copytree(reference.half, run)
    shutil.copytree(reference.cache, cache)
    config = (run / "config.yaml").read_bytes()
    (run / "config.yaml").write_bytes(config.replace(bytes(reference.cache), bytes(cache)))
    part = rng.choice((run, cache))
    files = sorted(path for path in part.rglob("*.*") if path.is_file())
    path, other = rng.choice(files), rng.choice(files)
    raw, way = path.read_bytes(), rng.choice(("flip", "cut", "empty", "swap", "remove", "any"))
    damaged = {"cut": raw[: rng.randrange(len(raw) or 1)], "empty": b"", "swap": other.read_bytes()}
    damaged |= {"flip": flip_bit(raw, rng), "any": mutate_bytes(raw, raw, rng)}
    path.unlink()
    if way in damaged:
        path.write_bytes(damaged[way])
    before = contents(run)
    child = reference.train(run)
    verdict = "detected" if child.wait(0, 2) else "repaired or no effect"
    if verdict == "detected" and contents(run) != before:
        raise DefectError(f"{path.name}: refused, but the run was written: {child.text}")
    if verdict != "detected" and (difference := reference.difference(run)):
        verdict = "missing" if f"{path.name} is missing" in child.text else "detected later"
        if path.name == "best.pt":
            Child(partial(sample.load_run, run, "best", "cpu")).wait(2)
        elif path.name == "config.yaml":  # only settings that may change on resume are accepted
            verdict = "edited settings"
        elif verdict != "missing":
            raise DefectError(f"{path.name}: {way} was accepted, but {difference}")
    shutil.rmtree(folder)
    return Counter({verdict: 1, path.name: 1})


def contents(folder: Path) -> dict[str, bytes]:
    """Return name -> content of the files of a folder, without the lock."""
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


def forge(reference: Reference, rng: Random) -> Counter[str]:
    """Change a value of a checkpoint, with a valid checksum; load it, and resume from it."""
    run, name = reference.new_folder(), rng.choice(("last", "best"))
    shutil.copytree(reference.half, run)
    state = checkpoint.load(run / f"{name}.pt")
    change_value(state, rng.randrange(10**6), rng.choice(ODD), rng.choice(("put", "remove")))
    try:
        checkpoint.save(run / f"{name}.pt", state)
    except (AssertionError, ValueError, RuntimeError):
        return Counter({"no checkpoint can hold it": 1})
    load = Child(partial(sample.load_run, run, name, "cpu"))
    statuses = [child.wait(0, 2) for child in (load, reference.train(run))]
    shutil.rmtree(run)
    return Counter({"refused" if any(statuses) else "valid": 1})


def race(reference: Reference, rng: Random) -> Counter[str]:
    """Let two processes meet in one of four ways."""
    way = rng.choice((two_trainers, two_preparations, sample_in_training, two_exports))
    folder = reference.new_folder()
    folder.mkdir()
    way(reference, rng, folder)
    if left := [path.name for path in folder.iterdir() if path.name.startswith(".")]:
        raise DefectError(f"{way.__name__} left behind: {left}")
    shutil.rmtree(folder)
    return Counter({way.__name__.replace("_", " "): 1})


def two_trainers(reference: Reference, rng: Random, folder: Path) -> None:
    """Train one run twice: one process is refused, unless it comes after the other has finished."""
    children = [reference.train(folder / "run") for _ in range(2)]
    if 0 not in [child.wait(0, 2) for child in children]:
        raise DefectError("both trainers are refused")
    reference.finish(folder / "run")


def two_preparations(reference: Reference, rng: Random, folder: Path) -> None:
    """Prepare one folder twice; with different settings, one process is refused."""
    text, out, same = folder / "text.txt", folder / "out", rng.random() < 0.5
    text.write_text("One day Tom saw a dog.\n\nIt was big.\n\n" * 50, encoding="utf-8")
    words = [text, "--tokenizer", reference.done / "tokenizer.json", "--out", out]
    words += ["--doc-sep", "blank-line", "--val-fraction"]
    argvs = [[*map(str, words), str(fraction)] for fraction in (0.1, 0.1 if same else 0.3)]
    children = [Child(partial(data.prepare.main, argv)) for argv in argvs]
    statuses = sorted(child.wait(0, 2) for child in children)
    if statuses != [0, 0 if same else 2] or not is_up_to_date(out, read_meta(out)["identity"]):
        raise DefectError(f"two {'equal' if same else 'different'} preparations: {statuses}")


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
    children = [reference.export(folder / "out") for _ in range(2)]
    statuses = [child.wait(0, 2) for child in children]
    found = {path.name for path in folder.rglob("*")}
    if 0 not in statuses or not found >= {"model.safetensors", "tokenizer.json", "README.md"}:
        raise DefectError(f"two exports: {statuses}, {found}")
