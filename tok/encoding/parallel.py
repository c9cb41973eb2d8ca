"""Encoding streams and files in blocks, with all cores: memory stays flat, the order is kept.

This process cuts the text into jobs and hands them out; workers encode. A short stream is encoded
here, because starting a worker takes as long as encoding some megabytes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from itertools import chain, islice
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.processes import all_cores, keep_freed_memory

if TYPE_CHECKING:
    import numpy as np

    from tok.encoding.encoder import Part
    from tok.tokenizer import BPETokenizer

JOB_BYTES = 1 << 20
FEW_JOBS = 16  # up to so many are encoded here
AHEAD = 2  # jobs handed out in advance for each worker

Finish = Callable[["BPETokenizer", "np.ndarray"], Any]


def encode_parts(
    tokenizer: BPETokenizer,
    parts: Iterable[Part],
    *,
    finish: Finish | None = None,
    workers: int = 0,
) -> Iterator[Any]:
    """Encodes parts of text (tok.encoding.encoder) in order; the same ids for any number of workers.

    Args:
        finish: called where the ids were encoded, with the tokenizer and an array [n] of its dtype;
            what it returns is given out. A function of a module; default: the array itself.
        workers: processes; 0 = one for each core, 1 = none but this one.

    Raises:
        UserError: a worker was killed.
    """
    jobs = iter(jobs_of(parts))
    workers = workers or all_cores()
    first = list(islice(jobs, FEW_JOBS)) if workers > 1 else []
    more = next(jobs, None)
    if workers == 1 or more is None:
        for job in chain(first, [] if more is None else [more], jobs):
            yield encode_job(tokenizer, job, finish)
        return
    yield from _encode_elsewhere(tokenizer, chain(first, [more], jobs), finish, workers)


def encode_documents(
    tokenizer: BPETokenizer, documents: Iterable[bytes], *, workers: int = 0
) -> Iterator[np.ndarray]:
    """The ids of documents, each followed by the end-of-text token, however many at a time.

    >>> from tok.tokenizer import BPETokenizer
    >>> [ids.tolist() for ids in encode_documents(BPETokenizer([]), [b"a", b"bc"])]
    [[97, 256, 98, 99, 256]]

    Args:
        workers: as in `encode_parts`.

    Raises:
        TokenizerError: the tokenizer has no end-of-text token.
    """
    end = tokenizer.eot_id
    cut = tokenizer.encoder.parts
    parts = (chain(cut(BytesIO(document).read), [end]) for document in documents)
    return encode_parts(tokenizer, chain.from_iterable(parts), workers=workers)


def jobs_of(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Lists of parts of about JOB_BYTES.

    >>> list(jobs_of([b"one", 256, b"two"]))
    [[b'one', 256, b'two']]
    """
    job: list[Part] = []
    n_bytes = 0
    for part in parts:
        job.append(part)
        n_bytes += 8 if isinstance(part, int) else len(part[0] if isinstance(part, tuple) else part)
        if n_bytes >= JOB_BYTES:
            yield job
            job, n_bytes = [], 0
    if job:
        yield job


def encode_job(tokenizer: BPETokenizer, job: list[Part], finish: Finish | None) -> Any:
    """The ids of the parts of one job, as one array, or what `finish` makes of it."""
    import numpy as np

    arrays = [ids.astype(tokenizer.dtype) for ids in tokenizer.encoder.encode_parts(job)]
    ids = np.concatenate(arrays)
    return ids if finish is None else finish(tokenizer, ids)


def _encode_elsewhere(
    tokenizer: BPETokenizer, jobs: Iterator[list[Part]], finish: Finish | None, workers: int
) -> Iterator[Any]:
    pool = ProcessPoolExecutor(
        workers,
        # A forked child of a process with threads (PyTorch's) may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(tokenizer, finish),
    )
    yield from in_order(pool, _work, ((job,) for job in jobs), AHEAD * workers)


def in_order(
    pool: Executor, work: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], most_waiting: int
) -> Iterator[Any]:
    """work(*job) of each job, in order, by the pool, which is shut down in the end.

    Raises:
        UserError: a worker process was killed.
    """
    waiting: deque[Future[Any]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, *job))
            if len(waiting) > most_waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException as error:
        kill_workers(pool)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process ended unexpectedly (out of memory?); try again with --workers 1"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[BPETokenizer, Finish | None]  # of a worker process


def _start_worker(tokenizer: BPETokenizer, finish: Finish | None) -> None:
    global _worker
    _worker = tokenizer, finish
    begin_worker()


def kill_workers(pool: Executor) -> None:
    """Ends the processes of a pool, if it has any, whose work nobody waits for any more.

    After Ctrl-C they would finish their jobs first. When one of them has been killed, Python ends
    the rest, but may miss one that has just been started, and then waits for it for ever.
    """
    # Python 3.14 has a method for it; before, only the pool knows which children are its own.
    for worker in list((getattr(pool, "_processes", None) or {}).values()):
        worker.kill()


def begin_worker() -> None:
    """What every worker process does first."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker would wait for jobs for ever after its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(job: list[Part]) -> Any:
    return encode_job(_worker[0], job, _worker[1])
