"""Progress of a sweep: a bar with the time left, and a line whenever a point ends."""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future

from tqdm import tqdm

from model.training.duration import (
    ESTIMATE_S,
    is_worth_measuring,
    measure,
    run_flops,
    trial_settings,
)
from scripts.report import last_line, run_figures
from scripts.sweep.points import Job
from scripts.sweep.ranking import loss_of
from train import build_trainer
from utils.device import pick_device
from utils.errors import UserError, one_line, plural
from utils.output import log, log_if_not_tty, progress_bar
from utils.run.folder import RunFolder

TAIL_BYTES = 4096  # the end of a metrics.csv: longer than one row
START_S = 5.0  # of a point: imports, data, plot
TRIAL_STEPS = 20  # at most, to measure the speed
REFRESH_S, LINE_S = 1.0, 60.0  # between refreshes of the bar, and between lines without a terminal


class SweepBar:
    """A progress bar over the steps of all points, with the time left and the running points."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Start the bar; end it with `close`."""
        self.jobs = jobs
        self.waiting = [job for job in jobs if job.status != "done"]  # not ended; some are running
        self.total = {job.point.name: job.config.train.max_steps for job in jobs}
        self.steps = dict(self.total)  # a point that has ended counts as complete: none are left
        self.read_steps()
        self.first = dict(self.steps)  # steps taken before this sweep started
        self.started = self.refreshed = time.monotonic()
        self.bar = progress_bar(total=len(jobs), bar_format="{desc}", dynamic_ncols=True)
        self.refresh()

    def read_steps(self) -> None:
        """Read the steps that each point which has not ended has taken."""
        for job in self.waiting:
            self.steps[job.point.name] = steps_done(job.run)

    def refresh(self) -> None:
        """Read the steps of all points, and draw the bar again."""
        self.refreshed = time.monotonic()
        self.read_steps()
        self.bar.n = sum(self.steps[name] / total for name, total in self.total.items())
        # bar_format is a format string: a brace in a name must be doubled.
        text = self.describe().replace("{", "{{").replace("}", "}}")
        self.bar.bar_format = f"{{percentage:3.0f}}%|{{bar:10}}| {text}"
        self.bar.refresh()

    def refresh_if_due(self) -> None:
        """Refresh the bar of a terminal about once a second; without one, log a line a minute."""
        since = time.monotonic() - self.refreshed
        if since >= (LINE_S if self.bar.disable else REFRESH_S):
            self.refresh()
            log_if_not_tty(self.describe())

    def end(self, job: Job, future: Future[int | None], stopping: bool) -> None:
        """Record and log the end of a point's process."""
        self.read_steps()
        self.waiting.remove(job)
        record_end(job, future, stopping)
        name = job.point.name
        if stopping and job.status != "done":
            return
        if job.status != "done":  # the steps that it has not taken say nothing about the speed
            self.first[name] += self.total[name] - self.steps[name]
        self.steps[name] = self.total[name]
        self.refresh()
        if self.waiting and not stopping:
            log_if_not_tty(self.describe())

    def describe(self) -> str:
        """Return the bar's text, the most important first: a narrow terminal cuts the rest."""
        done = sum(job.status == "done" for job in self.jobs)
        points = f"{done}/{len(self.jobs)} points done"
        left = sum(self.total.values()) - sum(self.steps.values())
        taken = sum(self.steps.values()) - sum(self.first.values())
        if left and taken:
            seconds = (time.monotonic() - self.started) * left / taken
            points += f", about {tqdm.format_interval(seconds)} left"
        running = [job.point.name for job in self.waiting]
        running = [name for name in running if self.steps[name] > self.first[name]]
        shares = ", ".join(f"{self.steps[name] / self.total[name]:.0%}" for name in running)
        words = f"{shares} of {', '.join(running)}" if running else ""
        return "; ".join(filter(None, [points, words, best_so_far(self.jobs)]))

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def flops_left(job: Job) -> float:
    """Return the FLOPs of the steps that a point has not taken."""
    return run_flops(job.config) * (1 - steps_done(job.run) / job.config.train.max_steps)


def describe_duration(jobs: Sequence[Job], parallel: int) -> str:
    """Return a line about the time that the points which are not done will take.

    It is measured: some steps of the largest point, by a trainer that is thrown away. It is not
    known if the points take seconds or run on a GPU, whose memory they need. A point that can't
    start will report the reason itself.
    """
    waiting = [job for job in jobs if job.status != "done"]
    text = f"{plural(len(waiting), 'point')} to run, {parallel} in parallel"
    largest = max(waiting, key=lambda job: run_flops(job.config))
    config, train = largest.config, largest.config.train
    with contextlib.suppress(UserError, OSError, RuntimeError):
        if is_worth_measuring(config) and pick_device(train.device).type == "cpu":
            trial = dataclasses.replace(config, train=trial_settings(train, 1))
            trainer, _ = build_trainer(trial, largest.run)
            with contextlib.closing(trainer.batches):
                seconds = measure(trainer, train, ESTIMATE_S, TRIAL_STEPS).total_s(train)
            seconds *= sum(map(flops_left, waiting)) / run_flops(config)
            seconds = (seconds + START_S * len(waiting)) / max(1, min(parallel, len(waiting)))
            text += f", about {tqdm.format_interval(seconds)} in all"
    return text


def steps_done(run: RunFolder) -> int:
    """Return the step in the last complete row of a run's metrics.csv, or 0."""
    try:
        with open(run.metrics, "rb") as file:
            file.seek(max(0, os.path.getsize(run.metrics) - TAIL_BYTES))
            rows = file.read().split(b"\n")[:-1]
    except OSError:  # the run has not started
        return 0
    step = rows[-1].split(b",")[0] if rows else b""
    return int(step) if step.isdigit() else 0  # not the header


def record_end(job: Job, future: Future[int | None], stopping: bool) -> None:
    """Set the status of a point whose process has ended, and log it."""
    exit_status, error = outcome(future)
    if exit_status == 0:
        job.status = "done"
        figures = run_figures(job.run.metrics)
        words = f"val {float(figures['val_loss']):.4f} nats/token at step {figures['best_step']}"
    elif stopping:
        if not job.run.has_run():  # the run has not started
            return
        job.status, words = "stopped", "the next call resumes it"
    else:
        job.status = "failed"
        last = last_line(job.log.read_bytes() if job.log.exists() else b"")
        last = last or "its log is empty; can its worker access this folder?"
        words = error or f"exit status {exit_status}: {last} (see {job.log})"
    log(f"{job.point.name}: {job.status}, {words}")


def outcome(future: Future[int | None]) -> tuple[int | None, str]:
    """Return the exit status of a process, or None and the reason why there is none."""
    if future.cancelled():
        return None, "the connection to the cluster was lost"
    error = future.exception()
    return (None, one_line(error)) if error else (future.result(), "")


def best_so_far(jobs: Sequence[Job]) -> str:
    """Return the best finished point as text for the progress bar, or ""."""
    done = [job for job in jobs if job.status == "done"]
    found = [(loss_of(run_figures(job.run.metrics)), job.point.name) for job in done]
    bits, name = min((one for one in found if math.isfinite(one[0])), default=(math.nan, ""))
    return f"best so far {bits:.4f} bits/byte, {name}" if name else ""
