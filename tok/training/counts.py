"""Counts of the distinct pre-tokens of a corpus, from which merges are learned."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tok.encoding.arrays import GOLDEN
from tok.encoding.block import Block
from tok.encoding.hash_table import HashTable

# Widths of keys, in words of 8 bytes (tok.encoding.block). The few pre-tokens that need a wider key
# are counted in a Python dict.
WIDTHS = (1, 2, 4)

SLOT_BITS = 13  # the table of `dedup_keys` has 2^13 slots, so it stays in the cache


class PartialCounts(NamedTuple):
    """Counts of a part of a corpus, in a form that is cheap to send to another process."""

    #: For each of WIDTHS: the keys, one array uint64[U] per word; and their counts, int64[U].
    by_width: list[tuple[list[np.ndarray], np.ndarray]]
    longer: dict[bytes, int]  #: longer pre-token -> count
    n_bytes: int


class PretokenCounts:
    """Distinct pre-tokens and their counts, for a corpus or a part of it."""

    def __init__(self) -> None:
        self._by_width = [_WidthCounts(width) for width in WIDTHS]
        self._longer: Counter[bytes] = Counter()
        self.n_bytes = 0  #: bytes counted so far

    def add(self, raw: bytes, starts_P: np.ndarray) -> None:
        """Count the pre-tokens of a block: raw[starts_P[i] : starts_P[i + 1]].

        >>> counts = PretokenCounts()
        >>> counts.add(b"the cat the", np.array([0, 3, 7]))
        >>> [array.tolist() for array in counts.flattened()[1:]]  # lengths and counts
        [[3, 4, 4], [1, 1, 1]]
        """
        block = Block(raw, starts_P)
        *by_width, long = block.by_width(WIDTHS)
        for counts, selected_S in zip(self._by_width, by_width, strict=True):
            counts.add(*dedup_keys(block.keys(selected_S, counts.width)))
        self._longer.update(map(block.pretoken, long))
        self.n_bytes += len(raw)

    def partial_counts(self) -> PartialCounts:
        """Return the argument for `update` in another process."""
        by_width = [(counts.keys(), counts.counts()) for counts in self._by_width]
        return PartialCounts(by_width, dict(self._longer), self.n_bytes)

    def update(self, other: PartialCounts) -> None:
        """Add the counts of another part of the corpus."""
        for counts, (keys, counts_U) in zip(self._by_width, other.by_width, strict=True):
            counts.add(keys, counts_U)
        self._longer.update(other.longer)
        self.n_bytes += other.n_bytes

    def flattened(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all pre-tokens concatenated, uint8[B], their lengths and counts, int64[U]."""
        raw, lengths, counts = [], [], []
        for part in self._by_width:
            bytes_UB = np.stack(part.keys(), axis=1).astype("<u8").view(np.uint8)
            lengths_U = bytes_UB[:, -1].astype(np.int64)  # the last byte of a key is the length
            raw.append(bytes_UB[np.arange(8 * part.width) < lengths_U[:, None]])
            lengths.append(lengths_U)
            counts.append(part.counts())
        raw.append(np.frombuffer(b"".join(self._longer), dtype=np.uint8))
        lengths.append(np.array([len(pretoken) for pretoken in self._longer], dtype=np.int64))
        counts.append(np.array([*self._longer.values()], dtype=np.int64))
        return np.concatenate(raw), np.concatenate(lengths), np.concatenate(counts)


def dedup_keys(words: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Merge most duplicate keys; return fewer keys, of which some may repeat, and their counts.

    This reduces the look-ups in the table of all pre-tokens, which exceeds the processor's cache.
    All keys are written to the slots of a small direct-mapped table; the last key in a slot stays:

        key             the   cat   the   mat
        slot              5     2     5     2       table afterwards   [. . mat . . the]
        same as table?  yes    no   yes   yes

    Keys that find themselves in their slot are counted by slot. The few others are returned
    unchanged with a count of 1.

    >>> (keys,), counts = dedup_keys([np.array([7, 9, 7], dtype=np.uint64)])
    >>> sorted(zip(keys.tolist(), counts.tolist()))
    [(7, 2), (9, 1)]

    Args:
        words: words[w] is word w of all keys, uint64[K].
    """
    slots_K = words[0] * GOLDEN
    for word_K in words[1:]:
        slots_K = (slots_K ^ word_K) * GOLDEN
    slots_K = (slots_K >> np.uint64(64 - SLOT_BITS)).view(np.int64)
    same_K = np.ones(len(slots_K), dtype=bool)
    table = [np.zeros(1 << SLOT_BITS, dtype=np.uint64) for _ in words]
    for column, word_K in zip(table, words, strict=True):
        column[slots_K] = word_K
        same_K &= column.take(slots_K) == word_K
    others = np.flatnonzero(~same_K)
    counts = np.bincount(slots_K, minlength=1 << SLOT_BITS)
    counts -= np.bincount(slots_K[others], minlength=1 << SLOT_BITS)
    used = np.flatnonzero(counts)
    keys = [
        np.concatenate((column[used], word_K[others]))
        for column, word_K in zip(table, words, strict=True)
    ]
    return keys, np.concatenate((counts[used], np.ones(len(others), dtype=np.int64)))


class _WidthCounts:
    """The distinct pre-tokens of one width (tok.encoding.block) and their counts."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._table = HashTable(width, n_keys=1 << 12)
        # By index in the table; has room for further keys, or too little until `add` extends it.
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, words: Sequence[np.ndarray], counts_K: np.ndarray) -> None:
        """Add counts_K[k] to the count of key k. Keys may repeat."""
        indices_K, _ = self._table.find_or_add(words)
        if len(self._counts) < len(self._table):
            more = np.zeros(2 * len(self._table) - len(self._counts), dtype=np.int64)
            self._counts = np.concatenate((self._counts, more))
        np.add.at(self._counts, indices_K, counts_K)

    def keys(self) -> list[np.ndarray]:
        """Return `width` arrays uint64[U]."""
        return self._table.keys()

    def counts(self) -> np.ndarray:
        """Return int64[U], in the order of `keys`."""
        return self._counts[: len(self._table)]
