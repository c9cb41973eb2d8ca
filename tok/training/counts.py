"""How often each pre-token occurs in a corpus: the table that merges are learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tok.encoding.arrays import GOLDEN
from tok.encoding.block import Block
from tok.encoding.hash_table import HashTable

# Words (tok.encoding.block). The few longer pretokens are counted in a Python dict.
WIDTHS = (1, 2, 4)

SLOT_BITS = 13


class PartialCounts(NamedTuple):
    """Distinct pretokens and their counts, to be added to others."""

    columns: list[tuple[list[np.ndarray], np.ndarray]]  #: keys as in tok.encoding.block, int64[U]
    longer: dict[bytes, int]
    n_bytes: int


class PretokenCounts:
    """Distinct pretokens and their counts, for one corpus or a part of it."""

    def __init__(self) -> None:
        self._columns = [_WidthCounts(width) for width in WIDTHS]
        self._longer: Counter[bytes] = Counter()
        self.n_bytes = 0  #: of all that was counted

    def add(self, raw: bytes, starts_P: np.ndarray) -> None:
        """Counts the pre-tokens of a block: raw[starts_P[i] : starts_P[i + 1]].

        >>> counts = PretokenCounts()
        >>> counts.add(b"the cat the", np.array([0, 3, 7]))
        >>> sorted(counts.as_dict().items())
        [(b' cat', 1), (b' the', 1), (b'the', 1)]
        """
        block = Block(raw, starts_P)
        *by_width, long = block.by_width(WIDTHS)
        for column, chosen in zip(self._columns, by_width, strict=True):
            column.add(*dedup_keys(block.keys(chosen, column.width)))
        self._longer.update(map(block.pretoken, long))
        self.n_bytes += len(raw)

    def partial_counts(self) -> PartialCounts:
        """What `update` takes: small, to be sent from one process to another."""
        columns = [(column.keys(), column.counts()) for column in self._columns]
        return PartialCounts(columns, dict(self._longer), self.n_bytes)

    def update(self, other: PartialCounts) -> None:
        """Adds the counts of another part of the corpus."""
        for column, (keys, counts_U) in zip(self._columns, other.columns, strict=True):
            column.add(keys, counts_U)
        self._longer.update(other.longer)
        self.n_bytes += other.n_bytes

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pretokens behind each other uint8[bytes], their lengths int64[U] and counts int64[U]."""
        raw, lengths, counts = [], [], []
        for column in self._columns:
            bytes_UB = np.stack(column.keys(), axis=1).astype("<u8").view(np.uint8)
            lengths_U = bytes_UB[:, -1].astype(np.int64)
            raw.append(bytes_UB[np.arange(8 * column.width) < lengths_U[:, None]])
            lengths.append(lengths_U)
            counts.append(column.counts())
        raw.append(np.frombuffer(b"".join(self._longer), dtype=np.uint8))
        lengths.append(np.array([len(pretoken) for pretoken in self._longer], dtype=np.int64))
        counts.append(np.array([*self._longer.values()], dtype=np.int64))
        return np.concatenate(raw), np.concatenate(lengths), np.concatenate(counts)

    def as_dict(self) -> dict[bytes, int]:
        """Piece -> how often it occurs."""
        raw, lengths_U, counts_U = self.rows()
        whole, ends_U = raw.tobytes(), lengths_U.cumsum()
        return {
            whole[end - length : end]: count
            for end, length, count in zip(
                ends_U.tolist(), lengths_U.tolist(), counts_U.tolist(), strict=True
            )
        }


def dedup_keys(words: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Most of equal keys made one: fewer keys, and how often each of them was there, int64.

    A large table of all pretokens lies in slow memory; this one is small. All keys are written to the
    slots that their hashes name, and the last one to write stays:

        key             the   cat   the   mat
        slot              5     2     5     2       table after it   [. . mat . . the]
        as the table?   yes    no   yes   yes

    Those who find their own key there are counted by slot. The few others stay as they are.

    >>> (keys,), counts = dedup_keys([np.array([7, 9, 7], dtype=np.uint64)])
    >>> sorted(zip(keys.tolist(), counts.tolist()))
    [(7, 2), (9, 1)]
    """
    slots_N = words[0] * GOLDEN
    for word_N in words[1:]:
        slots_N = (slots_N ^ word_N) * GOLDEN
    slots_N = (slots_N >> np.uint64(64 - SLOT_BITS)).view(np.int64)
    same_N = np.ones(len(slots_N), dtype=bool)
    table = [np.zeros(1 << SLOT_BITS, dtype=np.uint64) for _ in words]
    for column, word_N in zip(table, words, strict=True):
        column[slots_N] = word_N
        same_N &= column.take(slots_N) == word_N
    others = np.flatnonzero(~same_N)
    counts = np.bincount(slots_N, minlength=1 << SLOT_BITS)
    counts -= np.bincount(slots_N[others], minlength=1 << SLOT_BITS)
    used = np.flatnonzero(counts)
    keys = [
        np.concatenate((column[used], word_N[others]))
        for column, word_N in zip(table, words, strict=True)
    ]
    return keys, np.concatenate((counts[used], np.ones(len(others), dtype=np.int64)))


class _WidthCounts:
    """The pretokens of one width (tok.encoding.block), numbered in a table, and their counts."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._table = HashTable(width, n_keys=1 << 12)
        self._counts = np.zeros(0, dtype=np.int64)  # of the first pretokens; of the others it is 0

    def add(self, words: Sequence[np.ndarray], counts_N: np.ndarray) -> None:
        """Counts N pretokens, which may be equal, counts_N[n] times each."""
        numbers_N, _ = self._table.find_or_add(words)
        self._make_room()
        np.add.at(self._counts, numbers_N, counts_N)

    def _make_room(self) -> None:
        """A count for each pretoken, and for some to come."""
        if len(self._counts) < len(self._table):
            more = np.zeros(2 * len(self._table) - len(self._counts), dtype=np.int64)
            self._counts = np.concatenate((self._counts, more))

    def keys(self) -> list[np.ndarray]:
        """`width` arrays uint64[U]."""
        return self._table.keys()

    def counts(self) -> np.ndarray:
        """int64[U], in the order of `keys`."""
        return self._counts[: len(self._table)]
