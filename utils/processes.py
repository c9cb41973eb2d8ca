"""Worker processes that map a function over jobs, and the cores and memory of this process."""

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from utils.errors import UserError

PREFETCH = 2  # jobs queued per worker, so that none runs idle

Job = TypeVar("Job")
Result = TypeVar("Result")

PROC, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # of Linux


def available_cores() -> int:
    """Return the number of cores that this process may use: its CPU set, and its CPU quota."""
    # Not on macOS and Windows:
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return max(1, math.floor(min(len(allowed), cpu_quota())))


def cpu_quota(proc: Path = PROC, root: Path = GROUPS) -> float:
    """Return how many cores of CPU time a container may use, infinity without a limit."""
    quotas = [math.inf]
    for folder in control_groups("cpu", proc, root):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                texts = [(folder / name).read_text(encoding="ascii") for name in names]
                quota, period = " ".join(texts).split()
                # "max" (version 2) or -1 (version 1): no limit
                quotas.append(int(quota) / int(period) if int(quota) > 0 else math.inf)
    return min(quotas)


def free_memory(proc: Path = PROC, root: Path = GROUPS) -> int:
    """Return the bytes of memory that this process may still use: of the machine, of a container.

    What a container uses includes a cache of files, which the system gives back when needed.
    """
    free = psutil.virtual_memory().available
    for folder in control_groups("memory", proc, root):
        for names in (
            ("memory.max", "memory.current", "memory.stat"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
        ):
            with contextlib.suppress(OSError, ValueError):  # "max" (version 2): no limit
                limit, used, stat = ((folder / one).read_text(encoding="ascii") for one in names)
                cache = dict(line.split() for line in stat.splitlines()).get("inactive_file", 0)
                free = min(free, int(limit) - int(used) + int(cache))
    return max(free, 0)


def control_groups(controller: str, proc: Path, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups (Linux) that may limit this process.

    A limit may be set on the process's control group or on any group above it. Version 2 has one
    tree of groups; version 1 has one tree for each controller, below a folder of its name. Tests
    pass other paths.
    """
    try:  # each line is number:controllers:group; in version 2, `controllers` is empty
        lines = [line.split(":", 2) for line in proc.read_text(encoding="utf-8").splitlines()]
    except OSError:  # not Linux
        return
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        tree = root / controllers
        # Inside a container the path `group` may not exist: the tree's root is its own group there.
        for folder in (tree / group.lstrip("/"), *(tree / group.lstrip("/")).parents):
            if not folder.is_relative_to(tree):
                break
            yield folder


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for reuse; return whether the system supports that.

    By default glibc returns every large array to Linux when it is freed, so each training step, or
    block of text, pays for page faults again. The parameters are in mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    m_trim_threshold, m_mmap_threshold = -1, -3  # from malloc.h
    max_int = 2**31 - 1
    return bool(mallopt(m_mmap_threshold, max_int // 2) and mallopt(m_trim_threshold, max_int))


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process in bytes, or 0 on Windows."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # On Linux ru_maxrss is at least what the parent held when it started this process.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def group_by_size(
    items: Iterable[Job], size_of: Callable[[Job], int], group_size: int
) -> Iterator[list[Job]]:
    """Yield lists of consecutive items whose sizes add up to `group_size` or a little more.

    >>> list(group_by_size(["one", "two", "three"], len, 6))
    [['one', 'two'], ['three']]
    """
    group: list[Job] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= group_size:
            yield group
            group, size = [], 0
    if group:
        yield group


def map_in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    method: str = "spawn",
    max_serial_jobs: int = 1,
) -> Iterator[Result]:
    """Yield work(job) for each job, in order. The queue is short, so memory use is bounded.

    Args:
        work: a module-level function, or a partial of one; it is sent to each process once.
        workers: 0 = one per core, 1 = no worker processes.
        method: "thread", or how processes start: "spawn" (always safe) or "fork" (fast, but the
            child of a process with threads, such as PyTorch's, may hang).
        max_serial_jobs: with at most this many jobs, run them here: starting workers takes time.

    Raises:
        UserError: a worker process was killed.
    """
    jobs = iter(jobs)
    workers = workers or available_cores()
    first = list(islice(jobs, max_serial_jobs + 1)) if workers > 1 else []
    jobs = chain(first, jobs)
    pool = _make_pool(work, workers, method) if len(first) > max_serial_jobs else None
    if pool is None:
        yield from map(work, jobs)
        return
    submitted = work if method == "thread" else _apply_work
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(submitted, job))
            if len(pending) > PREFETCH * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException as error:  # also GeneratorExit: the caller wants no more results
        _kill_workers(pool)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process ended unexpectedly (out of memory?); try again with --workers 1"
            ) from None
        if isinstance(error, BlockingIOError):
            raise UserError(
                "can't start a worker process, the limit of processes is reached (`ulimit -u`); "
                "end others or raise it"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _make_pool(work: Callable[[Any], Any], workers: int, method: str) -> Executor | None:
    """Return a pool of workers; None, with a warning, on a system without semaphores.

    Semaphores can't be made if /dev/shm is full, read-only or missing.
    """
    if method == "thread":
        return ThreadPoolExecutor(workers)
    context = multiprocessing.get_context(method)
    try:
        # Windows waits for no more than 61 processes.
        return ProcessPoolExecutor(min(workers, 61), context, _start_worker, (work,))
    except (OSError, ImportError, NotImplementedError) as error:
        warning = f"can't start worker processes ({error}); continuing in one process"
        print(f"warning: {warning}", file=sys.stderr)
        return None


_work: Callable[[Any], Any]  # the function that this worker process applies


def _start_worker(work: Callable[[Any], Any]) -> None:
    """Set up a worker process, before its first job."""
    global _work
    _work = work
    keep_freed_memory()
    # Ctrl-C reaches all processes; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _apply_work(job: Any) -> Any:
    return _work(job)


def _end_with_parent() -> None:
    """Exit when the parent has been killed. This worker would otherwise wait for jobs forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _kill_workers(pool: Executor) -> None:
    """Kill the processes of a pool, if it has any (a pool of threads has none).

    After Ctrl-C they would finish their jobs first. When one of them has been killed, Python ends
    the others, but may miss a process that has just been started, and then waits for it forever.
    """
    # Python 3.14 has `kill_workers`. Before, only a private attribute lists the pool's processes.
    for worker in list((getattr(pool, "_processes", None) or {}).values()):
        worker.kill()
