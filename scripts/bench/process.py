"""Runs programs in processes of their own, and watches their memory or what they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ALL_CORES = {"TOKENIZERS_PARALLELISM": "true"}
POLL_S = 0.1


def run_job(
    job: dict[str, Any],
    environment: dict[str, str],
    module: str = "scripts.bench.tokenizer.worker",
    *,
    watched: bool = True,
) -> dict[str, Any]:
    """The figures of a job; {"error": why} if it failed. Adds "peak_bytes" of all its processes.

    Watching its memory takes a core's time, which a job that is timed on all cores feels; one that
    is not watched tells "peak_bytes" itself.
    """
    dropped = {*ONE_CORE} - {*environment}
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(job)],
            cwd=ROOT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            peak = watch(process) if watched else 0
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        printed, complaint = out.read(), err.read().decode("utf-8", "replace").strip()
    if process.returncode:
        return {"error": (complaint.splitlines() or [f"exit status {process.returncode}"])[-1]}
    figures = json.loads(printed)
    figures["peak_bytes"] = max(peak, figures.get("peak_bytes", 0))
    return figures


def watch(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of a process; returns the most memory that it and those below it held."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(POLL_S if peak else POLL_S / 10)
    return peak


def peak_rss_bytes() -> int:
    """Most memory that this process ever held; 0 where the system does not say."""
    try:
        # Not ru_maxrss on Linux: it begins with what the parent held when it started this process.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tree_bytes(pid: int) -> int:
    """Memory of a process and all below it now, shared pages counted once; 0 without /proc."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError):  # it has ended, or this is not Linux
            continue
    return total


def family(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                yield from family(int(child))
    except OSError:
        return


@dataclass
class Timed:
    """A program's time, and what it told meanwhile as (seconds since its start, value)."""

    seconds: float = 0.0
    status: int = 0
    told: list[tuple[float, float]] = field(default_factory=list)


def run_timed(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    look: Callable[[], list[float]],
) -> Timed:
    """Runs a program from start to end, all that it prints going to `log`.

    Args:
        look: reads the values that the program has told so far, in order; asked ten times a second.
    """
    result = Timed()
    with open(log, "wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            running = True
            while running:
                try:
                    result.status = process.wait(POLL_S)
                    running = False
                except subprocess.TimeoutExpired:
                    pass
                result.seconds = time.perf_counter() - start
                values = look()[len(result.told) :]
                result.told += [(result.seconds, value) for value in values]
        except BaseException:
            process.kill()
            process.wait()
            raise
    return result
