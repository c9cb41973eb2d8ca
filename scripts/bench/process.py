"""Runs programs in separate processes, and watches their memory or what they write."""

from __future__ import annotations

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

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ALL_CORES = {"TOKENIZERS_PARALLELISM": "true"}
POLL_S = 0.1

Job = dict[str, Any]
Figures = dict[str, Any]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    stdout: IO[bytes],
    *,
    stderr: IO[bytes] | int = subprocess.STDOUT,
    cwd: Path = ROOT,
    env: Mapping[str, str] = os.environ,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program; if it still runs when the block ends, it is killed with all its descendants."""
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for one in family(process.pid):
                    with contextlib.suppress(psutil.Error):
                        one.kill()


def family(pid: int) -> list[psutil.Process]:
    """The process and its descendants; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def run_job(
    job: Job, environment: dict[str, str], module: str, *, watched: bool = False
) -> Figures:
    """The figures of a job that `module` does; {"error": why} if it failed.

    Args:
        watched: "peak_bytes" is the memory of all its processes. Watching takes a core's time,
            which a job that is timed on all cores feels.
    """
    dropped = {*ONE_CORE} - {*environment}
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    command = [sys.executable, "-m", module, json.dumps(job)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with running(command, out, stderr=err, env={**inherited, **environment}) as process:
            peak = watch(process) if watched else 0
            status = process.wait()
        out.seek(0)
        err.seek(0)
        if status:
            return {"error": last_line(err.read(), status)}
        figures: Figures = json.load(out)
    figures["peak_bytes"] = max(peak, figures.get("peak_bytes", 0))
    return figures


def do_job(work: Callable[[Job], Figures]) -> None:
    """The other end of `run_job`: figures go to stdout, and what is printed meanwhile to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(work(json.loads(sys.argv[1]))), file=out)


def watch(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of a process; returns the most memory that it and those below it held."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(POLL_S if peak else POLL_S / 10)
    return peak


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants now; on Linux shared pages are counted once."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(psutil.Error):  # it has ended, or may not be looked at
            memory = one.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total


class Timed(NamedTuple):
    """A program's time, and what it reported meanwhile as (seconds since its start, value)."""

    seconds: float
    values: list[tuple[float, float]]


def run_timed(
    who: str,
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    look: Callable[[], list[float]],
) -> Timed:
    """Runs a program from start to end, all that it prints going to `log`.

    Args:
        who: its name, for the error.
        look: reads the values that the program has reported so far, in order; called ten times a
            second.

    Raises:
        UserError: it failed; with the last line that it printed.
    """
    values: list[tuple[float, float]] = []
    status, start = None, time.perf_counter()
    with open(log, "wb") as output, running(command, output, cwd=cwd, env=env) as process:
        while status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(POLL_S)
            seconds = time.perf_counter() - start
            values += [(seconds, value) for value in look()[len(values) :]]
    if status:
        raise UserError(f"{who} failed: {last_line(log.read_bytes(), status)}")
    return Timed(seconds, values)


def last_line(output: bytes, status: int) -> str:
    """The last line that a program printed; its exit status if there is none.

    >>> last_line(b"a\\n b \\n\\n", 1), last_line(b"", 3)
    ('b', 'exit status 3')
    """
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {status}"
