"""Trains every point of a grid: `python -m scripts.sweep --config configs/sweep.yaml --workers 2`.

Each point is a run folder: finished ones are skipped, begun ones go on. results.csv holds a row for
each point and is written anew whenever one ends; a ranked table comes last, on stdout.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started as scripts/sweep.py, which leaves the root out
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before the imports that take long
    from utils.interrupt import end_at_once

    end_at_once()

from tqdm import tqdm

from data.prepare import prepare
from pretrained import adopt
from settings import Config, is_finished
from trainer import say
from utils import checkpoint
from utils.children import Children, last_line
from utils.cli import Parser
from utils.config import build, flat_fields, flatten, load
from utils.errors import UserError, run_cli
from utils.files import write_atomic
from utils.grid import BASE, Grid, Point, plain_text
from utils.grid_file import load_grid
from utils.interrupt import Interrupt
from utils.ranking import changes, group, ranking, verdict
from utils.results import measured, to_csv
from utils.runs import RunFolder
from utils.strict_yaml import format_value

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
THREADS = "train.num_threads"
POLL_S = 0.2  # how soon a signal is noticed


@dataclass
class Job:
    """A point with its settings checked, its folder, and how it stands."""

    point: Point
    settings: dict[str, Any]  # dotted names, given to train.py as flags
    config: Config
    run: RunFolder
    log: Path
    status: str  # new, resumable, done; later also failed, stopped

    def command(self, base: str) -> list[str]:
        """The command that trains or resumes this point."""
        head = [sys.executable, str(TRAIN), "--run_dir", str(self.run.path)]
        if self.status == "resumable":
            return [*head, "--resume"]
        settings = [f"--{name}={format_value(v)}" for name, v in self.settings.items()]
        return [*head, *(["--config", base] if base else []), *settings]

    def row(self) -> dict[str, Any]:
        """The point's row of results.csv."""
        own = {"point": self.point.name, "change": self.point.change, "status": self.status}
        settings = {name: plain_text(value) for name, value in flatten(self.config).items()}
        return {**own, **settings, "seed": self.config.train.seed, **measured(self.run)}


def make_jobs(grid: Grid, path: str, out: Path, threads: int) -> list[Job]:
    """All points, their settings checked and their folders looked at; nothing has run yet.

    Raises:
        UserError: settings that don't go together, or a folder that holds another run.
    """
    base, given = load(Config, [grid.config] if grid.config else [], {})
    shared = {} if base.train.num_threads else {THREADS: threads}
    jobs = []
    for point in grid.points():
        settings, run = shared | point.settings, RunFolder(out / point.name)
        try:
            config = build(Config, flatten(base) | settings | {"run_dir": str(run.path)})
            config = adopt(config, given | settings)
            status = standing(run, config)
        except UserError as error:
            raise UserError(f"{path}: point {point.name}: {error}") from None
        jobs.append(Job(point, settings, config, run, out / "logs" / f"{point.name}.log", status))
    refuse_twins(jobs, path)
    return jobs


def refuse_twins(jobs: Sequence[Job], path: str) -> None:
    """Refuses points that are one and the same run.

    Raises:
        UserError: a change that changes nothing, or nothing else than another one.
    """
    found: dict[str, str] = {}
    for job in jobs:
        settings = flatten(job.config) | {"run_dir": ""}
        if (first := found.setdefault(str(settings), job.point.name)) != job.point.name:
            raise UserError(
                f"{path}: points {first} and {job.point.name} have the same settings; drop one"
            )


def standing(run: RunFolder, config: Config) -> str:
    """Whether a point is new, resumable or done.

    Raises:
        UserError: its folder holds a run with other settings.
    """
    if not run.holds_run():
        return "new"
    own, _ = load(Config, [str(run.config)], {})
    wanted, fields = flatten(config), flat_fields(Config)
    for name, value in flatten(own).items():
        follows = name in ("run_dir", THREADS) or fields[name][1].metadata["free"]
        if value != wanted[name] and not follows:
            found, expected = plain_text(value), plain_text(wanted[name])
            raise UserError(
                f"{run.path} holds a run with {name} {found}, not {expected}; "
                "name another --out, or remove that folder"
            )
    try:
        state = checkpoint.load(run.last)
    except UserError:  # none yet, or damaged: train.py says so
        return "resumable"
    return "done" if is_finished(own, state["step"], state["bad_evals"]) else "resumable"


def run_when_free(children: Children, job: Job, base: str) -> int | None:
    """Runs a point; one whose process still lives, of a sweep that was killed, is waited for."""
    while job.status == "resumable" and job.run.is_taken() and not children.stopping:
        time.sleep(POLL_S)
    return children.run(job.command(base), job.log)


def run_jobs(jobs: Sequence[Job], workers: int, base: str, save: Any) -> int:
    """Runs what is not done, so many at once; the status that a signal makes the exit status, or 0.

    Args:
        save: called whenever a point has ended.
    """
    waiting = [job for job in jobs if job.status != "done"]
    children = Children()
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), desc="points", disable=None)
    with Interrupt() as interrupt, bar, ThreadPoolExecutor(workers) as pool:
        try:
            futures = {pool.submit(run_when_free, children, job, base): job for job in waiting}
            left = set(futures)
            while left:
                ended, left = wait(left, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    note_end(futures[future], future.result(), children.stopping)
                    bar.update()
                    save()
                if interrupt.number is not None and not children.stopping:
                    say("stopping: the points under way write their checkpoints")
                    children.stop()
        finally:
            children.stop()
    return interrupt.exit_status


def note_end(job: Job, exit_status: int | None, stopping: bool) -> None:
    """Sets the status of a point whose process has ended, and tells."""
    if exit_status is None:  # never begun
        return
    job.status = "done" if exit_status == 0 else "stopped" if stopping else "failed"
    if exit_status == 0:
        figures = measured(job.run)
        words = f"val {float(figures['val_loss']):.4f} nats/token at step {figures['best_step']}"
    else:
        words = f"exit status {exit_status}: {last_line(job.log)} (see {job.log})"
    say(f"{job.point.name}: {job.status}, {words}")


def arguments(argv: Sequence[str] | None) -> Any:
    """Parses and checks the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="scripts.sweep", description=__doc__)
    parser.add_argument(
        "--config", default="configs/sweep.yaml", help="the sweep's file (default: %(default)s)"
    )
    parser.add_argument("--out", default="", help="folder of the runs (default: as in the file)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="runs at once, sharing the cores; the last digits may depend on it (default: 1)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the points and do nothing")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers: must be at least 1, got {args.workers}")
    return args


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sweep to its end; 1 if a point failed."""
    args = arguments(argv)
    grid = load_grid(args.config, Config)
    out = Path(args.out or grid.out or f"runs/{Path(args.config).stem}")
    jobs = make_jobs(grid, args.config, out, max(1, cores() // args.workers))
    if args.dry_run:
        for job in jobs:
            print(f"{job.status}: {shlex.join(job.command(grid.config))}")
        return 0
    for job in jobs:  # before anything runs: it may be refused, and the points share it
        prepared = job.config.data.dir or job.config.train.init_from  # whose tokenizer is its own
        if job.status != "done" and not prepared:
            prepare(job.config.data, job.config.model.vocab_size)
    (out / "logs").mkdir(parents=True, exist_ok=True)

    def save() -> None:
        rows = [job.row() for job in jobs]
        write_atomic(out / "results.csv", to_csv(rows, grid.settings))

    save()
    status = run_jobs(jobs, args.workers, grid.config, save)
    groups = group([job.row() for job in jobs], grid.settings)
    if grid.changes:
        print(changes(groups, BASE))
    else:
        print("\n".join(filter(None, [ranking(groups), verdict(groups)])))
    failed = [job.point.name for job in jobs if job.status == "failed"]
    if failed:
        say(f"{len(failed)} of {len(jobs)} points failed: {' '.join(failed)}")
    say(f"{out / 'results.csv'}: {sum(job.status == 'done' for job in jobs)} of {len(jobs)} done")
    return status or (1 if failed else 0)


if __name__ == "__main__":
    run_cli(main)
