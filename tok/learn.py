"""Learning merges from counted pre-tokens, many places and several merges at a time.

Sennrich et al. 2016 (BPE for words), on bytes: the most frequent pair of neighbours becomes a new
id, again and again. All distinct pre-tokens lie in one row of cells (tok.merge), now an array:

    "the" 5 times, "hat" twice        row      -1   t   h   e  -1   h   a   t  -1
    (-1 = EDGE)                       weight    0   5   5   5   0   2   2   2   0
    (t, h) is merged to 256           row      -1 256 256   e  -1   h   a   t  -1

A pair keeps the places where it was found. What makes this fast:

- A merge looks at the places of its pair and at their neighbours, all at once.
- Counts are put right late. Between merges they only fall: new places of a pair come with a new id,
  that is, with a new pair. So a pair is counted again when it comes to the top of the queue
  (tok.pair_queue); if it is still the best, it is merged.
- Merges that cannot influence each other are made in one step: see `next_merges`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tok.counts import PieceCounts
from tok.merge import EDGE, EMPTY
from tok.pair_queue import Pair, PairGroup, PairQueue

if TYPE_CHECKING:
    import numpy as np

BYTES_BY_VALUE = bytes(range(256))
# Pairs, and places, that are looked at in one step: enough that NumPy's cost per call is small,
# few enough that little is looked at in vain.
MOST_PAIRS = 128
MOST_PLACES = 1 << 14


def learn_merges(
    pieces: PieceCounts,
    n_merges: int,
    byte_ids: bytes = BYTES_BY_VALUE,
    on_merge: Callable[[int], None] | None = None,
) -> list[tuple[int, int]]:
    """The first `n_merges` merges: highest count first, ties to the smallest pair of ids.

    >>> import numpy as np
    >>> pieces = PieceCounts()
    >>> pieces.add(b"aaabdaaabac", np.array([0]))
    >>> learn_merges(pieces, 3)
    [(97, 97), (97, 98), (256, 257)]

    Args:
        byte_ids: the id of each byte; a permutation of 0 to 255.
        on_merge: called with the number of merges made so far.

    Returns:
        The merges; fewer than asked for when no pair is left. The same for any order of `pieces`.
    """
    raw, length_U, count_U = pieces.rows()
    n_merges = min(n_merges, len(raw))  # each merge removes a token at least
    corpus = Corpus(raw, length_U, count_U, byte_ids, n_merges)
    queue = PairQueue(corpus.all_pairs())
    merges: list[tuple[int, int]] = []
    look_at = MOST_PAIRS
    while len(merges) < n_merges and (taken := queue.take(look_at, MOST_PLACES)):
        places = corpus.recount(taken)
        best = sorted(range(len(taken)), key=lambda k: places.pairs[k].rank)
        chosen = next_merges(places, best, queue.rest_rank())[: n_merges - len(merges)]
        for k in set(best) - set(chosen):
            queue.put_back(places.pairs[k])
        look_at = min(4 * len(chosen) + 8, MOST_PAIRS)
        if chosen:
            queue.put_group(corpus.merge(places.only(chosen), 256 + len(merges)))
            merges += [places.pairs[k][1:3] for k in chosen]
            if on_merge:
                on_merge(len(merges))
    return merges


def next_merges(places: Places, best: Sequence[int], rest: tuple[int, int, int]) -> list[int]:
    """The first of `best` that are the next merges for sure, though each makes new pairs.

    Two pairs meet in the text only where one ends with the id that the other begins with: (a, b)
    and (b, c) in "abc". We stop where one would meet another, so their counts stay as they are. A
    new pair can't come in between either: where (a, b) becomes n, each (x, n) was an (x, a), which
    is as frequent or more, and has smaller ids. So (x, a) ranks before (x, n), it meets (a, b), and
    we have stopped there. (n, x) was a (b, x), likewise. Only (a, a) may meet itself: "aaaa" gives
    (n, n), which nothing announces, so we stop after it.
    """
    chosen: list[int] = []
    firsts: set[int] = set()
    seconds: set[int] = set()
    for k in best:
        pair = places.pairs[k]
        if pair.rank >= rest or pair.first in seconds or pair.second in firsts:
            break
        chosen.append(k)
        if pair.first == pair.second:
            break
        firsts.add(pair.first)
        seconds.add(pair.second)
    return chosen


@dataclass(frozen=True)
class Places:
    """N places where one of K pairs stands, in the order of the pairs, then of the text."""

    pairs: Sequence[Pair]  #: K
    first_K: np.ndarray  #: int64[K]
    second_K: np.ndarray  #: int64[K]
    pair_N: np.ndarray  #: int64[N]: which pair
    start_N: np.ndarray  #: int64[N]: the first cell of its first token
    middle_N: np.ndarray  #: int64[N]: the first cell of its second token
    weight_N: np.ndarray  #: int64[N]: how often the pre-token around it occurs in the corpus

    def only(self, chosen: Sequence[int]) -> Places:
        """The places of some pairs, which are numbered afresh in the order of `chosen`."""
        import numpy as np

        number_K = np.full(len(self.pairs), -1)
        number_K[chosen] = np.arange(len(chosen))
        return Places(
            [self.pairs[k] for k in chosen],
            self.first_K[chosen],
            self.second_K[chosen],
            *self._where(number_K[self.pair_N] >= 0, number_K[self.pair_N]),
        )

    def without_overlaps(self) -> Places:
        """Of (a, a) in "aaaa" every second place, from the left; of other pairs all places."""
        import numpy as np

        if not (self.first_K == self.second_K).any():
            return self
        index_N = np.arange(len(self.start_N))
        overlaps_N = np.zeros(len(index_N), dtype=bool)
        overlaps_N[1:] = self.start_N[1:] == self.middle_N[:-1]
        overlaps_N &= (self.first_K == self.second_K)[self.pair_N]
        # "aaaa": overlaps 0 1 1, number within the row of overlapping places 0 1 2, kept 0 and 2.
        row_begin_N = np.maximum.accumulate(np.where(overlaps_N, 0, index_N))
        keep_N = (index_N - row_begin_N) % 2 == 0
        return Places(self.pairs, self.first_K, self.second_K, *self._where(keep_N, self.pair_N))

    def _where(self, keep_N: np.ndarray, pair_N: np.ndarray) -> list[np.ndarray]:
        return [a[keep_N] for a in (pair_N, self.start_N, self.middle_N, self.weight_N)]


class Corpus:
    """The row of all distinct pre-tokens, C cells."""

    def __init__(
        self,
        raw: np.ndarray,
        length_U: np.ndarray,
        count_U: np.ndarray,
        byte_ids: bytes,
        n_merges: int,
    ) -> None:
        """`raw`: the U pieces behind each other, uint8; their lengths and counts, int64[U]."""
        import numpy as np

        piece_of_byte = np.repeat(np.arange(len(length_U)), length_U)
        cell_of_byte = np.arange(len(raw)) + piece_of_byte + 1  # an EDGE before each piece
        n_cells = len(raw) + len(length_U) + 1
        self.row_C = np.full(n_cells, EDGE, dtype=np.int32)
        self.row_C[cell_of_byte] = np.frombuffer(byte_ids, dtype=np.uint8)[raw]
        self.weight_C = np.zeros(n_cells, dtype=np.int64)
        self.weight_C[cell_of_byte] = count_U[piece_of_byte]
        self.length_V = np.ones(256 + n_merges, dtype=np.int64)  # id -> bytes

    def all_pairs(self) -> PairGroup:
        """Every pair of bytes."""
        import numpy as np

        first_C, second_C = self.row_C[:-1], self.row_C[1:]
        start_N = np.flatnonzero((first_C != EDGE) & (second_C != EDGE))
        # Two bytes in 16 bits: NumPy sorts those by counting, in linear time.
        key_N = (first_C[start_N] << 8 | second_C[start_N]).astype(np.uint16)
        order_N, begin_G = grouped(key_N)
        key_G = key_N[order_N[begin_G]].astype(np.int64)
        start_N = start_N[order_N]
        count_G = sums(self.weight_C[start_N], begin_G)
        return PairGroup(key_G >> 8, key_G & 255, count_G, begin_G, start_N)

    def recount(self, pairs: Sequence[Pair]) -> Places:
        """The places where `pairs` still stand, with the counts put right.

        An id that was merged away never comes back to its cell, so looking at the two cells tells.
        """
        import numpy as np

        first_K = np.array([pair.first for pair in pairs])
        second_K = np.array([pair.second for pair in pairs])
        pair_N = np.repeat(np.arange(len(pairs)), [len(pair.start_N) for pair in pairs])
        start_N = np.concatenate([pair.start_N for pair in pairs])
        middle_N = start_N + self.length_V[first_K][pair_N]
        stands_N = self.row_C[start_N] == first_K[pair_N]
        stands_N &= self.row_C[middle_N] == second_K[pair_N]
        pair_N, start_N, middle_N = pair_N[stands_N], start_N[stands_N], middle_N[stands_N]
        weight_N = self.weight_C[start_N]
        ends = np.searchsorted(pair_N, np.arange(len(pairs) + 1))
        total = np.append(0, np.cumsum(weight_N))[ends]
        counted = [
            Pair(-count, pair.first, pair.second, start_N[begin:end])
            for pair, count, begin, end in zip(
                pairs, np.diff(total).tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True
            )
        ]
        return Places(counted, first_K, second_K, pair_N, start_N, middle_N, weight_N)

    def merge(self, places: Places, new: int) -> PairGroup:
        """Makes the K pairs `new`, `new + 1`, ... at all their places; returns the new pairs."""
        import numpy as np

        row, length_V = self.row_C, self.length_V
        n_new = len(places.pairs)
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
        weight_M = places.weight_N[np.concatenate((left_N, right_N))]
        order_M, begin_G = grouped(first_M << 32 | second_M)
        one_G = order_M[begin_G]
        count_G = sums(weight_M[order_M], begin_G)
        return PairGroup(first_M[one_G], second_M[one_G], count_G, begin_G, start_M[order_M])


def grouped(key_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that puts equal keys together, int64[N], and where each group begins, int64[G].

    Within a group the order stays as it was.

    >>> import numpy as np
    >>> [array.tolist() for array in grouped(np.array([5, 3, 5, 3, 9]))]
    [[1, 3, 0, 2, 4], [0, 2, 4]]
    """
    import numpy as np

    order_N = np.argsort(key_N, kind="stable")
    sorted_N = key_N[order_N]
    begins_N = np.ones(len(key_N), dtype=bool)
    np.not_equal(sorted_N[1:], sorted_N[:-1], out=begins_N[1:])
    return order_N, np.flatnonzero(begins_N)


def sums(value_N: np.ndarray, begin_G: np.ndarray) -> np.ndarray:
    """int64[G]: the sum of each group; `begin_G` as from `grouped`.

    >>> import numpy as np
    >>> sums(np.array([1, 2, 3]), np.array([0, 2])).tolist()
    [3, 3]
    """
    import numpy as np

    return np.add.reduceat(value_N, begin_G) if len(begin_G) else np.zeros(0, dtype=np.int64)
