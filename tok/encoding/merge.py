"""Merging: pairs of neighbouring ids become one new id. Learning and encoding share the row below.

A *row* is a list with one cell per byte. A token writes its id into its first and its last cell;
the cells between are EMPTY. So neighbours are found without links: the next token starts `length`
cells further, and the cell before a token holds the id that ends there. With "ab" = 256 and
"abc" = 257:

    bytes               a    b    c    d
    row                97   98   99  100
    after a b -> 256  256  256   99  100
    after 256 c       257   -2  257  100

EDGE cells stand before, between and after the words of a row, so that no pair crosses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise

EDGE = -1
EMPTY = -2


def join(
    row: list[int], starts: Sequence[int], pair: tuple[int, int], new: int, lengths: Sequence[int]
) -> list[int]:
    """Writes `new` over every `pair` that still stands at one of `starts`, from left to right.

    `starts` (ascending) may hold places where the pair stood once and stands no longer: an id that
    has been merged away never comes back to its cell, so the two comparisons below find them out.

    >>> row = [97, 97, 97, -1]
    >>> join(row, [0, 1], (97, 97), 256, {97: 1, 256: 2})
    [0]
    >>> row
    [256, 256, 97, -1]

    Returns:
        The starts of the new tokens, ascending.
    """
    first, second = pair
    first_length = lengths[first]
    last_cell = lengths[new] - 1
    joined = []
    for start in starts:
        middle = start + first_length
        if row[start] != first or row[middle] != second:
            continue
        row[middle - 1] = row[middle] = EMPTY
        row[start] = row[start + last_cell] = new
        joined.append(start)
    return joined


def merge_ids(
    ids: Sequence[int],
    new_ids: Mapping[tuple[int, int], int],
    pairs: Sequence[tuple[int, int]],
    lengths: Sequence[int],
) -> list[int]:
    """Applies the learned merges to one pre-token, in time linear in its length (times log V).

    >>> pairs = [(97, 97), (97, 98)]
    >>> merge_ids([97, 97, 98], {pairs[0]: 256, pairs[1]: 257}, pairs, [1] * 256 + [2, 2])
    [256, 98]

    The textbook repeats: make the lowest new id that can be made, at its leftmost place. Here each
    new id is dealt with once, lowest first, at all its places: a pair that a merge brings forth
    holds the new id, so it can only become a higher one.

    Args:
        ids: the ids of the single bytes.
        new_ids: pair -> id; pairs[id - 256] is the pair again; lengths[id] in bytes.
    """
    row = [EDGE, *ids, EDGE]
    waiting: dict[int, list[int]] = {}  # new id -> starts of its pair, ascending
    queue: list[int] = []

    def wait(new: int | None, start: int) -> None:
        if new is None:
            return
        if new not in waiting:
            waiting[new] = []
            heappush(queue, new)
        waiting[new].append(start)

    for start, new in enumerate(map(new_ids.get, pairwise(row))):
        wait(new, start)
    while queue:
        new = heappop(queue)
        for start in join(row, waiting.pop(new), pairs[new - 256], new, lengths):
            before, after = row[start - 1], row[start + lengths[new]]
            if before != EDGE:
                wait(new_ids.get((before, new)), start - lengths[before])
            if after != new:  # otherwise the token on the right reports the pair
                wait(new_ids.get((new, after)), start)
    return tokens_of(row, lengths)


def tokens_of(row: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """The ids of a row of one word, without its edges."""
    ids = []
    cell = 1
    while cell < len(row) - 1:
        ids.append(row[cell])
        cell += lengths[row[cell]]
    return ids
