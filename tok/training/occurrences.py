"""Occurrences of pairs in the training row, and array operations that group them by pair.

The training row is one array of all distinct pre-tokens, with a cell for each byte: a token of n
bytes covers n cells (see tok.training.learn).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tok.training.pair_queue import Priority


@dataclass(frozen=True)
class Occurrences:
    """N occurrences of A pairs, sorted by pair; within a pair in the order of the row."""

    first_A: np.ndarray  #: int64[A]: ids
    second_A: np.ndarray  #: int64[A]: ids
    pair_N: np.ndarray  #: int64[N]: index of the pair, 0 to A - 1
    start_N: np.ndarray  #: int64[N]: the first cell of the first token
    middle_N: np.ndarray  #: int64[N]: the first cell of the second token
    count_N: np.ndarray  #: int64[N]: how often the pre-token of the occurrence is in the corpus

    @cached_property
    def bounds(self) -> np.ndarray:
        """int64[A + 1]: pair a has the occurrences from bounds[a] to bounds[a + 1]."""
        return np.searchsorted(self.pair_N, np.arange(len(self.first_A) + 1))

    @cached_property
    def pair_counts(self) -> np.ndarray:
        """int64[A]: how often each pair occurs in the corpus."""
        return np.diff(np.append(0, np.cumsum(self.count_N))[self.bounds])

    def merge_order(self) -> tuple[np.ndarray, list[Priority]]:
        """Return the indices of the pairs by priority, int64[A], and the sorted priorities."""
        order_A = np.lexsort((self.second_A, self.first_A, -self.pair_counts))
        columns = (-self.pair_counts, self.first_A, self.second_A)
        return order_A, list(zip(*(column[order_A].tolist() for column in columns), strict=True))

    def select(self, selected_S: np.ndarray) -> Occurrences:
        """Return the occurrences of some pairs, whose new indices are positions in `selected_S`.

        They keep their order. If `selected_S` does not ascend, they are not sorted by the new
        index, and `bounds` and `pair_counts` must not be used.
        """
        new_index_A = np.full(len(self.first_A), -1)
        new_index_A[selected_S] = np.arange(len(selected_S))
        new_index_N = new_index_A[self.pair_N]
        keep = np.flatnonzero(new_index_N >= 0)
        return Occurrences(
            self.first_A[selected_S], self.second_A[selected_S], *self._keep(keep, new_index_N)
        )

    def without_self_overlaps(self) -> Occurrences:
        """Drop overlapping occurrences of pairs (a, a): of the three in "aaaa", the second."""
        if not (self.first_A == self.second_A).any():
            return self
        index_N = np.arange(len(self.start_N))
        overlaps_N = np.zeros(len(index_N), dtype=bool)
        overlaps_N[1:] = self.start_N[1:] == self.middle_N[:-1]
        overlaps_N &= (self.first_A == self.second_A)[self.pair_N]
        # "aaaa": overlaps 0 1 1, position within the run of overlaps 0 1 2, kept are 0 and 2.
        run_begin_N = np.maximum.accumulate(np.where(overlaps_N, 0, index_N))
        keep = np.flatnonzero((index_N - run_begin_N) % 2 == 0)
        return Occurrences(self.first_A, self.second_A, *self._keep(keep, self.pair_N))

    def _keep(self, keep: np.ndarray, pair_N: np.ndarray) -> list[np.ndarray]:
        return [a[keep] for a in (pair_N, self.start_N, self.middle_N, self.count_N)]


def group_equal(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a stable order that puts equal keys together, and the start of each group, int64[G].

    >>> [array.tolist() for array in group_equal(np.array([5, 3, 5, 3, 9]))]
    [[1, 3, 0, 2, 4], [0, 2, 4]]

    Args:
        keys: integers of at least 0, in one dimension.
    """
    # NumPy sorts uint16 by radix, in linear time: so sort by 16 bits at a time, the lowest first.
    digits: list[np.ndarray] = []
    rest = int(keys.max(initial=0))
    while rest or not digits:
        digits.append((keys >> 16 * len(digits)).astype(np.uint16))
        rest >>= 16
    order = np.lexsort(digits)
    sorted_keys = keys[order]
    begins = np.ones(len(keys), dtype=bool)
    np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=begins[1:])
    return order, np.flatnonzero(begins)


def group_sums(values: np.ndarray, begin_G: np.ndarray) -> np.ndarray:
    """Return int64[G]: the sum of each group; `begin_G` as from `group_equal`.

    >>> group_sums(np.array([1, 2, 3]), np.array([0, 2])).tolist()
    [3, 3]
    """
    return np.add.reduceat(values, begin_G) if len(begin_G) else np.zeros(0, dtype=np.int64)
