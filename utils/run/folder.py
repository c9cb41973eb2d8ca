"""Run folders: what a run leaves behind, locked while a process writes it."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from utils.errors import UserError
from utils.files import write_atomic
from utils.locks import try_lock

SAMPLE_HEADER = "=== step "


class RunFolder:
    """Paths of a run folder, its lock and its record."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.tokenizer = self.path / "tokenizer.json"
        self.metrics = self.path / "metrics.csv"
        self.samples = self.path / "samples.txt"
        self.board = self.path / "tensorboard"
        self.plot = self.path / "loss.png"
        self.last = self.path / "last.pt"
        self.best = self.path / "best.pt"
        self._lock: IO[bytes] | None = None

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.record.exists()

    def require_run(self) -> None:
        """Checks that a run was started here.

        Raises:
            UserError: no run; says how to make one.
        """
        if not self.holds_run():
            raise UserError(
                f"{self.path}: no run there; train one with `python train.py --config "
                f"configs/tiny.yaml --run_dir {shlex.quote(str(self.path))}`"
            )

    def require_folder(self) -> None:
        """Checks, before any work is done, that the folder is there or can be made.

        Raises:
            UserError: something that is no folder stands in its way, or it can't be written.
        """
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not nearest.is_dir():
            raise UserError(f"{nearest}: not a folder; name another run_dir")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"{nearest}: Permission denied; name another run_dir")

    def claim(self) -> None:
        """Makes the folder, takes it for this process, removes what a killed one left half written.

        The lock dies with the process, however it ends. A second call does nothing.

        Raises:
            UserError: another process holds it.
        """
        if self._lock is not None:
            return
        self.require_folder()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / "lock", "ab")
        try:
            free = try_lock(self._lock)
        except OSError:  # a file system without locks
            free = False
        if not free:
            self.close()
            raise UserError(
                f"{self.path}: another process is writing this run; wait for it or stop it"
            )
        for path in self.path.glob(".*.tmp-*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_record(self) -> dict[str, Any]:
        """run.json.

        Raises:
            UserError: no run here, or the file is damaged.
        """
        self.require_run()
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except ValueError:
            record = None
        if not is_record(record):
            raise UserError(f"{self.record}: damaged, not the record of a run; put it back")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes run.json."""
        write_atomic(self.record, (json.dumps(record, indent=1) + "\n").encode())


def is_record(record: Any) -> bool:
    """Whether a value has the parts of run.json that programs read.

    >>> is_record({})
    False
    """
    try:
        data = record["data"]
        floor, floor_per_token = data["floor"], record["floor_nats_per_token"]
        texts = (data["folder"], data["identity"])
        known = floor is None or isinstance(floor["nats_per_byte"], float)
        known = known and (floor_per_token is None or isinstance(floor_per_token, float))
        return (
            known
            and isinstance(record["starts"], list)
            and all(isinstance(one, str) for one in texts)
        )
    except (KeyError, TypeError):
        return False


def append_sample(path: Path, step: int, text: str) -> None:
    """Adds a sample under a header that names its step; a line that looks like one is indented."""
    text = re.sub(f"(?m)^{SAMPLE_HEADER}", f" {SAMPLE_HEADER}", text)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(f"{SAMPLE_HEADER}{step}\n{text}\n\n")


def keep_samples(path: Path, last_step: int) -> list[tuple[int, str]]:
    """Drops the samples of steps later than `last_step`, which a resumed run makes again.

    Returns those that are left, each with its step.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    text = text[: text.rfind("\n\n") + 2]  # a sample that was written to its end ends so
    _, *parts = re.split(f"(?m)^{SAMPLE_HEADER}(\\d+)\n", text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    kept = [(int(step), body) for step, body in pairs if int(step) <= last_step]
    text = "".join(f"{SAMPLE_HEADER}{step}\n{body}" for step, body in kept)
    write_atomic(path, text.encode())
    return [(step, body.removesuffix("\n\n")) for step, body in kept]


def environment() -> dict[str, Any]:
    """What the numbers of a run may depend on: program, versions, threads, commit."""
    return {
        "argv": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The checkout's commit, with `+changes` where the tree differs from it; None without git."""
    root = Path(__file__).resolve().parents[2]
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+changes",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
