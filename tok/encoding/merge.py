"""Apply merges to one pre-token in plain Python, in linear time.

This serves short texts and very long pre-tokens; tok.encoding.merge_many does all others.

The data structure is a *row* with one cell per byte, which training (tok.training.learn) and
tok.encoding.merge_many use too. A token writes its id into its first and its last cell; the cells
between are EMPTY. So neighbours are found without links: the next token starts `length` cells
further on, and the cell before a token holds the id of the previous one. With "ab" = 256 and
"abc" = 257:

    bytes               a    b    c    d
    row                97   98   99  100
    after a b -> 256  256  256   99  100
    after 256 c       257   -2  257  100

EDGE cells before, between and after the pre-tokens of a row prevent pairs across boundaries. The
ids here are ranks (tok.vocabulary).
"""

from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np

EDGE = -1
EMPTY = -2
PIECE_BYTES = 1 << 16  # of a long pre-token; a byte takes about 70 bytes of memory while it merges
TAIL_TOKENS = 8  # tokens before the end of a piece, which depend on what follows


def apply_merge(
    row: list[int], starts: Sequence[int], pair: tuple[int, int], new: int, lengths: Sequence[int]
) -> list[int]:
    """Write `new` over every occurrence of `pair` at one of `starts`, from left to right.

    `starts` (ascending) may contain cells where the pair no longer is. An id that was merged never
    returns to its cell, so comparing the two cells with the pair is a sufficient check.

    >>> row = [97, 97, 97, -1]
    >>> apply_merge(row, [0, 1], (97, 97), 256, {97: 1, 256: 2})
    [0]
    >>> row
    [256, 256, 97, -1]

    Returns:
        The start cells of the new tokens, ascending.
    """
    first, second = pair
    first_length = lengths[first]
    last_cell = lengths[new] - 1
    merged = []
    for start in starts:
        middle = start + first_length
        if row[start] != first or row[middle] != second:
            continue
        row[middle - 1] = row[middle] = EMPTY
        row[start] = row[start + last_cell] = new
        merged.append(start)
    return merged


def merge_ids(
    ids: Sequence[int],
    new_ids: Mapping[tuple[int, int], int],
    pairs: Sequence[tuple[int, int]],
    lengths: Sequence[int],
) -> list[int]:
    """Apply the merges to one pre-token, in time linear in its length (times log V).

    >>> pairs = [(97, 97), (97, 98)]
    >>> merge_ids([97, 97, 98], {pairs[0]: 256, pairs[1]: 257}, pairs, [1] * 256 + [2, 2])
    [256, 98]

    The textbook algorithm repeats: find the pair with the lowest new id, and merge its leftmost
    occurrence. Here each new id is handled once, lowest first, at all its occurrences. This is
    equivalent: a pair that a merge creates contains the new id, so it is merged to a higher id.

    Args:
        ids: the ids of the single bytes.
        new_ids: pair -> id.
        pairs: the inverse, pairs[id - 256].
        lengths: lengths[id] in bytes.
    """
    row = [EDGE, *ids, EDGE]
    starts_of: dict[int, list[int]] = {}  # new id -> starts of its pair, ascending
    queue: list[int] = []

    def enqueue(new: int | None, start: int) -> None:
        if new is None:
            return
        if new not in starts_of:
            starts_of[new] = []
            heappush(queue, new)
        starts_of[new].append(start)

    for start, new in enumerate(map(new_ids.get, pairwise(row))):
        enqueue(new, start)
    while queue:
        new = heappop(queue)
        for start in apply_merge(row, starts_of.pop(new), pairs[new - 256], new, lengths):
            before, after = row[start - 1], row[start + lengths[new]]
            if before != EDGE:
                enqueue(new_ids.get((before, new)), start - lengths[before])
            if after != new:  # otherwise the token on the right adds the pair
                enqueue(new_ids.get((new, after)), start)
    return read_tokens(row, lengths)


def merge_in_pieces(
    raw: bytes, merge: Callable[[bytes], list[int]], lengths: Sequence[int]
) -> np.ndarray:
    """Return `merge(raw)`, int64[T], in pieces that need little memory.

    Tokens are the encoding of their text if every two neighbours are the encoding of theirs: the
    first merge across a boundary would also be one in the two tokens alone. In a piece that holds
    for all neighbours; so it is checked where two pieces meet. If it fails there, the whole
    pre-token is merged.
    """
    found, start, piece = [], 0, merge(raw[:PIECE_BYTES])
    while start + PIECE_BYTES < len(raw):
        kept = piece[:-TAIL_TOKENS]
        cut = start + sum(map(lengths.__getitem__, kept))
        piece = merge(raw[cut : cut + PIECE_BYTES])
        pair = [*kept[-1:], piece[0]]
        if len(pair) < 2 or pair != merge(raw[cut - lengths[pair[0]] : cut + lengths[pair[1]]]):
            return np.array(merge(raw), dtype=np.int64)
        found.append(np.array(kept, dtype=np.int64))
        start = cut
    return np.concatenate([*found, np.array(piece, dtype=np.int64)])


def read_tokens(row: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the ids of a row that holds one pre-token between two EDGE cells."""
    ids = []
    cell = 1
    while cell < len(row) - 1:
        ids.append(row[cell])
        cell += lengths[row[cell]]
    return ids
