"""Encode streams and files of any size in parallel, with bounded memory and in order.

The calling process splits the text into jobs, and worker processes encode them. A short stream is
encoded by the calling process, because starting a worker takes as long as encoding some megabytes.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain
from typing import Any, Protocol

import numpy as np

from tok.encoding.encoder import Encoder, Part
from utils.processes import group_by_size, map_in_order

JOB_BYTES = 1 << 20
MAX_SERIAL_JOBS = 16  # a stream of at most this many jobs is encoded by the calling process


class Tokenizer(Protocol):
    """The part of tok.tokenizer.BPETokenizer that this file uses."""

    @property
    def encoder(self) -> Encoder:
        """Encodes parts of text."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of arrays of ids."""

    @property
    def eot_id(self) -> int:
        """The id of the end-of-text token."""


def encode_parts(
    tokenizer: Tokenizer,
    parts: Iterable[Part],
    *,
    finish: Callable[[np.ndarray], Any] | None = None,
    workers: int = 0,
) -> Iterator[Any]:
    """Encode parts of text (tok.encoding.encoder) in order; the same ids for any number of workers.

    Args:
        finish: called in the worker with an array [T] of the tokenizer's dtype; its result is
            yielded. Must be picklable: a module-level function or a partial of one. Default: the
            array itself is yielded.
        workers: number of processes; 0 = one per core, 1 = the calling process only.

    Raises:
        UserError: a worker was killed.
    """
    work = partial(_encode_job, tokenizer, finish)
    jobs = group_by_size(parts, _size_of, JOB_BYTES)
    return map_in_order(work, jobs, workers, max_serial_jobs=MAX_SERIAL_JOBS)


def encode_documents(
    tokenizer: Tokenizer, documents: Iterable[bytes], *, workers: int = 0
) -> Iterator[np.ndarray]:
    """Yield the ids of documents, each followed by the end-of-text token, in arrays of any length.

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


def _size_of(part: Part) -> int:
    """Return the approximate size of a part in bytes."""
    return 8 if isinstance(part, int) else len(part[0] if isinstance(part, tuple) else part)


def _encode_job(
    tokenizer: Tokenizer, finish: Callable[[np.ndarray], Any] | None, job: list[Part]
) -> Any:
    """Return the ids of the parts of one job as one array, or the result of `finish` for it."""
    arrays = [ids.astype(tokenizer.dtype) for ids in tokenizer.encoder.encode_parts(job)]
    ids = np.concatenate(arrays)
    return ids if finish is None else finish(ids)
