"""Encoding large texts: the pre-tokens of a block of text all at once, in NumPy arrays.

With "the then the" and a vocabulary in which 257 is "the" and 258 " the":

    1. cut       0  3  8            where each pre-token starts (tok.split)
    2. number    0  1  2            which of the different pieces "the", " then", " the" each is
    3. merge     (257) (258 110) (258)      the ids of those pieces that are new (tok.merge_many)
    4. lay out   257  258 110  258  the ids of all pre-tokens, one after the other

Few pieces are new: the vocabulary's own tokens are numbered beforehand, and others are remembered.
So the time goes into cutting and numbering, which takes the same few array steps for every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from tok.merge_many import PairTable
from tok.piece_table import LONGEST, WIDTHS, Block, PieceTable

GROUP = 4  # blocks whose new pieces are merged together: fewer, longer arrays
MAX_CACHE_BYTES = 1 << 26  # of what is remembered beside the vocabulary; then it starts afresh


class BatchEncoder:
    """Blocks of text to ids. Remembers the pieces that it has seen."""

    def __init__(
        self, pairs: PairTable, tokens: Sequence[bytes], encode_long: Callable[[bytes], list[int]]
    ) -> None:
        """
        Args:
            pairs: the merges.
            tokens: pieces to number beforehand.
            encode_long: the ids of a pre-token of more than LONGEST bytes.
        """
        self._pairs = pairs
        self._encode_long = encode_long
        tokens = [token for token in tokens if 0 < len(token) <= LONGEST]
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        self._tokens = np.frombuffer(b"".join(tokens), dtype=np.uint8)
        self._token_starts = np.cumsum(lengths) - lengths
        self._start_afresh()

    def encode(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """The ids of each block, int64[ids].

        Args:
            blocks: pairs of uint8[N], some bytes, and int64[P], where in them pre-tokens start.
        """
        rest = iter(blocks)
        while group := [Block(raw, starts) for raw, starts in islice(rest, GROUP)]:
            if self._n_bytes() > self._full_bytes:
                self._start_afresh()
            for first_P, count_P, store in self._look_up(group):
                yield lay_out(store, first_P, count_P)

    def _look_up(self, group: Sequence[Block]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each block's pre-tokens first_P, count_P and the store, as `lay_out` takes them."""
        numbered = []
        for block in group:
            *by_width, long = block.by_width()
            numbers = [
                pieces.number(block, chosen)
                for pieces, chosen in zip(self._pieces, by_width, strict=True)
            ]
            numbered.append((block, by_width, numbers, long))
        for pieces in self._pieces:
            ids = pieces.merge_new(self._pairs, len(self._store))
            self._store = np.concatenate([self._store, ids])
        for block, by_width, numbers, long in numbered:
            first_P, count_P = np.empty((2, len(block.starts)), dtype=np.int64)
            for pieces, chosen, number in zip(self._pieces, by_width, numbers, strict=True):
                first_P[chosen] = pieces.first[number]
                count_P[chosen] = pieces.count[number]
            store = self._store
            if len(long):
                ids = [np.array(self._encode_long(block.piece(index))) for index in long]
                count_P[long] = [len(part) for part in ids]
                first_P[long] = len(store) + np.cumsum(count_P[long]) - count_P[long]
                store = np.concatenate([store, *ids])
            yield first_P, count_P, store

    def _start_afresh(self) -> None:
        self._pieces = [PieceTable(width) for width in WIDTHS]
        self._store = np.zeros(0, dtype=np.int64)  # the ids of pieces of several, one after the other
        ((_, count_P, _),) = self._look_up([Block(self._tokens, self._token_starts)])
        self.is_whole = count_P == 1
        self._full_bytes = self._n_bytes() + MAX_CACHE_BYTES

    def _n_bytes(self) -> int:
        return self._store.nbytes + sum(pieces.n_bytes for pieces in self._pieces)


def lay_out(store: np.ndarray, first_P: np.ndarray, count_P: np.ndarray) -> np.ndarray:
    """The ids of pre-tokens one after the other: those of number p are store[first_P[p]] and the
    following, count_P[p] in all; but where it is one, first_P[p] is the id.

    >>> lay_out(np.array([7, 8, 9]), np.array([3, 1, 5]), np.array([1, 2, 1])).tolist()
    [3, 8, 9, 5]
    """
    several = np.flatnonzero(count_P != 1)
    if not len(several):
        return first_P
    laid = np.repeat(first_P, count_P)
    first, count = first_P[several], count_P[several]
    place = np.cumsum(count_P)[several] - count  # where the first id of each goes
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # 0 1, 0 1 2, 0 1..
    laid[np.repeat(place, count) + within] = store[np.repeat(first, count) + within]
    return laid
