"""Run folders: the paths of a run's files, a lock for the process that writes, and run.json."""

import json
import os
from pathlib import Path
from typing import Any

import filelock

from utils.errors import UserError, looked_in
from utils.files import check_writable, parse_json, read_bytes, write_atomic
from utils.run.locks import acquire
from utils.suggest import did_you_mean, shell_quote

DEFAULT_RUN = "runs/tiny"  # of a run with the default config, as `make train` starts
FLAGS_RUN = "runs/default"  # of a run with flags only, without --config


class RunFolder:
    """The paths of a run folder, its lock, and its run.json."""

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
        logs = [self.metrics, self.samples, self.tensorboard, self.plot]
        self._files = [self.last, self.best, *logs, self.config, self.tokenizer]
        self.samples_size: int | None = None  # in bytes, when last.pt was saved; set by check_logs
        self._lock = filelock.FileLock(self.path / "lock", blocking=False, thread_local=False)

    def has_run(self) -> bool:
        """Return whether a run was started here."""
        return self.record.exists()

    def check_has_run(self, settings: str = "--config configs/tiny.yaml") -> None:
        """Check that a run was started here.

        Args:
            settings: flags for the command of the message.

        Raises:
            UserError: no run; the message shows the command that starts one.
        """
        if self.path.suffix and RunFolder(self.path.parent).has_run():
            is_checkpoint = self.path.name in ("best.pt", "last.pt")
            more = f", with --checkpoint {self.path.stem}" if is_checkpoint else ""
            raise UserError(f"{self.path}: a file, not a run folder; name {self.path.parent}{more}")
        if not self.has_run():
            inside = sorted({*self.path.glob("*/run.json"), *self.path.glob("*/*/run.json")})[:3]
            if inside:
                runs = " or ".join(str(record.parent) for record in inside)
                raise UserError(f"{self.path}: no run there; did you mean {runs}?")
            folder = shell_quote(self.path)
            where = looked_in(self.path) + did_you_mean(self.path, "run.json")
            raise UserError(
                f"{self.path}: no run there{where}; train one with "
                f"`python train.py {settings} --run_dir {folder}`"
            )

    def check_has_no_run(self, config: bytes | None = b"") -> None:
        """Check that the folder holds no run, can be written, and that no file is overwritten.

        Args:
            config: the content of the run's config.yaml. A folder that holds only this file and
                tokenizer.json was left by a killed start of the same run. None: of any run.

        Raises:
            UserError: the folder holds a run, or files with the names of a run's files, or can't be
                written.
        """
        if self.has_run():
            raise UserError(f"{self.path}: holds a run; add --resume, or name another run_dir")
        check_writable(self.path, "run_dir", "folder")
        found = self.files_of_a_run()
        if config != b"" and self.config.is_file() and config in (None, self.config.read_bytes()):
            found = [path for path in found if path not in (self.config, self.tokenizer)]
        if found:
            raise UserError(
                f"{self.path}: holds {found[0].name} without the run.json of a run; name another "
                "run_dir, or put run.json back and add --resume"
            )

    def files_of_a_run(self) -> list[Path]:
        """Return the files here with the names of a run's files, except for run.json."""
        return [path for path in self._files if os.path.lexists(path)]

    def lock(self) -> None:
        """Make the folder, lock it for this process, and remove files that killed processes left.

        The system releases the lock when the process ends. A second call does nothing.

        Raises:
            UserError: another process holds the lock.
        """
        if self._lock.is_locked:
            return
        check_writable(self.path, "run_dir", "folder")
        self.path.mkdir(parents=True, exist_ok=True)
        held_message = f"{self.path}: another process is writing this run; wait for it or stop it"
        if not acquire(self._lock, held_message):
            return
        for file in (self.record, *self._files):
            for path in self.path.glob(f".{file.name}.tmp-*"):
                if not path.is_dir():
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def read_record(self) -> dict[str, Any]:
        """Return the content of run.json.

        Raises:
            UserError: no run here, or the file is damaged.
        """
        self.check_has_run()
        try:
            record = parse_json(read_bytes(self.record))
        except ValueError:
            record = None
        if not is_run_record(record):
            raise UserError(f"{self.record}: damaged, not the record of a run; put it back")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Write run.json."""
        write_atomic(self.record, (json.dumps(record, indent=1) + "\n").encode())


def run_to_resume() -> str:
    """Return the run folder that an earlier start without --config and --run_dir has used.

    Raises:
        UserError: both DEFAULT_RUN and FLAGS_RUN hold a run.
    """
    found = [path for path in (DEFAULT_RUN, FLAGS_RUN) if RunFolder(path).has_run()]
    if len(found) == 2:
        raise UserError(
            f"--resume: there are two runs, {found[0]} and {found[1]}; name one with --run_dir"
        )
    return (found or [DEFAULT_RUN])[0]


def is_run_record(record: Any) -> bool:
    """Return whether a value has the keys of run.json that programs read, with their types.

    >>> is_run_record({})
    False
    """
    try:
        data, floor = record["data"], record["data"]["floor"]
        floors = [record["floor_nats_per_token"], floor and floor["nats_per_byte"]]
        valid = all(floor is None or isinstance(floor, float) for floor in floors)
        valid = valid and all(isinstance(data[name], str) for name in ("folder", "identity"))
        return valid and isinstance(record["starts"], list)
    except (KeyError, TypeError):
        return False
