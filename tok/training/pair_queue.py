"""A bucketed priority queue of pairs of ids: highest count first, ties to the smallest ids.

Training creates many more pairs than it merges, and the count of a waiting pair can only fall. So
the queue stores counts that may be too high (upper bounds) and corrects them only for pairs that
come to the front. Pairs whose count is below the *floor*, a limit that falls step by step, are not
sorted yet. All pairs are in arrays, in the order of creation; the index of a pair identifies it.
With a floor of 40:

    index     first  second  count  occurrences
    0             5       6      0  [11 12]      merged
    1             1       2     35  [10 40 77]   below the floor: not sorted yet
    2             7       8     61  [14 15 16]   active: among the best, examined in the next step
    3             7       9     55  [18]         in the bucket: sorted, the next to become active
    4             3       4     41  [21 30]      late: created or recounted after the bucket was
                                                 sorted, and not better than its front

An occurrence is a place in the row of distinct pre-tokens (cells, see tok.training.learn). It
counts as often as its pre-token is in the corpus, so count >= number of occurrences, except for
merged pairs, whose occurrences stay in the array.

When the bucket and the late pairs are used up, the floor is halved, and the pairs between the new
and the old floor become the next bucket.

Suffixes of array names: A active pairs, S some pairs, G new pairs, N occurrences.
"""

from typing import NamedTuple

import numpy as np

from tok.encoding.arrays import concat_ranges

Priority = tuple[int, int, int]  #: minus count, first id, second id: the smallest is merged first


class NewPairs(NamedTuple):
    """G new pairs and their N occurrences, concatenated in one array."""

    first_G: np.ndarray  #: int64[G]
    second_G: np.ndarray  #: int64[G]
    count_G: np.ndarray  #: int64[G]: how often each pair is in the corpus
    #: int64[G]: the occurrences of pair g start at begin_G[g] and end before begin_G[g + 1] (the
    #: last: before N)
    begin_G: np.ndarray
    start_N: np.ndarray  #: int64[N]: start cells, ascending within each pair
    count_N: np.ndarray  #: int64[N]: how often the pre-token of each occurrence is in the corpus


class GrowingArray:
    """An int64 array that can be extended at its end."""

    def __init__(self) -> None:
        self._buffer = np.zeros(1 << 10, dtype=np.int64)
        self.size = 0

    @property
    def values(self) -> np.ndarray:
        """int64[size], a view to read and write."""
        return self._buffer[: self.size]

    def extend(self, new: np.ndarray) -> None:
        """Append `new`. Views returned by `values` before this call become invalid."""
        size = self.size + len(new)
        if size > len(self._buffer):
            # Resizes in place where possible: Linux remaps the pages of large arrays without
            # copying. `refcheck=False` is safe because no view is kept across a call of `extend`.
            self._buffer.resize(size + size // 4, refcheck=False)
        self._buffer[self.size : size] = new
        self.size = size


class PairQueue:
    """All pairs, each once, and those that the next training step examines (the active ones)."""

    def __init__(self, new: NewPairs) -> None:
        self.first, self.second, self.count = GrowingArray(), GrowingArray(), GrowingArray()
        self._begin, self._end = GrowingArray(), GrowingArray()
        self._occurrence_starts, self._occurrence_counts = GrowingArray(), GrowingArray()
        self.active_A = np.zeros(0, dtype=np.int64)  #: the indices of the active pairs
        self._late_S = self._bucket_S = self.active_A
        self._floor = int(new.count_G.max(initial=0)) + 1  # above all counts; `refill` lowers it
        self.add(new)

    def add(self, new: NewPairs) -> None:
        """Add pairs that are not in the queue."""
        n_pairs, n_occurrences = self.first.size, self._occurrence_starts.size
        self.first.extend(new.first_G)
        self.second.extend(new.second_G)
        self.count.extend(new.count_G)
        self._begin.extend(n_occurrences + new.begin_G)
        self._end.extend(n_occurrences + np.append(new.begin_G, len(new.start_N))[1:])
        self._occurrence_starts.extend(new.start_N)
        self._occurrence_counts.extend(new.count_N)
        self._classify(n_pairs + np.flatnonzero(new.count_G >= self._floor))

    def refill(self, max_pairs: int, max_occurrences: int) -> None:
        """Fill the active pairs up to `max_pairs` with the best inactive ones.

        Args:
            max_occurrences: stop taking pairs from the bucket when the active pairs would have more
                occurrences than this in total; one pair is always taken if none is active. Late
                pairs that come before the bucket are not limited by it.
        """
        while not len(self._bucket_S) and not len(self._late_S) and self._floor > 1:
            self._lower_floor()
        # Sort the late pairs into the bucket before it runs out; also when there are many of them,
        # because every step scans them.
        if len(self._late_S) > len(self._bucket_S) - max_pairs:
            self._bucket_S = self._sorted(np.concatenate((self._bucket_S, self._late_S)))
            self._late_S = self._late_S[:0]
        candidates_S = self._bucket_S[: max(max_pairs - len(self.active_A), 0)]
        total_S = np.cumsum(self._n_occurrences(candidates_S))
        remaining = max_occurrences - self._n_occurrences(self.active_A).sum()
        n = int(np.searchsorted(total_S, remaining, side="right"))
        if not len(self.active_A):
            n = max(n, 1)
        next_S, self._bucket_S = self._bucket_S[:n], self._bucket_S[n:]
        self.active_A = np.concatenate((self.active_A, next_S))
        # The bucket now begins with a lower count, so some late pairs may come before it.
        late_S, self._late_S = self._late_S, self._late_S[:0]
        self._classify(late_S)
        # Excess active pairs return to the front of the bucket, which stays sorted.
        if len(self.active_A) > max_pairs:
            active_A = self._sorted(self.active_A)
            self.active_A = active_A[:max_pairs]
            self._bucket_S = np.concatenate((active_A[max_pairs:], self._bucket_S))

    def update(
        self,
        count_A: np.ndarray,
        start_N: np.ndarray,
        count_N: np.ndarray,
        n_occurrences_A: np.ndarray,
    ) -> None:
        """Set counts and occurrences of the active pairs, then classify these pairs again.

        Args:
            count_A: exact counts; 0 for a pair that was merged.
            start_N, count_N, n_occurrences_A: the remaining occurrences, as from `occurrences`.
        """
        pair_A, self.active_A = self.active_A, self.active_A[:0]
        begin_A = self._begin.values[pair_A]
        target_N = concat_ranges(begin_A, n_occurrences_A)
        self._occurrence_starts.values[target_N] = start_N
        self._occurrence_counts.values[target_N] = count_N
        self._end.values[pair_A] = begin_A + n_occurrences_A
        self.count.values[pair_A] = count_A
        self._classify(pair_A[count_A >= self._floor])

    def occurrences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the occurrences of the active pairs, pair by pair. Some may not exist any more.

        Returns:
            int64[N], the start cells; int64[N], the counts of their pre-tokens; int64[A], the
            number of occurrences of each pair.
        """
        n_occurrences_A = self._n_occurrences(self.active_A)
        index_N = concat_ranges(self._begin.values[self.active_A], n_occurrences_A)
        starts, counts = self._occurrence_starts.values, self._occurrence_counts.values
        return starts[index_N], counts[index_N], n_occurrences_A

    def inactive_bound(self) -> Priority:
        """Return a priority that no inactive pair comes before."""
        if not len(self._bucket_S):  # then no pair is late: all inactive ones are below the floor
            return 1 - self._floor, 0, 0
        best = self._bucket_S[0]
        count, *ids = (int(column.values[best]) for column in (self.count, self.first, self.second))
        return -count, ids[0], ids[1]

    def _classify(self, pair_S: np.ndarray) -> None:
        """Make pairs active if they come before every inactive pair, else late.

        Args:
            pair_S: pairs at or above the floor.
        """
        minus_count, first, second = self.inactive_bound()
        count_S, first_S = self.count.values[pair_S], self.first.values[pair_S]
        second_S = self.second.values[pair_S]
        ids_before_S = (first_S < first) | ((first_S == first) & (second_S < second))
        before_S = (count_S > -minus_count) | ((count_S == -minus_count) & ids_before_S)
        self.active_A = np.concatenate((self.active_A, pair_S[before_S]))
        self._late_S = np.concatenate((self._late_S, pair_S[~before_S]))

    def _lower_floor(self) -> None:
        """Halve the floor, and fill the empty bucket with the pairs that are now at or above it."""
        floor, self._floor = self._floor, max(self._floor // 2, 1)
        in_bucket = (self.count.values >= self._floor) & (self.count.values < floor)
        self._bucket_S = self._sorted(np.flatnonzero(in_bucket))

    def _sorted(self, pair_S: np.ndarray) -> np.ndarray:
        """Return pairs in the order of their priorities."""
        columns = (self.second, self.first)
        keys = [column.values[pair_S] for column in columns]
        return pair_S[np.lexsort((*keys, -self.count.values[pair_S]))]

    def _n_occurrences(self, pair_S: np.ndarray) -> np.ndarray:
        return self._end.values[pair_S] - self._begin.values[pair_S]
