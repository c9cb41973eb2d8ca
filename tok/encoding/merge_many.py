"""Apply merges to many short pre-tokens together, in NumPy: each round merges one pair in each.

The state is a matrix of ids: a column for each of P pre-tokens, a row for each byte position, and a
row of edges above and below (so the code counts positions from 1). A token has its id in its first
and in its last cell. A second matrix holds the *candidate* of each cell: the new id that the token
starting there and the next token merge to. With 256 = "ab" and 257 = "c" 256:

    "cab", "ab"      ids        candidates       the lowest candidate of each column is merged:
    position 0     99   97       -   256         256 at position 1, and at position 0
    position 1     97   98      256   -
    position 2     98  EDGE      -    -

After this round, the first column is "c" 256, whose candidate is 257; the second is 256, and
finished. This is the textbook order: the lowest new id first, and of its occurrences the leftmost.
The ids here are ranks (tok.vocabulary).
"""

from collections.abc import Sequence

import numpy as np

from tok.encoding.arrays import GOLDEN
from tok.errors import TokenizerError

NO_MERGE = -1  # in place of a new id
POSITION_BITS = 8
# Each round reads all positions of a column, so long pre-tokens would take quadratic time.
MAX_LENGTH = 1 << POSITION_BITS
_POSITION_MASK = MAX_LENGTH - 1
_CHUNK = 1 << 16  # pairs that are looked up together
NO_CANDIDATE = np.int64(np.iinfo(np.int64).max)


class PairTable:
    """Pair of ids -> the id that they merge to."""

    def __init__(
        self, merges: Sequence[tuple[int, int]], byte_ids: bytes, lengths: Sequence[int]
    ) -> None:
        """merges[i] makes id 256 + i; byte_ids[b] is the id of byte b; lengths[id] in bytes."""
        self.edge = 256 + len(merges)  # not an id: marks the cells before and after a pre-token
        self._id_bits = np.uint64(self.edge.bit_length())
        self._id_mask = np.uint64((1 << self.edge.bit_length()) - 1)
        if 3 * self.edge.bit_length() > 64:  # a slot holds three ids in one word
            raise TokenizerError(f"{len(merges):,} merges are more than encoding supports")
        self.byte_ids = np.frombuffer(byte_ids, dtype=np.uint8).astype(np.int64)
        self.lengths = np.array([*lengths, 1], dtype=np.int64)  # 1: of the edge
        pairs_M2 = np.array(merges, dtype=np.int64).reshape(-1, 2)
        self._insert(self._key(pairs_M2[:, 0], pairs_M2[:, 1]))
        two_bytes = np.flatnonzero((pairs_M2 < 256).all(axis=1))  # the merges of two bytes
        of_ids = np.full((256, 256), NO_MERGE, dtype=np.int64)
        of_ids[pairs_M2[two_bytes, 0], pairs_M2[two_bytes, 1]] = 256 + two_bytes
        # int64[256, 256]: new id of two bytes; the first round needs no hashing.
        self.of_bytes = of_ids[self.byte_ids[:, None], self.byte_ids]

    def find(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return int64[K]: the id that each pair merges to, or NO_MERGE.

        At least one id of each pair must be 256 or more: (0, 0) would match a free slot.
        """
        if len(first) > _CHUNK:  # so that the arrays of a look-up stay in the cache
            starts = range(0, len(first), _CHUNK)
            chunks = [self.find(first[i : i + _CHUNK], second[i : i + _CHUNK]) for i in starts]
            return np.concatenate(chunks)
        key_K = self._key(first, second)
        slot_K = self._hash(key_K)
        found_K = self._slots.take(slot_K)
        new_K = (found_K & self._id_mask).view(np.int64)
        other_K = found_K >> self._id_bits != key_K
        new_K[other_K] = NO_MERGE
        searching = np.flatnonzero(other_K & (found_K != 0))
        tries = 0
        while len(searching):  # another pair is in the slot: probe as in tok.encoding.hash_table
            tries += 1
            slot_K[searching] = (slot_K[searching] + tries) & self._last_slot
            found = self._slots[slot_K[searching]]
            hit = found >> self._id_bits == key_K[searching]
            new_K[searching[hit]] = (found[hit] & self._id_mask).view(np.int64)
            searching = searching[~hit & (found != 0)]
        return new_K

    def _insert(self, key_M: np.ndarray) -> None:
        """Fill the slots with key << id bits | new id, so that a look-up reads memory once.

        A free slot is 0, which is not a new id. If a pair occurs twice, its first merge counts,
        because that is written last.
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
            written = self._slots[slot_M[waiting]] & self._id_mask
            waiting = waiting[written != (256 + waiting).astype(np.uint64)]
            slot_M[waiting] = (slot_M[waiting] + tries) & self._last_slot

    def _hash(self, key_K: np.ndarray) -> np.ndarray:
        # A constant multiplier is safe here: the keys are the vocabulary's, not the text's.
        return ((key_K * GOLDEN) >> self._shift).view(np.int64)

    def _key(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first.astype(np.int64, copy=False) * (self.edge + 1) + second).view(np.uint64)


def merge_many(
    bytes_LP: np.ndarray, lengths_P: np.ndarray, pairs: PairTable
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of P pre-tokens of at most L bytes, L below MAX_LENGTH.

    >>> pairs = PairTable([(97, 98), (99, 256)], bytes(range(256)), [1] * 256 + [2, 3])
    >>> texts = np.array([list(b"cab"), list(b"ab.")], dtype=np.uint8)
    >>> ids, counts = merge_many(texts.T, np.array([3, 2]), pairs)
    >>> ids.tolist(), counts.tolist()
    ([257, 256], [1, 1])

    Args:
        bytes_LP: uint8[L, P], a pre-token in each column; cells after its end are ignored.
        lengths_P: int64[P], at least 1.

    Returns:
        int64[T], the ids of all pre-tokens, concatenated; and int64[P], how many each has.
    """
    max_length, n = bytes_LP.shape
    ids, candidates, starts = _initial_state(bytes_LP, lengths_P, pairs)
    distances = pairs.lengths * n  # by id: from a token to the next one in the flattened `ids`
    candidates_LP = candidates.reshape(max_length + 2, n)
    while True:
        best_P = candidates_LP.min(axis=0)
        unfinished = np.flatnonzero(best_P != NO_CANDIDATE)
        if not len(unfinished):
            break
        best = best_P[unfinished]
        start = (best & _POSITION_MASK) * n + unfinished
        new = best >> POSITION_BITS
        middle = start + distances[ids[start]]  # first cell of the second token
        end = middle + distances[ids[middle]]  # first cell of the token after the new one
        starts[middle] = False
        candidates[middle] = NO_CANDIDATE
        ids[start] = ids[end - n] = new
        # The pairs of the new token with the tokens before and after it, in one look-up.
        before, after = ids[start - n], ids[end]
        left = start - distances[before]
        merged = pairs.find(np.concatenate([before, new]), np.concatenate([new, after]))
        cells = np.concatenate([left, start])
        packed = merged << POSITION_BITS | cells // n
        candidates[cells] = np.where(merged == NO_MERGE, NO_CANDIDATE, packed)
    starts_PL = starts.reshape(max_length + 2, n).T
    return ids.reshape(max_length + 2, n).T[starts_PL], np.count_nonzero(starts_PL, axis=1)


def _initial_state(
    bytes_LP: np.ndarray, lengths_P: np.ndarray, pairs: PairTable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the flattened matrices before the first round, with EDGE cells above and below.

    Returns:
        int64[(L+2) * P], the ids; int64, the candidates as new id << POSITION_BITS | position, so
        that the minimum is the lowest id and, of equal ids, the leftmost; bool, True where a token
        starts.
    """
    max_length, n = bytes_LP.shape
    inside = np.zeros((max_length + 2, n), dtype=bool)
    inside[1:-1] = np.arange(max_length)[:, None] < lengths_P
    ids = np.full((max_length + 2, n), pairs.edge, dtype=np.int64)
    np.copyto(ids[1:-1], pairs.byte_ids[bytes_LP], where=inside[1:-1])
    merged = pairs.of_bytes[bytes_LP[:-1], bytes_LP[1:]]
    candidates = np.full((max_length + 2, n), NO_CANDIDATE, dtype=np.int64)
    positions = np.arange(1, max_length)[:, None]
    can_merge = (merged != NO_MERGE) & inside[2:-1]
    np.copyto(candidates[1:-2], merged << POSITION_BITS | positions, where=can_merge)
    return ids.ravel(), candidates.ravel(), inside.ravel()
