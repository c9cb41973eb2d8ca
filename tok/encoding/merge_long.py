"""Merging one very long pre-token, in NumPy arrays: each step makes one new id at all its places.

This is tok.encoding.merge.merge_ids with arrays for lists: the same row, the same order. The number of steps
is that of the different ids that come up, not that of the places: "aaaa..." takes a handful.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from tok.encoding.hash_table import ABSENT
from tok.encoding.merge import EMPTY
from tok.encoding.merge_many import PairTable


def merge_long(raw: bytes, pairs: PairTable) -> np.ndarray:
    """int64[ids]: the ids of one pre-token, in time linear in its length (times log V).

    >>> pairs = PairTable([(97, 97), (256, 256)], bytes(range(256)), [1] * 256 + [2, 4])
    >>> merge_long(b"aaaaabaaaa", pairs).tolist()
    [257, 97, 98, 257]
    """
    # int32[N+2]: the ids, an edge before and after; tokens of several bytes stand in their first
    # and their last cell, EMPTY in between.
    row = np.full(len(raw) + 2, pairs.edge, dtype=np.int32)
    row[1:-1] = pairs.byte_ids[np.frombuffer(raw, dtype=np.uint8)]
    waiting = Waiting()
    waiting.add(pairs.find(row[1:-2], row[2:-1]), np.arange(1, len(raw), dtype=np.int32))
    while waiting:
        new, starts = waiting.pop()
        first, second = pairs.parts(new)
        starts = join_all(row, starts, first, second, new, pairs)
        before, after = row[starts - 1], row[starts + pairs.lengths[new]]
        waiting.add(pairs.find(before, np.full_like(before, new)), starts - pairs.lengths[before])
        other = after != new  # otherwise the token on the right has the pair as its "before"
        after, starts = after[other], starts[other]
        waiting.add(pairs.find(np.full_like(after, new), after), starts)
    return tokens_of(row, pairs)


class Waiting:
    """New ids that can be made, and where: int32 arrays of places, some of them out of date."""

    def __init__(self) -> None:
        self._places: dict[int, list[np.ndarray]] = {}
        self._queue: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, made_N: np.ndarray, starts_N: np.ndarray) -> None:
        """At starts_N[n] the id made_N[n] can be made, unless that is ABSENT."""
        there = made_N != ABSENT
        made, starts = made_N[there], starts_N[there].astype(np.int32, copy=False)
        if not len(made):
            return
        order = np.argsort(made, kind="stable")
        made, starts = made[order], starts[order]
        begins = np.flatnonzero(np.diff(made, prepend=ABSENT))  # of each run of one id
        for new, places in zip(made[begins].tolist(), np.split(starts, begins[1:]), strict=True):
            if new not in self._places:
                self._places[new] = []
                heappush(self._queue, new)
            self._places[new].append(places)

    def pop(self) -> tuple[int, np.ndarray]:
        """The lowest id, and its places, ascending."""
        new = heappop(self._queue)
        return new, np.sort(np.concatenate(self._places.pop(new)))


def join_all(
    row: np.ndarray, starts: np.ndarray, first: int, second: int, new: int, pairs: PairTable
) -> np.ndarray:
    """Writes `new` over every pair (first, second) that stands at one of `starts`.

    Pairs that overlap ("aaa") are taken from the left. Returns the starts of the new tokens.
    """
    middles = starts + pairs.lengths[first]
    stand = (row[starts] == first) & (row[middles] == second)
    starts, middles = starts[stand], middles[stand]
    if first == second and len(starts):
        # Where a pair starts in the middle of the one before, every second of such a run counts.
        index = np.arange(len(starts))
        begins = np.append(True, starts[1:] != middles[:-1])
        even = (index - np.maximum.accumulate(np.where(begins, index, 0))) % 2 == 0
        starts, middles = starts[even], middles[even]
    row[middles - 1] = EMPTY
    row[middles] = EMPTY
    row[starts] = new
    row[starts + pairs.lengths[new] - 1] = new
    return starts


def tokens_of(row: np.ndarray, pairs: PairTable) -> np.ndarray:
    """int64[ids]: the ids of a row, without its edges.

    A token of several bytes stands in two cells: the second of them is left out.
    """
    cells = row[1:-1]
    cells = cells[cells != EMPTY].astype(np.int64)
    twice = pairs.lengths[cells] > 1
    # The cells that stand twice come in couples; the second of each couple goes.
    second = np.zeros(len(cells), dtype=bool)
    second[np.flatnonzero(twice)[1::2]] = True
    return cells[~second]
