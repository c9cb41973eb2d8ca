"""Pairs of ids with their places, best first: the highest count, ties to the smallest ids.

Learning leaves many more pairs behind than it ever merges. So only those with a count of at least
`floor` stand in a heap. The others wait in the arrays in which they came, and when the heap has no
pair above the floor any more, the floor is halved and those that now reach it move to the heap.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Pair(NamedTuple):
    """Tuples compare item by item, so the least one is the best pair."""

    minus_count: int
    first: int
    second: int
    start_N: np.ndarray  #: int64[N]: where it stands, or stood when it was found; ascending

    @property
    def rank(self) -> tuple[int, int, int]:
        """The order of merging."""
        return self[:3]


class PairGroup(NamedTuple):
    """G pairs whose places lie behind each other in one array."""

    first_G: np.ndarray  #: int64[G]
    second_G: np.ndarray  #: int64[G]
    count_G: np.ndarray  #: int64[G]
    begin_G: np.ndarray  #: int64[G]: start_N[begin_G[g] : begin_G[g + 1]] are the places of pair g
    start_N: np.ndarray  #: int64[N]

    def pair(self, g: int) -> Pair:
        """Pair g of the group."""
        end = self.begin_G[g + 1] if g + 1 < len(self.begin_G) else len(self.start_N)
        starts = self.start_N[self.begin_G[g] : end]
        return Pair(-int(self.count_G[g]), int(self.first_G[g]), int(self.second_G[g]), starts)


class PairQueue:
    """Gives the best pairs; a pair is in it at most once."""

    def __init__(self, group: PairGroup) -> None:
        self._heap: list[Pair] = []
        self._groups = [group]
        self._floor = int(group.count_G.max(initial=0)) + 1
        self._lower_floor()

    def put_group(self, group: PairGroup) -> None:
        """Adds new pairs."""
        self._groups.append(group)
        for g in (group.count_G >= self._floor).nonzero()[0].tolist():
            heappush(self._heap, group.pair(g))

    def put_back(self, pair: Pair) -> None:
        """Adds one pair, such as one that was taken."""
        heappush(self._heap, pair)

    def take(self, most: int, most_places: int) -> list[Pair]:
        """The best pairs, at least one if there is any; see `rest_rank` for the others.

        Args:
            most: how many at most.
            most_places: where they have more places together, fewer pairs come.
        """
        heap = self._heap
        while self._floor > 1 and not (heap and -heap[0].minus_count >= self._floor):
            self._lower_floor()
        taken: list[Pair] = []
        n_places = 0
        while heap and len(taken) < most and -heap[0].minus_count >= self._floor:
            n_places += len(heap[0].start_N)
            if taken and n_places > most_places:
                break
            taken.append(heappop(heap))
        return taken

    def rest_rank(self) -> tuple[int, int, int]:
        """No pair left in the queue has a rank below this one."""
        waiting = (1 - self._floor, 0, 0)
        return min(self._heap[0].rank, waiting) if self._heap else waiting

    def _lower_floor(self) -> None:
        import numpy as np

        floor = self._floor
        self._floor = max(floor // 2, 1)
        # With all counts in one array, the few pairs to move are found in one step.
        count_A = np.concatenate([group.count_G for group in self._groups])
        end_of_group = np.cumsum([len(group.count_G) for group in self._groups])
        move_M = np.flatnonzero((count_A >= self._floor) & (count_A < floor))
        group_M = np.searchsorted(end_of_group, move_M, side="right")
        for place, g in zip(move_M.tolist(), group_M.tolist(), strict=True):
            group = self._groups[g]
            heappush(self._heap, group.pair(place - int(end_of_group[g]) + len(group.count_G)))
