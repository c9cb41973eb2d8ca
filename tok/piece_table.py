"""Pre-tokens as keys of a table: which of a block's have been seen before, and their ids.

A pre-token of at most 7 bytes is one word, 8 to 15 bytes are two, and so on, up to 255. The highest
byte of the last word is the length, so that a zero byte in a text is told from the end:

    " the"          0x04000000_65687420        (the first byte of a text is a word's lowest)
    " therefore"    0x6f666572_65687420, 0x0a000000_00006572
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tok.merge_many import MAX_LINES, PairTable, merge_many
from tok.table import Table

WIDTHS = (1, 2, 4, 8, 16, 32)  # words
LONGEST = 8 * WIDTHS[-1] - 1  # bytes
assert LONGEST < MAX_LINES

# uint64[9]: masks that keep so many of the bytes of a word.
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


class Block:
    """The bytes of a block of text and where its pre-tokens are."""

    def __init__(self, raw: bytes, starts: np.ndarray) -> None:
        """starts: int64[P], ascending, from 0 on."""
        self.raw = np.frombuffer(raw + bytes(LONGEST + 1), dtype=np.uint8)
        self.starts = starts
        self.lengths = np.diff(starts, append=len(raw))
        # uint64 at every byte: element i is made of the bytes i to i + 7.
        n_words = len(self.raw) - 7
        self._words = np.ndarray(n_words, dtype="<u8", buffer=self.raw.data, strides=(1,))

    def keys(self, chosen: np.ndarray, width: int) -> list[np.ndarray]:
        """`width` arrays uint64[C], the keys of the chosen pre-tokens, as shown above."""
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        words = [self._words[starts + 8 * w].astype(np.uint64, copy=False) for w in range(width)]
        for w in range(width // 2, width):  # the words before are full
            words[w] &= _KEEP.take(lengths - 8 * w, mode="clip")
        words[-1] |= lengths.astype(np.uint64) << np.uint64(56)
        return words

    def by_width(self) -> Iterator[np.ndarray]:
        """For each of WIDTHS, which pre-tokens are of it; then which are longer: int64[C]."""
        short = self.lengths < 8 * WIDTHS[0]
        yield np.flatnonzero(short)
        longer = np.flatnonzero(~short)
        for width in WIDTHS[1:]:
            short = self.lengths[longer] < 8 * width
            yield longer[short]
            longer = longer[~short]
        yield longer

    def columns(self, chosen: np.ndarray, n_lines: int) -> np.ndarray:
        """uint8[n_lines, C]: in each column the bytes of a chosen pre-token and what follows it."""
        return self.raw[self.starts[chosen] + np.arange(n_lines)[:, None]]

    def piece(self, index: int) -> bytes:
        """The bytes of one pre-token."""
        start = self.starts[index]
        return self.raw[start : start + self.lengths[index]].tobytes()


class PieceTable:
    """All different pre-tokens of one width that were seen, by number, with their ids."""

    def __init__(self, width: int) -> None:
        self._table = Table(width)
        self.longest = 8 * width - 1  # bytes
        #: int64[pieces]: where the ids of a piece start in the store; the id itself if it has one.
        self.first = np.zeros(0, dtype=np.int64)
        #: int64[pieces]: how many ids.
        self.count = np.zeros(0, dtype=np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []  # bytes and lengths of those without

    @property
    def n_bytes(self) -> int:
        """Memory of the table."""
        return self._table.n_bytes

    def number(self, block: Block, chosen: np.ndarray) -> np.ndarray:
        """int64[C]: the numbers of the chosen pre-tokens, which must be of this width."""
        numbers, added = self._table.find_or_add(block.keys(chosen, self._table.width))
        if len(added):
            new = chosen[added]
            self._new.append((block.columns(new, self.longest), block.lengths[new]))
        return numbers

    def merge_new(self, pairs: PairTable, n_stored: int) -> np.ndarray:
        """The ids of all pieces that have none yet, to be stored from place `n_stored` on."""
        if not self._new:
            return np.zeros(0, dtype=np.int64)
        columns, lengths = zip(*self._new, strict=True)
        self._new = []
        ids, counts = merge_many(np.concatenate(columns, axis=1), np.concatenate(lengths), pairs)
        places = np.cumsum(counts) - counts
        first = np.where(counts == 1, ids[places], n_stored + places)
        self.first = np.concatenate([self.first, first])
        self.count = np.concatenate([self.count, counts])
        return ids
