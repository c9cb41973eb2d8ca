"""Count the pre-tokens of texts and files of any size, in parallel.

A text is split into spans at pre-token boundaries. Workers count the spans independently, and the
calling process adds the counts.
"""

import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tok.patterns import PATTERNS, Pattern, to_bytes, to_text
from tok.split_arrays import BLOCK_BYTES, blocks, split_starts
from tok.text_files import check_errors, check_text
from tok.training.counts import PartialCounts, PretokenCounts
from utils.errors import user_error_if_os_error
from utils.processes import group_by_size, map_in_order

# Size of a span, and of a job: the spans that a worker counts at a time. Small, so that all workers
# end at about the same time.
PART_BYTES = 1 << 24


class Span(NamedTuple):
    """Bytes `begin` to `end` of a text. `end` is None if the size of the text is unknown."""

    source: bytes | Path  #: the text itself, or the file that holds it
    begin: int
    end: int | None

    @property
    def size(self) -> int:
        """Number of bytes; PART_BYTES if unknown."""
        return PART_BYTES if self.end is None else self.end - self.begin

    def open(self) -> BinaryIO:
        """Open the text at `begin`."""
        file = BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")
        if self.begin:
            file.seek(self.begin)
        return file


def count_texts(
    texts: Iterable[str | bytes], pattern: str = "gpt2", workers: int = 0
) -> PretokenCounts:
    """Count the pre-tokens of texts. No pre-token spans two texts.

    >>> raw, lengths, counts = count_texts(["a b b", b" b"]).flattened()
    >>> raw.tobytes(), lengths.tolist(), counts.tolist()
    (b'a b', [1, 2], [1, 3])

    Args:
        workers: number of processes, or threads where forking is unsafe; 0 = one per core.

    Raises:
        TokenizerError: a text is neither str nor bytes, or contains a lone surrogate.
    """
    spans = (span for text in texts for span in _spans(_utf8(text), pattern))
    return _count(spans, pattern, "bytes", workers, None)


def count_files(
    paths: Iterable[str | Path],
    pattern: str = "gpt2",
    errors: str = "strict",
    workers: int = 0,
    on_bytes: Callable[[int], None] | None = None,
) -> PretokenCounts:
    """Count the pre-tokens of files, which are read block by block.

    Args:
        errors: "strict" rejects a file that is not UTF-8, "bytes" accepts any bytes.
        on_bytes: called with the number of bytes counted so far.

    Raises:
        UserError: a file can't be read or is not UTF-8; the message names the first such file and
            its first invalid byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    check_errors(errors)
    spans = (span for path in paths for span in _spans(Path(path), pattern))
    return _count(spans, pattern, errors, workers, on_bytes)


def _utf8(text: str | bytes) -> bytes:
    return bytes(text) if isinstance(text, (bytes, bytearray)) else to_bytes(to_text(text))


def _spans(source: bytes | Path, pattern: str) -> Iterator[Span]:
    """Split a text into spans of about PART_BYTES; longer where no boundary is found."""
    size = len(source) if isinstance(source, bytes) else _file_size(source)
    if not size or size <= PART_BYTES:
        yield Span(source, 0, size)
        return
    begin = 0
    with closing(Span(source, 0, size).open()) as file:
        while begin < size:
            end = _next_cut(file, begin + PART_BYTES, PATTERNS[pattern].safe_cut) or size
            if isinstance(source, bytes):  # a copy, so that workers are sent this span only
                yield Span(source[begin:end], 0, end - begin)
            else:
                yield Span(source, begin, end)
            begin = end


def _file_size(path: Path) -> int | None:
    """Return the size in bytes; None for pipes, devices and files that report 0 (as in /proc)."""
    with user_error_if_os_error():
        return os.stat(path).st_size or None


def _next_cut(file: BinaryIO, at: int, safe_cut: re.Pattern[bytes]) -> int | None:
    """Return the first offset from `at` on where a span may end; None if there is none."""
    file.seek(at)
    kept = b""
    while more := file.read(BLOCK_BYTES):
        window = kept + more
        if found := safe_cut.search(window):
            return at - len(kept) + found.end()
        at += len(more)
        kept = window[-1:]  # `safe_cut` matches one byte and looks at the next
    return None


def _count(
    spans: Iterable[Span],
    pattern: str,
    errors: str,
    workers: int,
    on_bytes: Callable[[int], None] | None,
) -> PretokenCounts:
    counts = PretokenCounts()
    work = partial(_count_job, pattern, errors)
    jobs = group_by_size(spans, lambda span: span.size, PART_BYTES)
    for part in map_in_order(work, jobs, workers, method=_start_method()):
        counts.update(part)
        if on_bytes:
            on_bytes(counts.n_bytes)
    return counts


def _count_job(pattern: str, errors: str, job: list[Span]) -> PartialCounts:
    counts = PretokenCounts()
    kept: list[tuple[bytes, np.ndarray]] = []  # small blocks, collected to be counted together
    n_kept = 0
    for span in job:
        for raw, starts_P in _blocks(span, PATTERNS[pattern], errors):
            kept.append((raw, starts_P + n_kept))
            n_kept += len(raw)
            if n_kept >= BLOCK_BYTES // 2:
                counts.add(*_concatenated(kept))
                kept, n_kept = [], 0
    if kept:
        counts.add(*_concatenated(kept))
    return counts.partial_counts()


def _blocks(span: Span, pattern: Pattern, errors: str) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the blocks of one span, as tok.split_arrays.blocks does."""
    with user_error_if_os_error(), closing(span.open()) as file:
        if span.end is not None and span.size <= BLOCK_BYTES:  # the span is one block
            raw = file.read(span.size)
            found = iter([(raw, split_starts(raw, pattern))] if raw else [])
        else:
            found = blocks(_reader(file, span), pattern, BLOCK_BYTES)
        offset = span.begin
        for raw, starts_P in found:
            check_text(raw, str(span.source), errors, offset=offset)
            offset += len(raw)
            yield raw, starts_P


def _reader(file: BinaryIO, span: Span) -> Callable[[int], bytes]:
    """Return a function like `file.read` that stops at the end of the span."""
    if span.end is None:
        return file.read
    remaining = span.size

    def read(max_bytes: int) -> bytes:
        nonlocal remaining
        raw = file.read(min(max_bytes, remaining))
        remaining -= len(raw)
        return raw

    return read


def _concatenated(kept: list[tuple[bytes, np.ndarray]]) -> tuple[bytes, np.ndarray]:
    """Return blocks as one block. Their starts must already be offsets in that block."""
    if len(kept) == 1:
        return kept[0]
    return b"".join(raw for raw, _ in kept), np.concatenate([starts for _, starts in kept])


def _start_method() -> str:
    """Return "fork" where forking is safe, else "thread".

    Threads hold the interpreter lock between NumPy calls, so that a second one adds little. Forking
    is cheap, but the child can hang if the process runs other threads (PyTorch's, for example), and
    on macOS in general. A daemon process, such as a worker of a Pool, may not have children.
    Spawning would execute a program without `if __name__ == "__main__"` a second time.
    """
    single_threaded = threading.active_count() == 1 and "torch" not in sys.modules
    daemon = multiprocessing.current_process().daemon
    return "fork" if sys.platform == "linux" and single_threaded and not daemon else "thread"
