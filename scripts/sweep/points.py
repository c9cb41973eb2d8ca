"""The points of a sweep as runs: checked settings, status of the folder, command, result row."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.prepare import measure_text
from model.training.config import is_complete
from scripts.finished import MAY_DIFFER, difference, val_text
from scripts.report import run_figures
from scripts.sweep.grid import Point, Sweep, format_setting
from train import Config, initial_settings
from utils.config.load import build, load
from utils.config.schema import flatten
from utils.config.sizing import sized
from utils.config.strict_yaml import format_value
from utils.errors import UserError, errors_at
from utils.metrics import CLOCK_COLUMNS
from utils.output import as_utf8
from utils.run import checkpoint
from utils.run.folder import RunFolder

# Measured columns of results.csv, from `run_figures`.
MEASURED = ("step", "best_step", "val_loss", "val_bpb", "train_loss")

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
THREADS = "train.num_threads"


@dataclass
class Job:
    """A point with its checked settings, its folder, and its status."""

    point: Point
    settings: dict[str, Any]  # dotted names, given to train.py as flags
    config: Config
    run: RunFolder
    log: Path
    status: str  # new, resumable, done; later also failed, stopped

    def base_command(self) -> list[str]:
        """Return the part of the command that a new and a resumed run share."""
        return [sys.executable, str(TRAIN), "--run_dir", str(self.run.path)]

    def new_run_flags(self, base: str) -> list[str]:
        """Return the flags of a new run."""
        settings = [f"--{name}={format_value(v)}" for name, v in self.settings.items()]
        return [*(["--config", base] if base else []), *settings]

    def command(self, base: str) -> list[str]:
        """Return the command that trains or resumes this point."""
        rest = ["--resume"] if self.status == "resumable" else self.new_run_flags(base)
        return [*self.base_command(), *rest]

    def watchdog_command(self, base: str) -> list[str]:
        """Return the arguments of scripts/sweep/watchdog.py, which decides whether to resume."""
        options = ["--log", str(self.log), "--run", str(self.run.path)]
        return [*options, *self.base_command(), "--", *self.new_run_flags(base)]

    def row(self) -> dict[str, Any]:
        """Return the point's row of results.csv."""
        labels = {"point": self.point.name, "change": self.point.change, "status": self.status}
        settings = {name: format_setting(value) for name, value in flatten(self.config).items()}
        more: dict[str, Any] = {"seed": self.config.train.seed}
        if self.status == "done":
            record = self.run.read_record()
            more |= {"data": record["data"]["identity"], "text": val_text(record, self.config)}
        return labels | settings | more | run_figures(self.run.metrics)


def make_jobs(sweep: Sweep, path: str, out: Path, threads: int) -> list[Job]:
    """Return all points with checked settings and the status of their folders.

    Args:
        path: of the sweep's file, for messages.
        threads: of each run, if train.num_threads is not set.

    Raises:
        UserError: settings that can't be combined, or a folder that contains another run.
    """
    base, given = load(Config, [sweep.config] if sweep.config else [], {})
    shared = {} if base.train.num_threads else {THREADS: threads}
    jobs = []
    for point in sweep.points():
        settings, run = shared | point.settings, RunFolder(out / point.name)
        with errors_at(f"{path}: point {point.name}"):
            values = flatten(base) | settings | {"run_dir": str(run.path)}
            config = build(Config, values | initial_settings(given | settings))
            config, _ = sized(config, given | settings, measure_text)
            for name in ("max_minutes", "max_passes"):  # points would differ in their steps
                if getattr(config.train, name):
                    raise UserError(f"train.{name}: set train.max_steps instead in a sweep")
            status = point_status(run, config)
        jobs.append(Job(point, settings, config, run, out / "logs" / f"{point.name}.log", status))
    check_duplicates(jobs, path)
    return jobs


def check_duplicates(jobs: Sequence[Job], path: str) -> None:
    """Check that no two points have the same settings.

    Raises:
        UserError: a change equals the base or another change.
    """
    found: dict[str, str] = {}
    for job in jobs:
        settings = flatten(job.config) | {"run_dir": ""}
        if (first := found.setdefault(str(settings), job.point.name)) != job.point.name:
            both = f"points {first} and {job.point.name}"
            raise UserError(f"{path}: {both} have the same settings; drop one")


def point_status(run: RunFolder, config: Config) -> str:
    """Return the status of a point: new, resumable or done.

    Raises:
        UserError: its folder contains a run with other settings.
    """
    if not run.has_run():
        return "new"
    stored, _ = load(Config, [str(run.config)], {})
    if differs := difference(stored, config, MAY_DIFFER):
        raise UserError(f"{run.path} contains a run with {differs}; name a new --out, or remove it")
    try:
        state = checkpoint.load(run.last, required=checkpoint.SCHEMA)
    except UserError:  # missing or damaged: train.py reports it
        return "resumable"
    return "done" if is_complete(stored.train, state) else "resumable"


def to_csv(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> bytes:
    """Return the CSV file: point, change if any, settings, seed, figures, status, CLOCK_COLUMNS.

    The CLOCK_COLUMNS are last; all columns before them are reproducible.
    """
    change = ["change"] if any(row.get("change") for row in rows) else []
    header = ("point", *change, *settings, "seed", *MEASURED, "status", *CLOCK_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return as_utf8(text.getvalue()).encode()
