"""Learn merges from counted pre-tokens: all occurrences and several merges in one array operation.

Sennrich et al. 2016 on bytes: the most frequent pair of adjacent tokens becomes a new id, again and
again. All distinct pre-tokens are in one row of cells (as in tok.encoding.merge), here an array:

    "the" 5 times, "hat" twice        row      -1   t   h   e  -1   h   a   t  -1
    (-1 = EDGE)                       count     0   5   5   5   0   2   2   2   0
    (t, h) is merged to 256           row      -1 256 256   e  -1   h   a   t  -1

Each pair has a list of its occurrences. What makes this fast (docs/tokenizer.md has the details):

- A merge reads the occurrences of its pair and their neighbours, all in one array operation.
- Counts are corrected lazily. Between merges they only fall, because a new occurrence contains a
  new id and so belongs to a new pair. So a pair is counted again only when it reaches the front of
  the priority queue (tok.training.pair_queue).
- Merges that cannot influence each other are made in one step: see `select_merges`.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tok.encoding.merge import EDGE, EMPTY
from tok.training.counts import PretokenCounts
from tok.training.occurrences import Occurrences, group_equal, group_sums
from tok.training.pair_queue import NewPairs, PairQueue, Priority

BYTES_BY_VALUE = bytes(range(256))
# Limits of one step: high enough to amortise NumPy's cost per call, low enough that few pairs are
# examined without being merged.
MAX_ACTIVE_PAIRS = 1 << 10
MAX_ACTIVE_OCCURRENCES = 1 << 15


def learn_merges(
    pretokens: PretokenCounts,
    n_merges: int,
    byte_ids: bytes = BYTES_BY_VALUE,
    on_merge: Callable[[int], None] | None = None,
) -> list[tuple[int, int]]:
    """Return the first `n_merges` merges: highest count first, ties to the smallest pair of ids.

    >>> pretokens = PretokenCounts()
    >>> pretokens.add(b"aaabdaaabac", np.array([0]))
    >>> learn_merges(pretokens, 3)
    [(97, 97), (97, 98), (256, 257)]

    Args:
        byte_ids: the id of each byte; a permutation of 0 to 255.
        on_merge: called with the number of merges made so far.

    Returns:
        The merges, independent of the order of `pretokens`; fewer than `n_merges` if no pair is
        left.
    """
    raw, length_U, count_U = pretokens.flattened()
    n_merges = min(n_merges, len(raw))  # each merge removes at least one token
    row = TokenRow(raw, length_U, count_U, byte_ids, n_merges)
    queue = PairQueue(row.all_pairs())
    merges: list[tuple[int, int]] = []
    n_active = MAX_ACTIVE_PAIRS
    while len(merges) < n_merges:
        queue.refill(n_active, MAX_ACTIVE_OCCURRENCES)
        active_A = queue.active_A
        if not len(active_A):
            break
        ids = queue.first.values[active_A], queue.second.values[active_A]
        found = row.find(*ids, *queue.occurrences())
        order_A, priorities = found.merge_order()
        # So many pairs come before every inactive pair.
        n_comparable = bisect_left(priorities, queue.inactive_bound())
        overlaps = row.overlaps(found, order_A[:n_comparable])
        selected = select_merges(priorities[:n_comparable], overlaps)
        del selected[n_merges - len(merges) :]
        count_A = found.pair_counts.copy()
        count_A[order_A[selected]] = 0
        queue.update(count_A, found.start_N, found.count_N, np.diff(found.bounds))
        # Examine about as many pairs as the next step is likely to merge, with some reserve.
        n_active = min(2 * len(selected) + 64, MAX_ACTIVE_PAIRS)
        if selected:
            queue.add(row.merge(found.select(order_A[selected]), 256 + len(merges)))
            merges += [priorities[i][1:] for i in selected]
            if on_merge:
                on_merge(len(merges))
    return merges


class Overlap(NamedTuple):
    """Two pairs whose occurrences share a token: (a, b) and (b, c) in "abc"."""

    earlier: int  #: position of the pair with the higher priority in the merge order
    later: int  #: position of the other pair
    shared: int  #: occurrences in the corpus that share a token


def select_merges(priorities: Sequence[Priority], overlaps: Iterable[Overlap]) -> list[int]:
    """Return the indices of those pairs that are certain to be the next merges, in order.

    If a pair overlaps no earlier pair, their merges do not change its count. If it overlaps a pair
    that is merged, it loses the shared occurrences. Then it must wait for the next step, and so
    must every pair that it may still come before: those with a count of at most `limit`.

    A new pair cannot come in between either. If (a, b) becomes n, each (x, n) was an (x, a) that
    overlapped (a, b). (x, a) ranks before (x, n): it is at least as frequent and has smaller ids.
    So if (x, n) ranked before a pair of `priorities`, (x, a) would be one of them, and the count of
    (x, n) is at most the count of the overlap, which `limit` includes. The same holds for (n, x).
    Only (a, a) overlaps itself, in "aaa"; the selection ends after it.

    >>> priorities = [(-9, 97, 98), (-8, 98, 99), (-7, 100, 101), (-5, 102, 103)]
    >>> select_merges(priorities, [Overlap(0, 1, 2)])  # (98, 99) will have a count of 6
    [0, 2]

    Args:
        priorities: of the pairs, ascending; each is (minus count, first id, second id).
        overlaps: between these pairs, known by their index in `priorities`.
    """
    overlaps_of: dict[int, list[Overlap]] = defaultdict(list)
    for overlap in overlaps:
        overlaps_of[overlap.later].append(overlap)
    selected: list[int] = []
    waiting: set[int] = set()
    limit = 0
    for i, (minus_count, _, _) in enumerate(priorities):
        count = -minus_count
        if count <= limit:
            break
        lost = 0
        for earlier, _, shared in overlaps_of.get(i, ()):
            limit = max(limit, shared)
            if earlier not in waiting and earlier != i:
                lost = max(lost, shared)
        if lost:
            waiting.add(i)
            limit = max(limit, count - lost)
        else:
            selected.append(i)
        if any(earlier == i for earlier, _, _ in overlaps_of.get(i, ())):
            break
    return selected


class TokenRow:
    """The row of all distinct pre-tokens, R cells."""

    def __init__(
        self,
        raw: np.ndarray,
        length_U: np.ndarray,
        count_U: np.ndarray,
        byte_ids: bytes,
        n_merges: int,
    ) -> None:
        """`raw`: uint8[B], the pre-tokens concatenated; their lengths and counts, int64[U]."""
        n_cells = len(raw) + len(length_U) + 1
        edge_U = np.cumsum(length_U + 1) - (length_U + 1)  # an EDGE before each pre-token
        inside_R = np.ones(n_cells, dtype=bool)
        inside_R[edge_U] = inside_R[-1] = False
        # The narrowest type that holds all ids: access is random, so cache misses dominate.
        narrow = np.int16 if 256 + n_merges <= 1 << 15 else np.int32
        self.row_R = np.full(n_cells, EDGE, dtype=narrow)
        self.row_R[inside_R] = np.frombuffer(byte_ids, dtype=np.uint8)[raw]
        # How often the pre-token of each cell is in the corpus.
        self._count_R = np.repeat(np.append(count_U, 0), np.append(length_U + 1, 1))
        # Scratch memory of `overlaps`, -1 between calls. Values stay below MAX_ACTIVE_PAIRS.
        self._pair_R = np.full(n_cells, -1, dtype=np.int16)
        self.length_V = np.ones(256 + n_merges, dtype=np.int64)  # in bytes

    def all_pairs(self) -> NewPairs:
        """Return every pair of adjacent bytes. May be called once, before the first merge."""
        is_byte_R = self.row_R != EDGE
        start_N = np.flatnonzero(is_byte_R[:-1] & is_byte_R[1:])
        byte_R = self.row_R.astype(np.uint16)
        key_N = (byte_R[:-1] << 8 | byte_R[1:])[start_N]
        order_N, begin_G = group_equal(key_N)
        key_G = key_N[order_N[begin_G]].astype(np.int64)
        start_N = start_N[order_N]
        count_N = self._count_R[start_N]
        del self._count_R  # not needed any more: every occurrence has its count now
        count_G = group_sums(count_N, begin_G)
        return NewPairs(key_G >> 8, key_G & 255, count_G, begin_G, start_N, count_N)

    def find(
        self,
        first_A: np.ndarray,
        second_A: np.ndarray,
        start_N: np.ndarray,
        count_N: np.ndarray,
        n_occurrences_A: np.ndarray,
    ) -> Occurrences:
        """Return those of the occurrences of A pairs that still exist in the row.

        An id that was merged never returns to its cell, so comparing two cells with the pair is a
        sufficient check.

        Args:
            start_N, count_N, n_occurrences_A: as from `PairQueue.occurrences`.
        """
        pair_N = np.repeat(np.arange(len(first_A)), n_occurrences_A)
        middle_N = start_N + np.repeat(self.length_V[first_A], n_occurrences_A)
        exists_N = self.row_R.take(start_N) == np.repeat(first_A, n_occurrences_A)
        exists_N &= self.row_R.take(middle_N) == np.repeat(second_A, n_occurrences_A)
        keep = np.flatnonzero(exists_N)
        pair_N, start_N, middle_N = pair_N[keep], start_N[keep], middle_N[keep]
        return Occurrences(first_A, second_A, pair_N, start_N, middle_N, count_N[keep])

    def overlaps(self, found: Occurrences, order_S: np.ndarray) -> list[Overlap]:
        """Return the overlaps between the pairs in `order_S`, known by their position in it.

        Every occurrence writes the position of its pair into the cell where it starts, and reads
        the cell where its second token starts. Two pairs that overlap on both sides, as (a, b) and
        (b, a) in "abab", give two overlaps, so that none counts an occurrence twice.
        """
        assert len(order_S) <= 1 << 15, "more pairs than int16 can number"
        position_A = np.full(len(found.first_A), -1, dtype=np.int16)
        position_A[order_S] = np.arange(len(order_S))
        left_N = np.repeat(position_A, np.diff(found.bounds))
        self._pair_R[found.start_N] = left_N  # at most one occurrence starts in a cell
        right_N = self._pair_R.take(found.middle_N)
        self._pair_R[found.start_N] = -1
        shared_X = np.flatnonzero((right_N >= 0) & (left_N >= 0))
        left_X, right_X = left_N[shared_X].astype(np.int64), right_N[shared_X].astype(np.int64)
        order_X, begin_G = group_equal(left_X * len(order_S) + right_X)
        count_G = group_sums(found.count_N[shared_X[order_X]], begin_G)
        left_G, right_G = left_X[order_X[begin_G]], right_X[order_X[begin_G]]
        earlier_G, later_G = np.minimum(left_G, right_G), np.maximum(left_G, right_G)
        columns = (earlier_G.tolist(), later_G.tolist(), count_G.tolist())
        return list(map(Overlap, *columns))

    def merge(self, found: Occurrences, new: int) -> NewPairs:
        """Merge the pairs into ids `new`, `new + 1`, ... everywhere; return the pairs created."""
        row, length_V = self.row_R, self.length_V
        n_new = len(found.first_A)
        length_V[new : new + n_new] = length_V[found.first_A] + length_V[found.second_A]
        found = found.without_self_overlaps()
        start_N, middle_N, new_N = found.start_N, found.middle_N, new + found.pair_N
        end_N = start_N + length_V[new_N]
        row[middle_N] = EMPTY  # so that `find` no longer sees another pair there
        row[start_N] = new_N
        row[end_N - 1] = new_N
        before_N = row[start_N - 1].astype(np.int64)
        after_N = row[end_N].astype(np.int64)
        # Where two new tokens are adjacent, only the right one adds their pair.
        left = np.flatnonzero(before_N != EDGE)
        right = np.flatnonzero((after_N != EDGE) & (after_N < new))
        first_J = np.concatenate((before_N[left], new_N[right]))
        second_J = np.concatenate((new_N[left], after_N[right]))
        start_J = np.concatenate((start_N[left] - length_V[before_N[left]], start_N[right]))
        order_J, begin_G = group_equal(first_J * len(length_V) + second_J)
        one_G = order_J[begin_G]
        count_J = found.count_N[np.concatenate((left, right))][order_J]
        count_G = group_sums(count_J, begin_G)
        return NewPairs(
            first_J[one_G], second_J[one_G], count_G, begin_G, start_J[order_J], count_J
        )
