"""A block of text as an array, and its pre-tokens as keys, which compare as fast as numbers.

A pre-token of at most 7 bytes is one word, 8 to 15 bytes are two, and so on, up to 255. The highest
byte of the last word is the length, so that a zero byte in a text is told from the end:

    " the"          0x04000000_65687420        (the first byte of a text is a word's lowest)
    " therefore"    0x6f666572_65687420, 0x0a000000_00006572
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

WIDTHS = (1, 2, 4, 8, 16, 32)  # words
LONGEST = 8 * WIDTHS[-1] - 1  # bytes

# uint64[9]: masks that keep so many of the bytes of a word.
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


class Block:
    """The bytes of a block of text and where its pre-tokens are."""

    def __init__(self, raw: bytes, starts: np.ndarray) -> None:
        """starts: int64[P], ascending, from 0 on."""
        self.raw = np.frombuffer(raw + bytes(LONGEST + 1), dtype=np.uint8)
        self.starts = starts
        self.lengths = np.diff(starts, append=len(raw))
        # uint64 at every byte: element i is made of the bytes i to i + 7. A copy, as NumPy picks
        # words that begin anywhere in memory several times more slowly.
        words = np.ndarray(len(self.raw) - 7, dtype="<u8", buffer=self.raw.data, strides=(1,))
        self._words = words.astype(np.uint64)

    def keys(self, chosen: np.ndarray, width: int) -> list[np.ndarray]:
        """`width` arrays uint64[C], the keys of the chosen pre-tokens, as shown above."""
        starts, lengths = self.starts.take(chosen), self.lengths.take(chosen)
        words = [self._words.take(starts + 8 * w) for w in range(width)]
        for w in range(width // 2, width):  # the words before are full
            words[w] &= _KEEP.take(lengths - 8 * w, mode="clip")
        words[-1] |= lengths.view(np.uint64) << np.uint64(56)
        return words

    def by_width(self, widths: Sequence[int] = WIDTHS) -> Iterator[np.ndarray]:
        """For each of `widths`, which pre-tokens are of it; then which are longer: int64[C]."""
        short = self.lengths < 8 * widths[0]
        yield np.flatnonzero(short)
        longer = np.flatnonzero(~short)
        for width in widths[1:]:
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
