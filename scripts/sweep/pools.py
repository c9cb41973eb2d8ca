"""Run the commands of a sweep: as processes here, or on the workers of a dask cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

import torch
from filelock import FileLock

from utils.errors import UserError, missing_package, one_line

WATCHDOG = Path(__file__).with_name("watchdog.py")

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
CONNECT_S = 10  # how long a scheduler may take to answer


class Pool(Protocol):
    """Runs commands, each with the options of scripts/sweep/watchdog.py before it."""

    def submit(self, command: Sequence[str], log: Path) -> Future[int | None]:
        """Return the future exit status of a command; None if the command was never started."""

    def stop(self) -> None:
        """Start nothing more and ask what runs to end; do not wait for it."""

    def close(self) -> None:
        """Stop, and release everything."""


class LocalPool:
    """Processes on this machine, a fixed number at once, that share its GPUs."""

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        """With one worker or without GPUs, every process sees what this one sees."""
        self._executor = ThreadPoolExecutor(workers)
        self._environments: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        for worker in range(workers):
            own = {**os.environ, GPU_VARIABLE: gpus[worker % len(gpus)]} if gpus else None
            self._environments.put(own if workers > 1 else None)
        self._lock = threading.Lock()
        self._running: set[IO[bytes]] = set()  # standard inputs of the watchdogs
        self._stopping = False

    def submit(self, command: Sequence[str], log: Path) -> Future[int | None]:
        """Append what the command prints to `log`; see `Pool`."""
        return self._executor.submit(self._run, command, log)

    def _run(self, command: Sequence[str], log: Path) -> int | None:
        environment = self._environments.get()  # as many as there are threads
        with contextlib.ExitStack() as stack:
            stack.callback(self._environments.put, environment)
            output = stack.enter_context(open(log, "ab"))
            with self._lock:
                if self._stopping:
                    return None
                # In its own session: Ctrl-C reaches it once, through stop(), not twice.
                child = subprocess.Popen(
                    [sys.executable, str(WATCHDOG), *command],
                    stdin=subprocess.PIPE,  # open until stop(), or this process's death
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
                assert child.stdin is not None
                self._running.add(child.stdin)
            status = child.wait()
            with self._lock:
                self._running.discard(child.stdin)
                child.stdin.close()
            return status

    def stop(self) -> None:
        """Start nothing more and ask what runs to end (SIGTERM); do not wait for it."""
        with self._lock:
            self._stopping = True
            for pipe in self._running:
                pipe.close()

    def close(self) -> None:
        """Stop, and wait for the processes to end."""
        self.stop()
        self._executor.shutdown()


class ClusterPool:
    """Workers of a dask.distributed cluster, which see this folder under the same path.

    What travels is a command line: the workers import nothing of ours. A command whose worker dies
    is given to another one.
    """

    def __init__(self, address: str, lock: FileLock) -> None:
        """Connects to a scheduler.

        Args:
            lock: the commands end when it is given back, by whatever end of this process.

        Raises:
            UserError: distributed is not installed, or no scheduler answers.
        """
        try:
            import distributed
        except ImportError:
            raise missing_package("distributed", "--cluster") from None
        # Its pages on lost workers and connections: what matters of them is told by the sweep.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._lock = lock
        try:
            self._client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"--cluster {address}: no dask scheduler answers there ({one_line(error)}); start "
                "one with `dask scheduler` and give the address that it prints"
            ) from None
        self._executor: Executor = self._client.get_executor(pure=False)

    def n_threads(self) -> int:
        """How many commands can run at once now."""
        return sum(self._client.nthreads().values())

    def submit(self, command: Sequence[str], log: Path) -> Future[int | None]:
        """The exit status to come."""
        lock = Path(self._lock.lock_file).resolve()
        watchdog = [sys.executable, str(WATCHDOG), "--while-locked", str(lock)]
        return self._executor.submit(
            subprocess.call,
            [*watchdog, *command],
            stdin=subprocess.PIPE,  # held by the worker until the command ends, or the worker
            start_new_session=True,
            cwd=os.getcwd(),
        )

    def stop(self) -> None:
        """Lets go of the lock: what runs is asked to end, what waits ends as it begins."""
        self._lock.release()

    def close(self) -> None:
        """Leaves the cluster; its workers stay."""
        self.stop()
        self._client.close()


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name: what it names already, or else the number of each GPU."""
    if (given := os.environ.get(GPU_VARIABLE)) is not None:
        names = [name.strip() for name in given.split(",")]
        return [name for name in names if name and not name.startswith("-")]
    return [str(number) for number in range(torch.cuda.device_count())]


def last_line(log: Path) -> str:
    """The last line of a log that holds anything; of a progress bar, its last state."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return next((line for line in reversed(lines) if line), "")
