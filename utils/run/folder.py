"""Run folders: what a run leaves behind, locked while a process writes it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import filelock

from utils.errors import UserError
from utils.files import check_writable, write_atomic

DEFAULT_RUN = "runs/tiny"  # where `make train` leaves the default model


class RunFolder:
    """Paths of a run folder, its lock and its record."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.tokenizer = self.path / "tokenizer.json"
        self.metrics = self.path / "metrics.csv"
        self.samples = self.path / "samples.txt"
        self.tensorboard = self.path / "tensorboard"
        self.plot = self.path / "loss.png"
        self.last = self.path / "last.pt"
        self.best = self.path / "best.pt"
        self._lock = filelock.FileLock(self.path / "lock", blocking=False, thread_local=False)

    def has_run(self) -> bool:
        """Whether a run was started here."""
        return self.record.exists()

    def check_has_run(self) -> None:
        """Checks that a run was started here.

        Raises:
            UserError: no run; says how to make one.
        """
        if not self.has_run():
            raise UserError(
                f"{self.path}: no run there; train one with `python train.py --config "
                f"configs/tiny.yaml --run_dir {shlex.quote(str(self.path))}`"
            )

    def lock(self) -> None:
        """Makes the folder, takes it for this process, removes what a killed one left half written.

        The lock dies with the process, however it ends. A second call does nothing.

        Raises:
            UserError: another process holds it.
        """
        if self._lock.is_locked:
            return
        check_writable(self.path, "run_dir", "folder")
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"{self.path}: another process is writing this run; wait for it or stop it"
            ) from None
        for path in self.path.glob(".*.tmp-*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the folder back."""
        self._lock.release()

    def read_record(self) -> dict[str, Any]:
        """run.json.

        Raises:
            UserError: no run here, or the file is damaged.
        """
        self.check_has_run()
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except ValueError:
            record = None
        if not is_run_record(record):
            raise UserError(f"{self.record}: damaged, not the record of a run; put it back")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes run.json."""
        write_atomic(self.record, (json.dumps(record, indent=1) + "\n").encode())


def is_run_record(record: Any) -> bool:
    """Whether a value has the parts of run.json that programs read.

    >>> is_run_record({})
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
