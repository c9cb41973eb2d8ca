"""A block of text, and its pre-tokens as fixed-width integer keys.

A pre-token of at most 7 bytes is one 64-bit word, one of 8 to 15 bytes two words, and so on up to
255 bytes. The highest byte of the last word is the length, so that a zero byte in the text differs
from the padding:

    " the"          0x04000000_65687420        (the first byte of the text is the lowest of a word)
    " therefore"    0x6f666572_65687420, 0x0a000000_00006572
"""

from collections.abc import Iterator, Sequence

import numpy as np

WIDTHS = (1, 2, 4, 8, 16, 32)  # in words
MAX_PRETOKEN_BYTES = 8 * WIDTHS[-1] - 1

# uint64[9]: _LOW_BYTES[n] is a mask of the n lowest bytes of a word.
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


class Block:
    """The bytes of a block of text and the positions of its pre-tokens."""

    def __init__(self, raw: bytes, starts: np.ndarray) -> None:
        """starts: int64[P], the byte offset of each pre-token, ascending from 0."""
        self.raw = np.frombuffer(raw + bytes(MAX_PRETOKEN_BYTES + 1), dtype=np.uint8)
        self.starts = starts
        self.lengths = np.diff(starts, append=len(raw))
        # uint64[B]: element i consists of the bytes i to i + 7. The view is copied because NumPy
        # gathers unaligned words several times more slowly.
        words = np.ndarray(len(self.raw) - 7, dtype="<u8", buffer=self.raw.data, strides=(1,))
        self._words = words.astype(np.uint64)

    def keys(self, selected_S: np.ndarray, width: int) -> list[np.ndarray]:
        """Return `width` arrays uint64[S]: the keys of the selected pre-tokens, as shown above.

        The pre-tokens must need this width.
        """
        starts, lengths = self.starts.take(selected_S), self.lengths.take(selected_S)
        words = [self._words.take(starts + 8 * w) for w in range(width)]
        # A pre-token that needs this width fills the first half: widths double (WIDTHS).
        for w in range(width // 2, width):
            words[w] &= _LOW_BYTES.take(lengths - 8 * w, mode="clip")
        words[-1] |= lengths.view(np.uint64) << np.uint64(56)
        return words

    def by_width(self, widths: Sequence[int] = WIDTHS) -> Iterator[np.ndarray]:
        """Yield the indices of the pre-tokens that need each width, then of the longer ones."""
        short = self.lengths < 8 * widths[0]
        yield np.flatnonzero(short)
        longer = np.flatnonzero(~short)
        for width in widths[1:]:
            short = self.lengths[longer] < 8 * width
            yield longer[short]
            longer = longer[~short]
        yield longer

    def columns(self, selected_S: np.ndarray, max_length: int) -> np.ndarray:
        """Return uint8[max_length, S]: column s starts with the bytes of selected pre-token s.

        The bytes that follow that pre-token in the text fill the rest of the column.
        """
        return self.raw[self.starts[selected_S] + np.arange(max_length)[:, None]]

    def pretoken(self, index: int) -> bytes:
        """Return the bytes of one pre-token."""
        start = self.starts[index]
        return self.raw[start : start + self.lengths[index]].tobytes()
