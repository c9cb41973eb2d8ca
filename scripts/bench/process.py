"""Run programs in separate processes, and record their memory or the values that they report."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

from scripts.report import last_line
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Environment variables that limit the libraries to one core, or let them use all.
ONE_CORE = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
ALL_CORES = {"TOKENIZERS_PARALLELISM": "true"}
POLL_S = 0.1

Job = dict[str, Any]  # what a worker process measures, as JSON; its keys are up to the worker
Figures = dict[str, Any]  # what it has measured, or {"error": reason}


@contextlib.contextmanager
def running(
    command: Sequence[str],
    stdout: IO[bytes],
    *,
    stderr: IO[bytes] | int = subprocess.STDOUT,
    cwd: Path = ROOT,
    env: Mapping[str, str] = os.environ,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program. If it still runs when the block ends, kill it and all its descendants."""
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for one in process_tree(process.pid):
                    with contextlib.suppress(psutil.Error):
                        one.kill()


def process_tree(pid: int) -> list[psutil.Process]:
    """Return the process and its descendants; empty if the process has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def run_job(
    job: Job, environment: dict[str, str], module: str, *, measure_memory: bool = False
) -> Figures:
    """Run a job with `module` in a new process; return its figures, or {"error": reason}.

    Args:
        environment: variables to add, such as ONE_CORE.
        module: calls `run_worker` when it is run.
        measure_memory: "peak_bytes" also counts the child processes of the job. Polling their
            memory takes CPU time, which slows a job that is timed on all cores.
    """
    # The limits on threads come from `environment` alone, not from the caller's shell.
    dropped = {*ONE_CORE} - {*environment}
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    command = [sys.executable, "-m", module, json.dumps(job)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with running(command, out, stderr=err, env={**inherited, **environment}) as process:
            peak = wait_and_measure_peak(process) if measure_memory else 0
            status = process.wait()
        out.seek(0)
        err.seek(0)
        if status:
            return {"error": last_line(err.read()) or f"exit status {status}"}
        figures: Figures = json.load(out)
    figures["peak_bytes"] = max(peak, figures.get("peak_bytes", 0))
    return figures


def run_worker(work: Callable[[Job], Figures]) -> None:
    """Do the job that `run_job` passes: print its figures to stdout, everything else to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(work(json.loads(sys.argv[1]))), file=out)


def wait_and_measure_peak(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end; return the peak memory in bytes of it and its descendants."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, process_tree_bytes(process.pid))
        # Shorter before the first measurement, so that a short process has one.
        time.sleep(POLL_S if peak else POLL_S / 10)
    return peak


def process_tree_bytes(pid: int) -> int:
    """Return the bytes that a process and its descendants use.

    Pages that they share count once on Linux, and not at all elsewhere.
    """
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(psutil.Error):  # it has ended, or access is denied
            memory = one.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total


class Timed(NamedTuple):
    """A program's run time, and its reported values as (seconds since its start, value)."""

    seconds: float
    values: list[tuple[float, float]]


def run_timed(
    name: str,
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    read_values: Callable[[], list[float]],
) -> Timed:
    """Run a program to its end, with its output in `log`, and time the values that it reports.

    Args:
        name: of the program, for the error message.
        read_values: returns all values that the program has reported so far, in order. It is
            called every POLL_S seconds.

    Raises:
        UserError: the program failed; quotes the last line that it printed.
    """
    values: list[tuple[float, float]] = []
    status, start = None, time.perf_counter()
    with open(log, "wb") as output, running(command, output, cwd=cwd, env=env) as process:
        while status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(POLL_S)
            seconds = time.perf_counter() - start
            values += [(seconds, value) for value in read_values()[len(values) :]]
    if status:
        reason = last_line(log.read_bytes()) or f"exit status {status}"
        raise UserError(f"{name} failed: {reason}; make it work alone first")
    return Timed(seconds, values)
