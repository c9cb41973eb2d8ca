"""Counting the pre-tokens of texts and files, of any size, with all cores.

A text is cut into spans that are counted on their own, in any process or thread, and added up.
"""

from __future__ import annotations

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
from utils.errors import UserError, describe_os_error
from utils.processes import group_by_size, map_in_order

# What a worker takes at a time. Small enough that a few workers end together.
PART_BYTES = 1 << 24


class Span(NamedTuple):
    """A part of a text: bytes `begin` to `end` (None: to its end, which is not known)."""

    source: bytes | Path
    begin: int
    end: int | None

    @property
    def size(self) -> int:
        """Its bytes; those of a whole part if its end is not known."""
        return PART_BYTES if self.end is None else self.end - self.begin

    def open(self) -> BinaryIO:
        """The whole text, to read from `begin` on."""
        file = BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")
        if self.begin:
            file.seek(self.begin)
        return file


def count_texts(
    texts: Iterable[str | bytes], pattern: str = "gpt2", workers: int = 0
) -> PretokenCounts:
    """How often each pre-token occurs; none reaches from one text into the next.

    >>> sorted(count_texts(["a b b", b" b"]).as_dict().items())
    [(b' b', 3), (b'a', 1)]

    Args:
        workers: processes, or threads where a fork is not safe; 0 for one a processor core.

    Raises:
        TokenizerError: a text that is neither str nor bytes, or holds a lone surrogate.
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
    """`count_texts` on the content of files, which are read block by block.

    Args:
        errors: "strict" refuses a file that is not UTF-8, "bytes" takes any bytes.
        on_bytes: called with the number of bytes that are counted so far.

    Raises:
        UserError: a file that can't be read, or is not UTF-8: the first one, and its first byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    check_errors(errors)
    spans = (span for path in paths for span in _spans(Path(path), pattern))
    return _count(spans, pattern, errors, workers, on_bytes)


def _utf8(text: str | bytes) -> bytes:
    return bytes(text) if isinstance(text, (bytes, bytearray)) else to_bytes(to_text(text))


def _spans(source: bytes | Path, pattern: str) -> Iterator[Span]:
    """Cuts a text into spans of about PART_BYTES, or more where it has no place to cut."""
    size = len(source) if isinstance(source, bytes) else _file_size(source)
    if not size or size <= PART_BYTES:
        yield Span(source, 0, size)
        return
    begin = 0
    with closing(Span(source, 0, size).open()) as file:
        while begin < size:
            end = _next_cut(file, begin + PART_BYTES, PATTERNS[pattern].safe_cut) or size
            if isinstance(source, bytes):  # the span alone, should another process count it
                yield Span(source[begin:end], 0, end - begin)
            else:
                yield Span(source, begin, end)
            begin = end


def _file_size(path: Path) -> int | None:
    """None where the size says nothing: for pipes, devices, and files that seem empty (/proc)."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    return status.st_size or None


def _next_cut(file: BinaryIO, at: int, safe_cut: re.Pattern[bytes]) -> int | None:
    """The first place from `at` on where a span may end."""
    file.seek(at)
    kept = b""
    while more := file.read(BLOCK_BYTES):
        window = kept + more
        if found := safe_cut.search(window):
            return at - len(kept) + found.end()
        at += len(more)
        kept = window[-1:]
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
    kept: list[tuple[bytes, np.ndarray]] = []  # short texts, until they fill a block
    n_kept = 0
    for span in job:
        for raw, starts_P in _blocks(span, PATTERNS[pattern], errors):
            kept.append((raw, starts_P + n_kept))
            n_kept += len(raw)
            if n_kept >= BLOCK_BYTES // 2:
                counts.add(*_joined(kept))
                kept, n_kept = [], 0
    if kept:
        counts.add(*_joined(kept))
    return counts.partial_counts()


def _blocks(span: Span, pattern: Pattern, errors: str) -> Iterator[tuple[bytes, np.ndarray]]:
    """The blocks of one span, as tok.split_arrays.blocks gives them."""
    try:
        with closing(span.open()) as file:
            if span.end is not None and span.size <= BLOCK_BYTES:
                raw = file.read(span.size)
                found = iter([(raw, split_starts(raw, pattern))] if raw else [])
            else:
                found = blocks(_reader(file, span), pattern, BLOCK_BYTES)
            offset = span.begin
            for raw, starts_P in found:
                check_text(raw, str(span.source), errors, offset=offset)
                offset += len(raw)
                yield raw, starts_P
    except OSError as error:
        raise UserError(describe_os_error(error)) from None


def _reader(file: BinaryIO, span: Span) -> Callable[[int], bytes]:
    """`file.read`, which does not go beyond the end of the span."""
    if span.end is None:
        return file.read
    left = span.size

    def read(most: int) -> bytes:
        nonlocal left
        raw = file.read(min(most, left))
        left -= len(raw)
        return raw

    return read


def _joined(texts: list[tuple[bytes, np.ndarray]]) -> tuple[bytes, np.ndarray]:
    if len(texts) == 1:
        return texts[0]
    return b"".join(raw for raw, _ in texts), np.concatenate([starts for _, starts in texts])


def _start_method() -> str:
    """Forked processes where that is safe, and threads elsewhere.

    Between NumPy's calls threads wait for each other, so that a second one adds little. Forking
    costs nothing, but where other threads run (PyTorch's, a program's own) the child may hang, and
    on macOS always. A daemon, such as a worker of a Pool, may have no children. A spawned process
    would run a program that has no `if __name__ == "__main__"` a second time.
    """
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    daemon = multiprocessing.current_process().daemon
    return "fork" if sys.platform == "linux" and alone and not daemon else "thread"
