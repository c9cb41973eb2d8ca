"""Encoding streams and files in blocks, with all cores: memory stays flat, the order is kept.

This process cuts the text into jobs; workers encode them. A short stream is encoded here, because
starting a worker takes as long as encoding some megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain
from typing import Any, Protocol

import numpy as np

from tok.encoding.encoder import Encoder, Part
from utils.processes import group_by_size, map_in_order

JOB_BYTES = 1 << 20
FEW_JOBS = 16  # up to so many are encoded here


class Tokenizer(Protocol):
    """What encoding needs of tok.tokenizer.BPETokenizer."""

    @property
    def encoder(self) -> Encoder:
        """Encodes parts of text."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its arrays of ids."""

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
        finish: called where the ids were encoded, with an array [n] of the tokenizer's dtype; what
            it returns is yielded. A function of a module, or a partial; default: the array itself.
        workers: processes; 0 = one for each core, 1 = none but this one.

    Raises:
        UserError: a worker was killed.
    """
    work = partial(_encode_job, tokenizer, finish)
    jobs = group_by_size(parts, _size_of, JOB_BYTES)
    return map_in_order(work, jobs, workers, max_serial_jobs=FEW_JOBS)


def encode_documents(
    tokenizer: Tokenizer, documents: Iterable[bytes], *, workers: int = 0
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


def _size_of(part: Part) -> int:
    """Its bytes, roughly."""
    return 8 if isinstance(part, int) else len(part[0] if isinstance(part, tuple) else part)


def _encode_job(
    tokenizer: Tokenizer, finish: Callable[[np.ndarray], Any] | None, job: list[Part]
) -> Any:
    """The ids of the parts of one job, as one array, or what `finish` makes of it."""
    arrays = [ids.astype(tokenizer.dtype) for ids in tokenizer.encoder.encode_parts(job)]
    ids = np.concatenate(arrays)
    return ids if finish is None else finish(ids)
