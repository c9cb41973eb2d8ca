"""Pairs of ids with their places, best first: the highest count, ties to the smallest ids.

Learning leaves many more pairs behind than it ever merges, and counts fall while they wait. All
pairs stand in arrays, in the order in which they came, and are known by their number there. With a
floor of 40:

    pair      first  second  count  places
    0             5       6      0  [11 12]      merged
    1             1       2     35  [10 40 77]   below the floor: nobody looks at it yet
    2             7       8     61  [14 15 16]   active: the best, looked at in the next step
    3             7       9     55  [18]         of the level: sorted, the next to be active
    4             3       4     41  [21 30]      late: came after the level was sorted

When the level and the late ones are used up, the floor is halved, and those that reach it now make
a new level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tok.encoding.arrays import concat_ranges

Priority = tuple[int, int, int]  #: minus count, first id, second id: the order of merging


class PairGroup(NamedTuple):
    """G new pairs whose places lie behind each other in one array."""

    first_G: np.ndarray  #: int64[G]
    second_G: np.ndarray  #: int64[G]
    count_G: np.ndarray  #: int64[G]
    begin_G: np.ndarray  #: int64[G]: start_N[begin_G[g] : begin_G[g + 1]] are the places of pair g
    start_N: np.ndarray  #: int64[N]: ascending for each pair
    weight_N: np.ndarray  #: int64[N]: how often the pre-token around each place is in the corpus


class GrowingArray:
    """An array that grows at its end."""

    def __init__(self) -> None:
        self._room = np.zeros(1 << 10, dtype=np.int64)
        self.size = 0

    @property
    def values(self) -> np.ndarray:
        """int64[size], to be read and written."""
        return self._room[: self.size]

    def add(self, values: np.ndarray) -> None:
        """Puts `values` at the end. What `values` gave before must not be used any more."""
        size = self.size + len(values)
        if size > len(self._room):
            # In place, where the system can: large arrays are moved by their pages, not copied.
            # No view outlives the statement that asks for `values`.
            self._room.resize(size + size // 4, refcheck=False)
        self._room[self.size : size] = values
        self.size = size


class PairQueue:
    """All pairs, each of them once, and which are to be looked at next."""

    def __init__(self, group: PairGroup) -> None:
        self.first, self.second, self.count = GrowingArray(), GrowingArray(), GrowingArray()
        self._begin, self._end = GrowingArray(), GrowingArray()
        self._starts, self._weights = GrowingArray(), GrowingArray()
        self.active_K = np.zeros(0, dtype=np.int64)  #: the numbers of the pairs to look at
        self._late_L = self._level_L = self.active_K
        self._floor = int(group.count_G.max(initial=0)) + 1
        self.add(group)

    def add(self, group: PairGroup) -> None:
        """Adds new pairs."""
        n_before, n_places = self.first.size, self._starts.size
        self.first.add(group.first_G)
        self.second.add(group.second_G)
        self.count.add(group.count_G)
        self._begin.add(n_places + group.begin_G)
        self._end.add(n_places + np.append(group.begin_G, len(group.start_N))[1:])
        self._starts.add(group.start_N)
        self._weights.add(group.weight_N)
        self._enter(n_before + np.flatnonzero(group.count_G >= self._floor))

    def refill(self, most: int, most_places: int) -> None:
        """Makes the best pairs active, `most` of them if there are as many.

        Args:
            most_places: no pair more, once the active ones have as many places; one pair at least.
        """
        while not len(self._level_L) and not len(self._late_L) and self._floor > 1:
            self._lower_floor()
        # Before the level runs out, the late ones are sorted into it; sooner if they are many, as
        # every step looks through them.
        if len(self._late_L) > len(self._level_L) - most:
            self._level_L = self._sorted(np.concatenate((self._level_L, self._late_L)))
            self._late_L = self._late_L[:0]
        n_places = np.cumsum(self._n_places(self._level_L[: max(most - len(self.active_K), 0)]))
        room = most_places - self._n_places(self.active_K).sum()
        n = int(np.searchsorted(n_places, room, side="right"))
        if not len(self.active_K):
            n = max(n, 1)
        next_K, self._level_L = self._level_L[:n], self._level_L[n:]
        self.active_K = np.concatenate((self.active_K, next_K))
        # The rest begins further down now, so some of the late ones may come before it.
        late_L, self._late_L = self._late_L, self._late_L[:0]
        self._enter(late_L)
        self._put_back_all_but(most)

    def _put_back_all_but(self, most: int) -> None:
        """Leaves the best pairs active. The others come before the whole level: it stays sorted."""
        if len(self.active_K) > most:
            active_K = self._sorted(self.active_K)
            self.active_K = active_K[:most]
            self._level_L = np.concatenate((active_K[most:], self._level_L))

    def settle(
        self, count_K: np.ndarray, start_N: np.ndarray, weight_N: np.ndarray, n_places_K: np.ndarray
    ) -> None:
        """Takes note of what has become of the active pairs, and tells them from others again.

        Args:
            count_K: their counts; 0 for a pair that is merged.
            start_N, weight_N, n_places_K: where they still stand, as from `places`.
        """
        pair_K, self.active_K = self.active_K, self.active_K[:0]
        begin_K = self._begin.values[pair_K]
        places_N = concat_ranges(begin_K, n_places_K)
        self._starts.values[places_N] = start_N
        self._weights.values[places_N] = weight_N
        self._end.values[pair_K] = begin_K + n_places_K
        self.count.values[pair_K] = count_K
        self._enter(pair_K[count_K >= self._floor])

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the active pairs stood when they were found, pair after pair.

        Returns:
            int64[N], the places; int64[N], their weights; int64[K], how many each pair has.
        """
        n_places_K = self._n_places(self.active_K)
        places_N = concat_ranges(self._begin.values[self.active_K], n_places_K)
        return self._starts.values[places_N], self._weights.values[places_N], n_places_K

    def inactive_bound(self) -> Priority:
        """No pair that is not active has a rank below this one."""
        if not len(self._level_L):
            return 1 - self._floor, 0, 0
        best = self._level_L[0]
        count, *ids = (int(column.values[best]) for column in (self.count, self.first, self.second))
        return -count, ids[0], ids[1]

    def _enter(self, pair_M: np.ndarray) -> None:
        """Pairs that reach the floor: active if they come before all others, and late if not."""
        minus_count, first, second = self.inactive_bound()
        count_M, first_M = self.count.values[pair_M], self.first.values[pair_M]
        before_M = (first_M < first) | ((first_M == first) & (self.second.values[pair_M] < second))
        before_M = (count_M > -minus_count) | ((count_M == -minus_count) & before_M)
        self.active_K = np.concatenate((self.active_K, pair_M[before_M]))
        self._late_L = np.concatenate((self._late_L, pair_M[~before_M]))

    def _lower_floor(self) -> None:
        floor, self._floor = self._floor, max(self._floor // 2, 1)
        reach_Q = (self.count.values >= self._floor) & (self.count.values < floor)
        self._level_L = self._sorted(np.flatnonzero(reach_Q))

    def _sorted(self, pair_M: np.ndarray) -> np.ndarray:
        """The order of merging."""
        columns = (self.second, self.first)
        keys = [column.values[pair_M] for column in columns]
        return pair_M[np.lexsort((*keys, -self.count.values[pair_M]))]

    def _n_places(self, pair_M: np.ndarray) -> np.ndarray:
        return self._end.values[pair_M] - self._begin.values[pair_M]
