"""The distinct pre-tokens of a block, how often each occurs, and which one stands where.

Sorting would do it; a hash table filled by array operations is several times faster. All write
their number into the slot that their hash names, and the last one to write leads that slot:

    number, pre-token            0 the   1 cat   2 the   3 mat
    slot                           5       2       5       2
    table after table[slot] = number              [. . 3 . . 2]
    leader = table[slot]           2       3       2       3
    same bytes as the leader's?   yes      no     yes     yes

Those with the bytes of their leader are one piece. The few who lost their slot to other bytes (cat)
try again among themselves. Bytes are compared, never hashes alone, so the result is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Pre-tokens are grouped by how many 64-bit words hold them and one byte for their length: up to 7,
# 15 and 31 bytes. The few longer ones go through a Python dict.
WORDS = (1, 2, 4)
LONGEST = 8 * WORDS[-1] - 1
# An odd number whose bits show no pattern: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
_GOLDEN = 0x9E3779B97F4A7C15
# Hostile text can make pieces share their slots. After so many rounds a Python dict, whose hashes
# no text can foresee, takes the rest; ordinary text needs about five.
_MAX_ROUNDS = 16


@dataclass(frozen=True)
class Pieces:
    """The U distinct pieces among P pre-tokens, in no particular order."""

    first: np.ndarray  #: int64[U]: the number of a pre-token with these bytes
    inverse: np.ndarray  #: int64[P]: the piece of each pre-token
    counts: np.ndarray  #: int64[U]: how many pre-tokens are this piece; they add up to P


def distinct(raw: bytes, starts_P: np.ndarray) -> Pieces:
    """Groups the pre-tokens raw[starts_P[i] : starts_P[i + 1]] by their bytes.

    >>> import numpy as np
    >>> raw, starts = b"the cat the mat the", np.array([0, 3, 7, 11, 15])
    >>> pieces = distinct(raw, starts)
    >>> pieces.inverse.tolist()
    [0, 1, 3, 2, 3]
    >>> pieces.counts.tolist(), pieces.first.tolist()
    ([1, 1, 1, 2], [0, 1, 3, 4])
    """
    import numpy as np

    lengths_P = np.diff(starts_P, append=len(raw))
    leader_P = np.arange(len(starts_P))
    for n_words, members_M in by_length(lengths_P):
        packed_KM = pack(raw, starts_P[members_M], lengths_P[members_M], n_words)
        leader_P[members_M] = members_M[leaders(packed_KM)]
    seen: dict[bytes, int] = {}
    for i in np.flatnonzero(lengths_P > LONGEST).tolist():
        start = int(starts_P[i])
        leader_P[i] = seen.setdefault(raw[start : start + int(lengths_P[i])], i)
    return Pieces(*number(leader_P))


def by_length(lengths_P: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The pre-tokens that fit n_words words and no fewer: (n_words, their numbers int64[M]).

    >>> import numpy as np
    >>> [(n, members.tolist()) for n, members in by_length(np.array([3, 8, 40, 7]))]
    [(1, [0, 3]), (2, [1]), (4, [])]
    """
    import numpy as np

    shortest = 0
    for n_words in WORDS:
        longest = 8 * n_words - 1
        yield n_words, np.flatnonzero((lengths_P > shortest) & (lengths_P <= longest))
        shortest = longest


def pack(raw: bytes, starts_P: np.ndarray, lengths_P: np.ndarray, n_words: int) -> np.ndarray:
    """uint64[n_words, P]: each pre-token in 8 * n_words bytes: its own, zeros, its length.

    A word is eight bytes, the first the lowest. Equal words, equal pre-tokens (at most
    8 * n_words - 1 bytes each).

    >>> import numpy as np
    >>> [hex(w) for w in pack(b"ab abc", np.array([0, 2]), np.array([2, 4]), 1)[0].tolist()]
    ['0x200000000006261', '0x400000063626120']
    """
    import numpy as np

    padding = 8 * n_words + 8 + -len(raw) % 8
    row = np.frombuffer(raw + bytes(padding), dtype="<u8")
    masks = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)  # of the n low bytes
    packed_KP = np.empty((n_words, len(starts_P)), dtype=np.uint64)
    # The eight bytes from any start on lie in two neighbouring words of the row.
    word_P = starts_P >> 3
    shift_P = ((starts_P & 7) << 3).astype(np.uint64)
    left_P = np.uint64(63) - shift_P  # shifting by 1 and 63 - s instead of 64 - s allows s = 0
    low_P = row[word_P]
    for k in range(n_words):
        high_P = row[word_P + (k + 1)]
        own_P = np.clip(lengths_P - 8 * k, 0, 8) if n_words > 1 else lengths_P
        packed_KP[k] = ((low_P >> shift_P) | ((high_P << np.uint64(1)) << left_P)) & masks[own_P]
        low_P = high_P
    packed_KP[-1] |= lengths_P.astype(np.uint64) << np.uint64(56)
    return packed_KP


def leaders(packed_KP: np.ndarray) -> np.ndarray:
    """int64[P]: for each column of `packed_KP` an equal one, the same for all that are equal.

    >>> import numpy as np
    >>> leaders(np.array([[7, 8, 7, 7], [0, 0, 0, 1]], dtype=np.uint64)).tolist()
    [2, 1, 2, 3]
    """
    import numpy as np

    n = packed_KP.shape[1]
    hash_P = packed_KP[0]
    for words_P in packed_KP[1:]:
        hash_P = (hash_P ^ (hash_P >> np.uint64(29))) * np.uint64(_GOLDEN) + words_P
    bits = max(n, 16).bit_length() - 1
    table = np.empty(1 << bits, dtype=np.int32 if n < 1 << 31 else np.int64)
    leader_P = np.empty(n, dtype=np.int64)
    todo_T, hash_T, packed_KT = np.arange(n, dtype=table.dtype), hash_P, packed_KP
    for round_ in range(_MAX_ROUNDS):
        factor = np.uint64((_GOLDEN * (2 * round_ + 1)) % (1 << 64))
        slot_T = ((hash_T * factor) >> np.uint64(64 - bits)).view(np.int64)
        table[slot_T] = todo_T
        ahead_T = table[slot_T]
        same_T = packed_KP[0][ahead_T] == packed_KT[0]
        for words_P, words_T in zip(packed_KP[1:], packed_KT[1:], strict=True):
            same_T &= words_P[ahead_T] == words_T
        leader_P[todo_T] = ahead_T  # those not the same are overwritten in the next round
        lost_L = np.flatnonzero(~same_T)
        if not len(lost_L):
            return leader_P
        todo_T, hash_T, packed_KT = todo_T[lost_L], hash_T[lost_L], packed_KT[:, lost_L]
    seen: dict[bytes, int] = {}
    for i, key in zip(todo_T.tolist(), np.ascontiguousarray(packed_KT.T), strict=True):
        leader_P[i] = seen.setdefault(key.tobytes(), i)
    return leader_P


def number(leader_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers the leaders from 0: who they are int64[U], numbers of all int64[P], counts int64[U].

    >>> import numpy as np
    >>> [array.tolist() for array in number(np.array([2, 1, 2, 3]))]
    [[1, 2, 3], [1, 0, 1, 2], [1, 2, 1]]
    """
    import numpy as np

    is_leader_P = np.zeros(len(leader_P), dtype=bool)
    is_leader_P[leader_P] = True
    first_U = np.flatnonzero(is_leader_P)
    number_P = np.empty(len(leader_P), dtype=np.int64)
    number_P[first_U] = np.arange(len(first_U))
    inverse_P = number_P[leader_P]
    return first_U, inverse_P, np.bincount(inverse_P, minlength=len(first_U))
