"""Learning merges from counted pre-tokens, many places and several merges at a time.

Sennrich et al. 2016 (BPE for words), on bytes: the most frequent pair of neighbours becomes a new
id, again and again. All distinct pre-tokens lie in one row of cells (tok.encoding.merge), here an
array:

    "the" 5 times, "hat" twice        row      -1   t   h   e  -1   h   a   t  -1
    (-1 = EDGE)                       weight    0   5   5   5   0   2   2   2   0
    (t, h) is merged to 256           row      -1 256 256   e  -1   h   a   t  -1

A pair keeps the places where it was found. What makes this fast:

- A merge looks at the places of its pair and at their neighbours, all at once.
- Counts are put right late. Between merges they only fall: new places of a pair come with a new id,
  that is, with a new pair. So a pair is counted again when it comes to the top of the queue
  (tok.training.pair_queue); if it is still the best, it is merged.
- Merges that cannot influence each other are made in one step: see `next_merges`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tok.encoding.merge import EDGE, EMPTY
from tok.training.counts import PretokenCounts
from tok.training.occurrences import Occurrences, grouped, sums
from tok.training.pair_queue import PairGroup, PairQueue, Priority

BYTES_BY_VALUE = bytes(range(256))
# Pairs, and places, that are looked at in one step: enough that NumPy's cost per call is small,
# few enough that little is looked at in vain.
MAX_ACTIVE_PAIRS = 1 << 10
MAX_ACTIVE_OCCURRENCES = 1 << 15


def learn_merges(
    pretokens: PretokenCounts,
    n_merges: int,
    byte_ids: bytes = BYTES_BY_VALUE,
    on_merge: Callable[[int], None] | None = None,
) -> list[tuple[int, int]]:
    """The first `n_merges` merges: highest count first, ties to the smallest pair of ids.

    >>> pretokens = PretokenCounts()
    >>> pretokens.add(b"aaabdaaabac", np.array([0]))
    >>> learn_merges(pretokens, 3)
    [(97, 97), (97, 98), (256, 257)]

    Args:
        byte_ids: the id of each byte; a permutation of 0 to 255.
        on_merge: called with the number of merges made so far.

    Returns:
        The merges; fewer than asked for when no pair is left. The same for any order of `pretokens`.
    """
    raw, length_U, count_U = pretokens.rows()
    n_merges = min(n_merges, len(raw))  # each merge removes a token at least
    corpus = TokenRow(raw, length_U, count_U, byte_ids, n_merges)
    queue = PairQueue(corpus.all_pairs())
    merges: list[tuple[int, int]] = []
    look_at = MAX_ACTIVE_PAIRS
    while len(merges) < n_merges:
        queue.refill(look_at, MAX_ACTIVE_OCCURRENCES)
        active_K = queue.active_K
        if not len(active_K):
            break
        ids = queue.first.values[active_K], queue.second.values[active_K]
        places = corpus.find(*ids, *queue.places())
        order_K, ranks = places.order()
        n_sure = bisect_left(ranks, queue.inactive_bound())
        chosen = next_merges(ranks[:n_sure], corpus.overlaps(places, order_K[:n_sure]))
        del chosen[n_merges - len(merges) :]
        count_K = places.counts.copy()
        count_K[order_K[chosen]] = 0
        queue.settle(count_K, places.start_N, places.weight_N, np.diff(places.ends))
        look_at = min(2 * len(chosen) + 64, MAX_ACTIVE_PAIRS)
        if chosen:
            queue.add(corpus.merge(places.only(order_K[chosen]), 256 + len(merges)))
            merges += [ranks[k][1:] for k in chosen]
            if on_merge:
                on_merge(len(merges))
    return merges


class Overlap(NamedTuple):
    """Two pairs that share a token: (a, b) and (b, c) in "abc"."""

    earlier: int  #: their numbers in the order of merging
    later: int
    weight: int  #: how often in the corpus


def next_merges(ranks: Sequence[Priority], overlaps: Iterable[Overlap]) -> list[int]:
    """The numbers of those pairs that are the next merges for sure, in order.

    A pair that meets none of those before it stays as frequent as it was counted, whatever becomes
    of them. One that meets a pair that is merged loses the places where they meet. So it has to
    wait, and so have all that may come after it now: those with a count up to `limit`.

    A new pair can't come in between either. Where (a, b) becomes n, each (x, n) was an (x, a) that
    met (a, b) there. (x, a) comes before (x, n), since it is as frequent or more, and has smaller
    ids. So if (x, n) comes before one of `ranks`, (x, a) is one of them, and (x, n) is at most as
    frequent as the two meet: `limit` again. Likewise (n, x). Only (a, a) meets itself, in "aaa";
    then we stop after it.

    >>> ranks = [(-9, 97, 98), (-8, 98, 99), (-7, 100, 101), (-5, 102, 103)]
    >>> next_merges(ranks, [Overlap(0, 1, 2)])  # (98, 99) will have a count of 6
    [0, 2]
    """
    met: dict[int, list[Overlap]] = defaultdict(list)
    for overlap in overlaps:
        met[overlap.later].append(overlap)
    chosen: list[int] = []
    waiting: set[int] = set()
    limit = 0
    for k, (minus_count, _, _) in enumerate(ranks):
        count = -minus_count
        if count <= limit:
            break
        lost = 0
        for earlier, _, weight in met.get(k, ()):
            limit = max(limit, weight)
            if earlier not in waiting and earlier != k:
                lost = max(lost, weight)
        if lost:
            waiting.add(k)
            limit = max(limit, count - lost)
        else:
            chosen.append(k)
        if any(earlier == k for earlier, _, _ in met.get(k, ())):
            break
    return chosen


class TokenRow:
    """The row of all distinct pre-tokens, C cells."""

    def __init__(
        self,
        raw: np.ndarray,
        length_U: np.ndarray,
        count_U: np.ndarray,
        byte_ids: bytes,
        n_merges: int,
    ) -> None:
        """`raw`: the U pretokens behind each other, uint8; their lengths and counts, int64[U]."""
        n_cells = len(raw) + len(length_U) + 1
        edge_U = np.cumsum(length_U + 1) - (length_U + 1)  # an EDGE before each pretoken
        inside_C = np.ones(n_cells, dtype=bool)
        inside_C[edge_U] = inside_C[-1] = False
        # As narrow as the ids allow: the cells that are looked at lie anywhere, few in the cache.
        narrow = np.int16 if 256 + n_merges <= 1 << 15 else np.int32
        self.row_C = np.full(n_cells, EDGE, dtype=narrow)
        self.row_C[inside_C] = np.frombuffer(byte_ids, dtype=np.uint8)[raw]
        self._weight_C = np.repeat(np.append(count_U, 0), np.append(length_U + 1, 1))
        # See `overlaps`; -1 between its calls. Its numbers stay below MAX_ACTIVE_PAIRS.
        self._pair_C = np.full(n_cells, -1, dtype=np.int16)
        self.length_V = np.ones(256 + n_merges, dtype=np.int64)  # id -> bytes

    def all_pairs(self) -> PairGroup:
        """Every pair of bytes."""
        is_byte_C = self.row_C != EDGE
        start_N = np.flatnonzero(is_byte_C[:-1] & is_byte_C[1:])
        byte_C = self.row_C.astype(np.uint16)
        key_N = (byte_C[:-1] << 8 | byte_C[1:])[start_N]
        order_N, begin_G = grouped(key_N)
        key_G = key_N[order_N[begin_G]].astype(np.int64)
        start_N = start_N[order_N]
        weight_N = self._weight_C[start_N]
        del self._weight_C  # from now on places come with their weights
        return PairGroup(
            key_G >> 8, key_G & 255, sums(weight_N, begin_G), begin_G, start_N, weight_N
        )

    def find(
        self,
        first_K: np.ndarray,
        second_K: np.ndarray,
        start_N: np.ndarray,
        weight_N: np.ndarray,
        n_places_K: np.ndarray,
    ) -> Occurrences:
        """Those of the places `start_N` of K pairs, pair after pair, where they still stand.

        An id that was merged away never comes back to its cell, so looking at the two cells tells.
        """
        pair_N = np.repeat(np.arange(len(first_K)), n_places_K)
        middle_N = start_N + np.repeat(self.length_V[first_K], n_places_K)
        stands_N = self.row_C.take(start_N) == np.repeat(first_K, n_places_K)
        stands_N &= self.row_C.take(middle_N) == np.repeat(second_K, n_places_K)
        there_N = np.flatnonzero(stands_N)
        pair_N, start_N, middle_N = pair_N[there_N], start_N[there_N], middle_N[there_N]
        return Occurrences(first_K, second_K, pair_N, start_N, middle_N, weight_N[there_N])

    def overlaps(self, places: Occurrences, order_S: np.ndarray) -> list[Overlap]:
        """Where those pairs of `places` meet that are in `order_S`, numbered by their place in it.

        Two pairs that meet at both ends, in "abc" and "cab", meet twice: no place is counted twice
        in one of the two.
        """
        assert len(order_S) <= 1 << 15, "more pairs than int16 numbers"
        number_K = np.full(len(places.first_K), -1, dtype=np.int16)
        number_K[order_S] = np.arange(len(order_S))
        left_N = np.repeat(number_K, np.diff(places.ends))
        self._pair_C[places.start_N] = left_N  # one place at most starts in a cell
        right_N = self._pair_C.take(places.middle_N)
        self._pair_C[places.start_N] = -1
        meet_M = np.flatnonzero((right_N >= 0) & (left_N >= 0))
        left_M, right_M = left_N[meet_M].astype(np.int64), right_N[meet_M].astype(np.int64)
        order_M, begin_G = grouped(left_M * len(order_S) + right_M)
        weight_G = sums(places.weight_N[meet_M[order_M]], begin_G)
        left_G, right_G = left_M[order_M[begin_G]], right_M[order_M[begin_G]]
        earlier_G, later_G = np.minimum(left_G, right_G), np.maximum(left_G, right_G)
        columns = (earlier_G.tolist(), later_G.tolist(), weight_G.tolist())
        return list(map(Overlap, *columns))

    def merge(self, places: Occurrences, new: int) -> PairGroup:
        """Makes the K pairs `new`, `new + 1`, ... at all their places; returns the new pairs."""
        row, length_V = self.row_C, self.length_V
        n_new = len(places.first_K)
        length_V[new : new + n_new] = length_V[places.first_K] + length_V[places.second_K]
        places = places.without_overlaps()
        start_N, middle_N, new_N = places.start_N, places.middle_N, new + places.pair_N
        end_N = start_N + length_V[new_N]
        row[middle_N] = EMPTY  # so that no other pair seems to stand there still
        row[start_N] = new_N
        row[end_N - 1] = new_N
        before_N = row[start_N - 1].astype(np.int64)
        after_N = row[end_N].astype(np.int64)
        # Where two new tokens stand side by side, the right one reports the pair.
        left_N = np.flatnonzero(before_N != EDGE)
        right_N = np.flatnonzero((after_N != EDGE) & (after_N < new))
        first_M = np.concatenate((before_N[left_N], new_N[right_N]))
        second_M = np.concatenate((new_N[left_N], after_N[right_N]))
        start_M = np.concatenate((start_N[left_N] - length_V[before_N[left_N]], start_N[right_N]))
        order_M, begin_G = grouped(first_M * len(length_V) + second_M)
        one_G = order_M[begin_G]
        weight_M = places.weight_N[np.concatenate((left_N, right_N))][order_M]
        count_G = sums(weight_M, begin_G)
        return PairGroup(
            first_M[one_G], second_M[one_G], count_G, begin_G, start_M[order_M], weight_M
        )
