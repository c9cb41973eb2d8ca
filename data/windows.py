"""Windows over a token file: which positions one row of a batch holds.

Both kinds see the file as if an end-of-text token stood before it, so that its first token too is
a target, and a document's beginning is learned from the token that generation starts with.
"""

from __future__ import annotations

import numpy as np

from data.token_file import TokenFile
from utils.errors import UserError

IGNORE = -100  # a target that does not count; what torch's cross-entropy ignores by default
WINDOWS = ("documents", "packed")


class PackedWindows:
    """Windows of `block_size` tokens, one every `stride`, regardless of documents.

    With stride < block_size windows overlap: what an earlier window had as target is context only,
    so every token is a target exactly once.
    """

    def __init__(self, tokens: TokenFile, *, block_size: int, stride: int, end_id: int) -> None:
        if tokens.n_tokens < block_size:
            raise UserError(
                f"the {tokens.path.stem} part holds {tokens.n_tokens} tokens, fewer than "
                f"model.block_size {block_size}; use more text or a smaller block_size"
            )
        self.tokens, self.block_size, self.stride, self.end_id = tokens, block_size, stride, end_id
        self.n_windows = 1 + -(-(tokens.n_tokens - block_size) // stride)
        self.lengths = None

    def row(self, index: int, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of window `index`, int64 of one length; the last may be shorter.

        With a shift, windows are cut as if the file began that many tokens later and went on, after
        its end, with its beginning.
        """
        start = index * self.stride
        stop = min(start + self.block_size, self.tokens.n_tokens)
        stream = self._read(start - 1 + shift, stop + shift).astype(np.int64)
        x, y = stream[:-1], stream[1:].copy()
        if index:
            y[: self.block_size - self.stride] = IGNORE
        return x, y

    def _read(self, start: int, stop: int) -> np.ndarray:
        """Tokens `start` to `stop`, past the end too; at -1 stands the end-of-text before all."""
        if start < 0:
            return np.concatenate(([self.end_id], self.tokens.read(0, stop)))
        n = self.tokens.n_tokens
        start, stop = start % n, start % n + stop - start
        head = self.tokens.read(start, stop)
        return head if stop <= n else np.concatenate((head, self.tokens.read(0, stop - n)))

    def first(self, index: int) -> int:
        """The place in the token file of the first target of window `index`."""
        return index * self.stride


class DocumentWindows:
    """One whole document a window: end-of-text, then the document, up to its own end-of-text."""

    def __init__(self, tokens: TokenFile, *, block_size: int, end_id: int) -> None:
        ends = tokens.positions_of(end_id) + 1
        if not len(ends) or ends[-1] != tokens.n_tokens:
            raise UserError(
                f"{tokens.path}: does not end with an end-of-text token; run data.prepare again"
            )
        self.starts = np.concatenate(([0], ends[:-1]))
        self.lengths = ends - self.starts
        longest = int(self.lengths.argmax())
        if self.lengths[longest] > block_size:
            raise UserError(
                f"the {tokens.path.stem} part's document {longest} holds {self.lengths[longest]} "
                f"tokens, more than model.block_size {block_size}; raise block_size or set "
                "data.windows packed"
            )
        self.tokens, self.end_id, self.n_windows = tokens, end_id, len(ends)

    def row(self, index: int, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of document `index`, each int64 of its length."""
        assert not shift, "a document has its own place"
        start = int(self.starts[index])
        ids = self.tokens.read(start, start + int(self.lengths[index])).astype(np.int64)
        return np.concatenate(([self.end_id], ids[:-1])), ids

    def first(self, index: int) -> int:
        """The place in the token file of the first target of document `index`."""
        return int(self.starts[index])


Windows = PackedWindows | DocumentWindows


def cut_windows(
    tokens: TokenFile, kind: str, block_size: int, stride: int, *, end_id: int
) -> Windows:
    """The windows of a token file: `documents`, or `packed` every `stride` tokens (0 = block_size).

    Raises:
        UserError: too few tokens, a document above block_size, or a stride that skips text.
    """
    if kind == "documents":
        return DocumentWindows(tokens, block_size=block_size, end_id=end_id)
    if stride > block_size:
        raise UserError(
            f"data.stride {stride} is more than model.block_size {block_size}: "
            "text would be left out"
        )
    return PackedWindows(tokens, block_size=block_size, stride=stride or block_size, end_id=end_id)
