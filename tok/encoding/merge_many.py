"""Merging many short pre-tokens at once, in NumPy arrays: each round makes one merge in every one.

The row of tok.encoding.merge, for N pre-tokens side by side: a matrix with a column for each
pre-token and a line for each byte. A token has its id in its first and in its last cell. A second
matrix holds the *offer* of each cell: the id that the token that starts there and the one after it
would become.

    "cab", "ab"     ids        offers            the lowest offer of each column is taken:
    line 0        99   97      -   256           256 at line 1, and at line 0
    line 1        97   98     256   -
    line 2        98  EDGE     -    -

With 256 = ab and 257 = c 256, what is left is "c 256", whose offer is 257, and 256, which is done.
That is the textbook's order: make the lowest new id that can be made, at its leftmost place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tok.encoding.arrays import GOLDEN
from tok.errors import TokenizerError

ABSENT = -1  # no id: the pair is not merged
LINE_BITS = 8
MAX_LINES = 1 << LINE_BITS  # each round looks at all lines: this does not pay for long pre-tokens
_LINE = MAX_LINES - 1
_LOOK_UPS = 1 << 16
NO_OFFER = np.int64(np.iinfo(np.int64).max)


class PairTable:
    """Which pair of ids becomes which new id."""

    def __init__(
        self, merges: Sequence[tuple[int, int]], byte_ids: bytes, lengths: Sequence[int]
    ) -> None:
        """merges[i] makes id 256 + i; byte_ids[b] is the id of byte b; lengths[id] in bytes."""
        self.edge = 256 + len(merges)  # no id: stands before and after a pre-token
        self._id_bits = np.uint64(self.edge.bit_length())
        self._id_mask = np.uint64((1 << self.edge.bit_length()) - 1)
        if 3 * self.edge.bit_length() > 64:  # two ids and a third do not fit a word
            raise TokenizerError(f"{len(merges):,} merges are more than can be encoded with")
        self.byte_ids = np.frombuffer(byte_ids, dtype=np.uint8).astype(np.int64)
        self.lengths = np.array([*lengths, 1], dtype=np.int64)
        pairs_M2 = np.array(merges, dtype=np.int64).reshape(-1, 2)
        self._enter(self._key(pairs_M2[:, 0], pairs_M2[:, 1]))
        # For the first look at a text, whose ids are all bytes: int64[256, 256], no hashing.
        of_bytes = np.flatnonzero((pairs_M2 < 256).all(axis=1))
        of_ids = np.full((256, 256), ABSENT, dtype=np.int64)
        of_ids[pairs_M2[of_bytes, 0], pairs_M2[of_bytes, 1]] = 256 + of_bytes
        self.of_bytes = of_ids[self.byte_ids[:, None], self.byte_ids]

    def find(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """int64[N]: the id that each pair becomes, ABSENT if it is not merged."""
        if len(first) > _LOOK_UPS:  # piece by piece: the steps of a look-up stay in the cache
            ends = range(_LOOK_UPS, len(first) + _LOOK_UPS, _LOOK_UPS)
            return np.concatenate(
                [self.find(first[e - _LOOK_UPS : e], second[e - _LOOK_UPS : e]) for e in ends]
            )
        key_N = self._key(first, second)
        slot_N = self._hash(key_N)
        found_N = self._slots.take(slot_N)
        made_N = (found_N & self._id_mask).view(np.int64)
        other_N = found_N >> self._id_bits != key_N
        made_N[other_N] = ABSENT
        searching = np.flatnonzero(other_N & (found_N != 0))
        tries = 0
        while len(searching):  # another pair is in the slot: try the next ones, as hash_table does
            tries += 1
            slot_N[searching] = (slot_N[searching] + tries) & self._last_slot
            found = self._slots[slot_N[searching]]
            hit = found >> self._id_bits == key_N[searching]
            made_N[searching[hit]] = (found[hit] & self._id_mask).view(np.int64)
            searching = searching[~hit & (found != 0)]
        return made_N

    def _enter(self, key_M: np.ndarray) -> None:
        """Makes the slots, each of them pair << id bits | new id, so that a look-up reads once.

        A free slot is 0: no new id is. The first merge of a pair is entered last, and so it counts.
        """
        bits = max(10, (4 * len(key_M)).bit_length())
        self._shift, self._last_slot = np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.zeros(1 << bits, dtype=np.uint64)
        waiting = np.arange(len(key_M))
        slot_M = self._hash(key_M)
        tries = 0
        while len(waiting):
            tries += 1
            free = waiting[self._slots[slot_M[waiting]] == 0][::-1]
            new_id = (256 + free).astype(np.uint64)
            self._slots[slot_M[free]] = key_M[free] << self._id_bits | new_id
            stands = self._slots[slot_M[waiting]] & self._id_mask
            waiting = waiting[stands != (256 + waiting).astype(np.uint64)]
            slot_M[waiting] = (slot_M[waiting] + tries) & self._last_slot

    def _hash(self, key_N: np.ndarray) -> np.ndarray:
        # A constant multiplier is safe: the pairs are the vocabulary's own, no text chooses them.
        return ((key_N * GOLDEN) >> self._shift).view(np.int64)

    def _key(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first.astype(np.int64, copy=False) * (self.edge + 1) + second).view(np.uint64)


def merge_many(
    bytes_LN: np.ndarray, lengths_N: np.ndarray, pairs: PairTable
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of N pre-tokens of at most L bytes, L below MAX_LINES.

    >>> pairs = PairTable([(97, 98), (99, 256)], bytes(range(256)), [1] * 256 + [2, 3])
    >>> texts = np.array([list(b"cab"), list(b"ab.")], dtype=np.uint8)
    >>> ids, counts = merge_many(texts.T, np.array([3, 2]), pairs)
    >>> ids.tolist(), counts.tolist()
    ([257, 256], [1, 1])

    Args:
        bytes_LN: uint8[L, N], a pre-token in each column; what follows it there does not count.
        lengths_N: int64[N], at least 1.

    Returns:
        int64[sum of counts], the ids of one pre-token after those of the other; and int64[N], how
        many each has.
    """
    n_lines, n = bytes_LN.shape
    row, offers, starts = _first_state(bytes_LN, lengths_N, pairs)
    lengths = pairs.lengths * n  # from a cell to the one that many lines below it, in `row`
    offers_LN = offers.reshape(n_lines + 2, n)
    while True:
        best_N = offers_LN.min(axis=0)
        live = np.flatnonzero(best_N != NO_OFFER)
        if not len(live):
            break
        best = best_N[live]
        start = (best & _LINE) * n + live
        new = best >> LINE_BITS
        middle = start + lengths[row[start]]  # where the second token starts
        end = middle + lengths[row[middle]]  # where the token after the new one starts
        starts[middle] = False
        offers[middle] = NO_OFFER
        row[start] = row[end - n] = new
        # The new token's pairs with what stands before and after it: two look-ups in one.
        before, after = row[start - n], row[end]
        left = start - lengths[before]
        made = pairs.find(np.concatenate([before, new]), np.concatenate([new, after]))
        places = np.concatenate([left, start])
        offers[places] = np.where(made == ABSENT, NO_OFFER, made << LINE_BITS | places // n)
    starts_NL = starts.reshape(n_lines + 2, n).T
    return row.reshape(n_lines + 2, n).T[starts_NL], np.count_nonzero(starts_NL, axis=1)


def _first_state(
    bytes_LN: np.ndarray, lengths_N: np.ndarray, pairs: PairTable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices before the first round, with a line of edges above and below, flattened.

    Returns:
        int64[(L+2) * N] ids; int64 offers as new id << LINE_BITS | line, so that the lowest id
        comes first and, of equal ids, the leftmost; bool: whether a token starts there.
    """
    n_lines, n = bytes_LN.shape
    inside = np.zeros((n_lines + 2, n), dtype=bool)
    inside[1:-1] = np.arange(n_lines)[:, None] < lengths_N
    row = np.full((n_lines + 2, n), pairs.edge, dtype=np.int64)
    np.copyto(row[1:-1], pairs.byte_ids[bytes_LN], where=inside[1:-1])
    made = pairs.of_bytes[bytes_LN[:-1], bytes_LN[1:]]
    offers = np.full((n_lines + 2, n), NO_OFFER, dtype=np.int64)
    lines = np.arange(1, n_lines)[:, None]
    np.copyto(offers[1:-2], made << LINE_BITS | lines, where=(made != ABSENT) & inside[2:-1])
    return row.ravel(), offers.ravel(), inside.ravel()
