"""Run the commands of a sweep: as processes here, or on the workers of a dask cluster."""

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
from typing import IO

import torch
from filelock import FileLock

from utils.errors import UserError, missing_package, one_line

WATCHDOG = Path(__file__).with_name("watchdog.py")

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
CONNECT_S = 10  # timeout of the connection to a scheduler


class LocalPool:
    """A fixed number of parallel processes on this machine, which share its GPUs."""

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        """Start the worker threads.

        Args:
            gpus: values of CUDA_VISIBLE_DEVICES, given to the workers in turn. With one worker, or
                if empty, every process sees the same GPUs as this one.
        """
        self._executor = ThreadPoolExecutor(workers)
        # One for each worker; None: the environment of this process.
        self._environments: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        for worker in range(workers):
            own = {**os.environ, GPU_VARIABLE: gpus[worker % len(gpus)]} if gpus else None
            self._environments.put(own if workers > 1 else None)
        self._lock = threading.Lock()
        self._running: set[IO[bytes]] = set()  # standard inputs of the watchdogs
        self._stopping = False

    def submit(self, command: Sequence[str], log: Path) -> Future[int | None]:
        """Return the future exit status of a command; None if the command was never started.

        Args:
            command: begins with options of scripts/sweep/watchdog.py.
            log: where its output goes; the command's own option --log names the same file.
        """
        return self._executor.submit(self._run, command, log)

    def _run(self, command: Sequence[str], log: Path) -> int | None:
        environment = self._environments.get()  # does not wait: there is one for each thread
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
        """Start nothing more, and ask the running commands to end (SIGTERM); do not wait."""
        with self._lock:
            self._stopping = True
            for pipe in self._running:
                pipe.close()

    def close(self) -> None:
        """Stop, and wait for the processes to end."""
        self.stop()
        self._executor.shutdown()


class ClusterPool:
    """Workers of a dask.distributed cluster, with the same paths to Python, this code and the runs.

    Only command lines are sent: the workers import no code of this project. If a worker dies, its
    command is given to another one.
    """

    def __init__(self, address: str, lock: FileLock) -> None:
        """Connect to a scheduler.

        Args:
            lock: the commands end when it is released, also by the death of this process.

        Raises:
            UserError: distributed is not installed, or no scheduler answers.
        """
        try:
            import distributed
        except ImportError:
            raise missing_package("distributed", "--cluster") from None
        # distributed logs long tracebacks for lost workers; the sweep reports what matters.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._lock = lock
        try:
            self._client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"--cluster {address}: no dask scheduler answers there ({one_line(error)}); start "
                "one with `dask scheduler` and use the address that it prints"
            ) from None
        self._executor: Executor = self._client.get_executor(pure=False)

    def n_threads(self) -> int:
        """Return the number of commands that can run in parallel now."""
        return sum(self._client.nthreads().values())

    def submit(self, command: Sequence[str], log: Path) -> Future[int | None]:
        """See `LocalPool`. `log` is not used: the option --log writes it on the worker."""
        lock = Path(self._lock.lock_file).resolve()
        watchdog = [sys.executable, str(WATCHDOG), "--while-locked", str(lock)]
        return self._executor.submit(
            subprocess.call,
            [*watchdog, *command],
            stdin=subprocess.PIPE,  # the worker holds it open until the command or the worker ends
            start_new_session=True,
            cwd=os.getcwd(),
        )

    def stop(self) -> None:
        """Release the lock: running commands are asked to end, waiting ones end when they start."""
        self._lock.release()

    def close(self) -> None:
        """Disconnect from the cluster. Its workers keep running."""
        self.stop()
        self._client.close()


Pool = LocalPool | ClusterPool


def visible_gpus() -> list[str]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES, or the numbers of all GPUs if it is not set."""
    if (given := os.environ.get(GPU_VARIABLE)) is not None:
        names = [name.strip() for name in given.split(",")]
        return [name for name in names if name and not name.startswith("-")]
    return [str(number) for number in range(torch.cuda.device_count())]
