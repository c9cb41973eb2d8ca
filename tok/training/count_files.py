"""Counting the pre-tokens of texts and files, of any size, with all cores.

A text is cut into parts that are counted on their own, in any process or thread, and added up.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tok.encoding.parallel import begin_worker, in_order
from tok.errors import TokenizerError
from tok.patterns import to_bytes, to_text
from tok.split_arrays import blocks, split_starts
from tok.training.counts import PieceCounts, Tally
from utils.errors import UserError, describe_os_error
from utils.files import decode_utf8
from utils.processes import all_cores

if TYPE_CHECKING:
    import numpy as np

# What a worker takes at a time. Small enough that a few workers end together.
PART_BYTES = 1 << 24

BLOCK_BYTES = 1 << 18

# In every pattern, white space after an ASCII letter or digit starts a pre-token, whatever came
# before. So a text may be cut there without reading it from its beginning.
_CUT = re.compile(rb"[0-9A-Za-z](?=[\t-\r ])")


class Part(NamedTuple):
    """A piece of a text: bytes `begin` to `end` (None: to its end, which is not known)."""

    source: bytes | Path
    begin: int
    end: int | None

    def open(self) -> BinaryIO:
        """The whole text, to read from `begin` on."""
        file = BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")
        if self.begin:
            file.seek(self.begin)
        return file


def count_texts(
    texts: Iterable[str | bytes], pattern: str = "gpt2", workers: int = 0
) -> PieceCounts:
    """How often each pre-token occurs; none reaches from one text into the next.

    >>> sorted(count_texts(["a b b", b" b"]).as_dict().items())
    [(b' b', 3), (b'a', 1)]

    Args:
        workers: processes, or threads where a fork is not safe; 0 for one a processor core.

    Raises:
        TokenizerError: a text that is neither str nor bytes, or holds a lone surrogate.
    """
    parts = (part for text in texts for part in _parts(_utf8(text)))
    return _count(parts, pattern, "bytes", workers, None)


def count_files(
    paths: Iterable[str | Path],
    pattern: str = "gpt2",
    errors: str = "strict",
    workers: int = 0,
    on_bytes: Callable[[int], None] | None = None,
) -> PieceCounts:
    """`count_texts` on the content of files, which are read block by block.

    Args:
        errors: "strict" refuses a file that is not UTF-8, "bytes" takes any bytes.
        on_bytes: called with the number of bytes that are counted so far.

    Raises:
        UserError: a file that can't be read, or is not UTF-8: the first one, and its first byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    if errors not in ("strict", "bytes"):
        raise TokenizerError(f"errors must be 'strict' or 'bytes', not {errors!r}")
    parts = (part for path in paths for part in _parts(Path(path)))
    return _count(parts, pattern, errors, workers, on_bytes)


def _utf8(text: str | bytes) -> bytes:
    return bytes(text) if isinstance(text, (bytes, bytearray)) else to_bytes(to_text(text))


def _parts(source: bytes | Path) -> Iterator[Part]:
    """Cuts a text into parts of about PART_BYTES, or more where it has no place to cut."""
    size = len(source) if isinstance(source, bytes) else _file_size(source)
    if not size or size <= PART_BYTES:
        yield Part(source, 0, size)
        return
    begin = 0
    with closing(Part(source, 0, size).open()) as file:
        while begin < size:
            end = _next_cut(file, begin + PART_BYTES) or size
            if isinstance(source, bytes):  # the part alone, should another process count it
                yield Part(source[begin:end], 0, end - begin)
            else:
                yield Part(source, begin, end)
            begin = end


def _file_size(path: Path) -> int | None:
    """None where the size says nothing: for pipes, devices, and files that seem empty (/proc)."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    return status.st_size or None


def _next_cut(file: BinaryIO, at: int) -> int | None:
    """The first place from `at` on where a part may end."""
    file.seek(at)
    kept = b""
    while more := file.read(BLOCK_BYTES):
        window = kept + more
        if found := _CUT.search(window):
            return at - len(kept) + found.end()
        at += len(more)
        kept = window[-1:]
    return None


def _count(
    parts: Iterable[Part],
    pattern: str,
    errors: str,
    workers: int,
    on_bytes: Callable[[int], None] | None,
) -> PieceCounts:
    counts = PieceCounts()
    n_bytes = 0
    jobs = ((job, pattern, errors) for job in _jobs(parts))
    for part_counts in _in_order(_count_job, jobs, workers or all_cores()):
        counts.update(part_counts)
        n_bytes += part_counts.n_bytes
        if on_bytes:
            on_bytes(n_bytes)
    return counts


def _jobs(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Small parts together, so that each job is worth a worker's while."""
    job: list[Part] = []
    n_bytes = 0
    for part in parts:
        job.append(part)
        n_bytes += PART_BYTES if part.end is None else part.end - part.begin
        if n_bytes >= PART_BYTES:
            yield job
            job, n_bytes = [], 0
    if job:
        yield job


def _count_job(job: list[Part], pattern: str, errors: str) -> Tally:
    counts = PieceCounts()
    kept: list[tuple[bytes, np.ndarray]] = []  # short texts, until they fill a block
    n_kept = 0
    for part in job:
        for raw, starts_P in _blocks(part, pattern, errors):
            kept.append((raw, starts_P + n_kept))
            n_kept += len(raw)
            if n_kept >= BLOCK_BYTES // 2:
                counts.add(*_joined(kept))
                kept, n_kept = [], 0
    if kept:
        counts.add(*_joined(kept))
    return counts.tally()


def _blocks(part: Part, pattern: str, errors: str) -> Iterator[tuple[bytes, np.ndarray]]:
    """The blocks of one part, as tok.split_arrays.blocks gives them."""
    try:
        with closing(part.open()) as file:
            if part.end is not None and part.end - part.begin <= BLOCK_BYTES:
                raw = file.read(part.end - part.begin)
                found = iter([(raw, split_starts(raw, pattern))] if raw else [])
            else:
                found = blocks(_reader(file, part), pattern, BLOCK_BYTES)
            offset = part.begin
            for raw, starts_P in found:
                if errors == "strict" and not raw.isascii():
                    decode_utf8(raw, str(part.source), offset=offset)
                offset += len(raw)
                yield raw, starts_P
    except OSError as error:
        raise UserError(describe_os_error(error)) from None


def _reader(file: BinaryIO, part: Part) -> Callable[[int], bytes]:
    """`file.read`, which does not go beyond the end of the part."""
    if part.end is None:
        return file.read
    left = part.end - part.begin

    def read(most: int) -> bytes:
        nonlocal left
        raw = file.read(min(most, left))
        left -= len(raw)
        return raw

    return read


def _joined(texts: list[tuple[bytes, np.ndarray]]) -> tuple[bytes, np.ndarray]:
    import numpy as np

    if len(texts) == 1:
        return texts[0]
    return b"".join(raw for raw, _ in texts), np.concatenate([starts for _, starts in texts])


def _in_order(
    work: Callable[..., Tally], jobs: Iterator[tuple[Any, ...]], workers: int
) -> Iterator[Tally]:
    """work(*job) of each job, in order; few jobs are waiting at any time."""
    first_two = list(islice(jobs, 2))
    if workers == 1 or len(first_two) < 2:
        yield from (work(*job) for job in chain(first_two, jobs))
        return
    yield from in_order(_pool(workers), work, chain(first_two, jobs), 2 * workers)


def _pool(workers: int) -> Executor:
    """Forked processes where that is safe, and threads elsewhere.

    Between NumPy's calls threads wait for each other, so that a second one adds little. Forking
    costs nothing, but where other threads run (PyTorch's, a program's own) the child may hang, and
    on macOS always. A daemon, such as a worker of a Pool, may have no children. A spawned process
    would run a program that has no `if __name__ == "__main__"` a second time.
    """
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    if sys.platform == "linux" and alone and not multiprocessing.current_process().daemon:
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, mp_context=fork, initializer=begin_worker)
    return ThreadPoolExecutor(workers)
