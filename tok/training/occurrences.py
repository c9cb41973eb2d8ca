"""Occurrences in a row of tokens where pairs stand, and the array steps that order them by pair."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tok.training.pair_queue import Priority


@dataclass(frozen=True)
class Occurrences:
    """N places where one of K pairs stands: pair after pair, for each in the order of the text."""

    first_K: np.ndarray  #: int64[K]
    second_K: np.ndarray  #: int64[K]
    pair_N: np.ndarray  #: int64[N]: which pair
    start_N: np.ndarray  #: int64[N]: the first cell of its first token
    middle_N: np.ndarray  #: int64[N]: the first cell of its second token
    weight_N: np.ndarray  #: int64[N]: how often the pre-token around it occurs in the corpus

    @cached_property
    def ends(self) -> np.ndarray:
        """int64[K + 1]: the places of pair k are those from ends[k] to ends[k + 1]."""
        return np.searchsorted(self.pair_N, np.arange(len(self.first_K) + 1))

    @cached_property
    def counts(self) -> np.ndarray:
        """int64[K]: how often each pair stands in the corpus."""
        return np.diff(np.append(0, np.cumsum(self.weight_N))[self.ends])

    def order(self) -> tuple[np.ndarray, list[Priority]]:
        """The numbers of the pairs in the order of merging, int64[K], and their ranks."""
        order_K = np.lexsort((self.second_K, self.first_K, -self.counts))
        columns = (-self.counts, self.first_K, self.second_K)
        return order_K, list(zip(*(column[order_K].tolist() for column in columns), strict=True))

    def only(self, chosen_S: np.ndarray) -> Occurrences:
        """The places of some pairs, which are numbered afresh in the order of `chosen_S`."""
        number_K = np.full(len(self.first_K), -1)
        number_K[chosen_S] = np.arange(len(chosen_S))
        number_N = number_K[self.pair_N]
        keep_N = np.flatnonzero(number_N >= 0)
        return Occurrences(
            self.first_K[chosen_S], self.second_K[chosen_S], *self._where(keep_N, number_N)
        )

    def without_overlaps(self) -> Occurrences:
        """Of (a, a) in "aaaa" every second place, from the left; of other pairs all places."""
        if not (self.first_K == self.second_K).any():
            return self
        index_N = np.arange(len(self.start_N))
        overlaps_N = np.zeros(len(index_N), dtype=bool)
        overlaps_N[1:] = self.start_N[1:] == self.middle_N[:-1]
        overlaps_N &= (self.first_K == self.second_K)[self.pair_N]
        # "aaaa": overlaps 0 1 1, number within the row of overlapping places 0 1 2, kept 0 and 2.
        row_begin_N = np.maximum.accumulate(np.where(overlaps_N, 0, index_N))
        keep_N = np.flatnonzero((index_N - row_begin_N) % 2 == 0)
        return Occurrences(self.first_K, self.second_K, *self._where(keep_N, self.pair_N))

    def _where(self, keep_N: np.ndarray, pair_N: np.ndarray) -> list[np.ndarray]:
        return [a[keep_N] for a in (pair_N, self.start_N, self.middle_N, self.weight_N)]


def grouped(key_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that puts equal keys together, int64[N], and where each group begins, int64[G].

    Within a group the order stays as it was.

    >>> [array.tolist() for array in grouped(np.array([5, 3, 5, 3, 9]))]
    [[1, 3, 0, 2, 4], [0, 2, 4]]

    Args:
        key_N: [N], whole numbers, none below 0.
    """
    # By 16 bits at a time, the lowest first: those NumPy sorts by counting, in linear time.
    digits: list[np.ndarray] = []
    rest = int(key_N.max(initial=0))
    while rest or not digits:
        digits.append((key_N >> 16 * len(digits)).astype(np.uint16))
        rest >>= 16
    order_N = np.lexsort(digits)
    sorted_N = key_N[order_N]
    begins_N = np.ones(len(key_N), dtype=bool)
    np.not_equal(sorted_N[1:], sorted_N[:-1], out=begins_N[1:])
    return order_N, np.flatnonzero(begins_N)


def sums(value_N: np.ndarray, begin_G: np.ndarray) -> np.ndarray:
    """int64[G]: the sum of each group; `begin_G` as from `grouped`.

    >>> sums(np.array([1, 2, 3]), np.array([0, 2])).tolist()
    [3, 3]
    """
    return np.add.reduceat(value_N, begin_G) if len(begin_G) else np.zeros(0, dtype=np.int64)
