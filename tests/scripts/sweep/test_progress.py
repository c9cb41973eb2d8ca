"""scripts.sweep.progress: the bar, the time left, and the lines about points that have ended."""

from __future__ import annotations

import sys
from concurrent.futures import Future

import pytest

from scripts.sweep import progress
from scripts.sweep.progress import SweepBar, steps_done
from tests.scripts.sweep.helpers import make_points
from utils.metrics import CsvLog


@pytest.fixture
def job(base, tmp_path) -> progress.Job:
    (one,) = make_points(base, tmp_path)
    one.log.parent.mkdir(parents=True)
    return one


def ended(result: int | Exception | None) -> Future[int | None]:
    future: Future[int | None] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_the_reason_of_a_failed_point_is_logged(job, capsys):
    progress.record_end(job, ended(3), False)
    assert "exit status 3: its log is empty; can its worker access" in capsys.readouterr().err
    job.log.write_text("one\ntwo\n", encoding="utf-8")
    progress.record_end(job, ended(3), False)
    assert f"base: failed, exit status 3: two (see {job.log})" in capsys.readouterr().err
    progress.record_end(job, ended(RuntimeError("all workers\ndied")), False)
    assert "base: failed, all workers died" in capsys.readouterr().err
    lost: Future[int | None] = Future()
    lost.cancel()
    progress.record_end(job, lost, False)
    assert "base: failed, the connection to the cluster was lost" in capsys.readouterr().err


def test_a_stopped_point_is_new_if_its_run_has_not_started(job, capsys):
    progress.record_end(job, ended(143), True)
    assert job.status == "new" and capsys.readouterr().err == ""
    job.run.path.mkdir()
    job.run.record.touch()
    progress.record_end(job, ended(143), True)
    assert job.status == "stopped"


def test_the_progress_bar_shows_the_best_point(job, tmp_path):
    assert progress.best_so_far([job]) == ""
    job.status = "done"  # without metrics.csv
    assert progress.best_so_far([job]) == ""
    job.run.path.mkdir()
    log = CsvLog(job.run.metrics)
    log.write({"step": 0, "val_loss": 2.0, "val_bpb": 1.0})
    assert progress.best_so_far([job]) == ""  # step 0 is not a result
    log.write({"step": 9, "val_loss": 3.0, "val_bpb": 1.5})
    assert progress.best_so_far([job]) == "best so far 1.5000 bits/byte, base"


def write_steps(job: progress.Job, *steps: int) -> None:
    job.run.path.mkdir(parents=True, exist_ok=True)
    log = CsvLog(job.run.metrics, after_step=max(steps))
    for step in steps:
        if step > log.last_step:
            log.write({"step": step, "val_loss": 3.0, "val_bpb": 1.5})


@pytest.fixture
def clock(monkeypatch):
    """Return a list with the time; a test sets its only element."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_bar_shows_running_points_and_the_time_left(base, tmp_path, clock, monkeypatch):
    """Four points of 10 steps, one of them done before, one resumed from step 4."""
    jobs = make_points(base, tmp_path, "grid: {lr: [1e-3, 2e-3, 3e-3, 4e-3]}\nset: {max_steps: 10}")
    done, resumed, second, third = jobs
    write_steps(done, 10)
    done.status = "done"
    write_steps(resumed, 4)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = SweepBar(jobs)
    assert bar.describe() == "1/4 points done; best so far 1.5000 bits/byte, lr=0.001"
    assert bar.bar.n == pytest.approx(1.4)
    write_steps(resumed, 4, 9)
    write_steps(second, 5)
    clock[0] += 20  # 10 of the remaining 26 steps took 20 seconds, so 16 take 32
    bar.refresh_if_due()
    assert bar.describe().startswith(
        "1/4 points done, about 00:32 left; 90%, 50% of lr=0.002, lr=0.003; best so far"
    )
    assert bar.bar.n == pytest.approx(2.4)
    assert str(bar.bar).startswith(" 60%|") and "about 00:32 left" in str(bar.bar)
    write_steps(resumed, 4, 9, 10)
    bar.end(resumed, ended(0), False)
    assert bar.describe().startswith("2/4 points done, about 00:27 left; 50% of lr=0.003; best")
    bar.end(third, ended(3), False)  # failed: no steps are left, and none were taken
    assert bar.describe().startswith("2/4 points done, about 00:09 left; 50% of lr=0.003; best")
    bar.end(second, ended(143), True)  # stopped by Ctrl-C: not shown as complete
    assert second.status == "new" and bar.bar.n == pytest.approx(3.5)
    bar.close()


def test_without_a_terminal_a_line_a_minute_shows_the_progress(base, tmp_path, clock, capsys):
    jobs = make_points(base, tmp_path, "grid: {lr: [1e-3, 2e-3]}\nset: {max_steps: 10}")
    bar = SweepBar(jobs)
    clock[0] += 30
    bar.refresh_if_due()
    assert capsys.readouterr().err == ""
    write_steps(jobs[0], 5)
    clock[0] += 30
    bar.refresh_if_due()
    assert capsys.readouterr().err == "0/2 points done, about 03:00 left; 50% of lr=0.001\n"
    write_steps(jobs[0], 5, 10)
    bar.end(jobs[0], ended(0), False)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("lr=0.001: done") and second.startswith("1/2 points done, about 01:00")
    bar.close()


def test_the_steps_of_a_run_are_read_from_the_end_of_its_metrics(job):
    assert steps_done(job.run) == 0
    job.run.path.mkdir()
    log = CsvLog(job.run.metrics)
    assert steps_done(job.run) == 0
    for step in range(1, 300):
        log.write({"step": step, "val_loss": 1 / 3, "val_bpb": 1 / 3})
    with open(job.run.metrics, "ab") as file:
        file.write(b"3000,")  # a row that is being written
    assert job.run.metrics.stat().st_size > progress.TAIL_BYTES and steps_done(job.run) == 299
