"""Windows over a token file: the positions that one row of a batch holds.

Both kinds, `packed` and `documents`, treat the file as if an end-of-text token preceded it. So the
first token is a target too, and the start of a document is predicted from the token that generation
starts with.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from data.token_file import TokenFile
from utils.errors import UserError

IGNORE_INDEX = -100  # a target that does not count: the default of PyTorch's cross_entropy
WINDOWS = ("documents", "packed")  # kinds of windows


class Targets(NamedTuple):
    """The positions of the targets of B windows in the file. Each array is int64 (B,).

    The inputs are the tokens one position before each target.

    Attributes:
        start_B: position of the first target.
        length_B: number of targets.
        context_B: number of targets at the start that do not count, as an earlier window has them.
    """

    start_B: np.ndarray
    length_B: np.ndarray
    context_B: np.ndarray

    @property
    def n_targets(self) -> int:
        """The number of targets that count."""
        return int((self.length_B - self.context_B).sum())


class Windows(ABC):
    """The windows of a token file, indexed from 0."""

    def __init__(self, tokens: TokenFile, n_windows: int, eot_id: int) -> None:
        self.tokens, self.n_windows, self.eot_id = tokens, n_windows, eot_id

    @abstractmethod
    def targets(self, index_B: np.ndarray) -> Targets:
        """Return the targets of the windows `index_B`, int64 (B,)."""

    def rows(
        self, index_B: np.ndarray, shift_B: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return inputs and targets of each window, int64 arrays of equal length.

        With a shift, the file is rotated: it starts that many tokens later and wraps around.
        """
        start_B, length_B, context_B = self.targets(index_B)
        first_B = start_B - 1 if shift_B is None else start_B - 1 + shift_B
        rows = []
        for first, length, context in np.stack((first_B, length_B, context_B), axis=1).tolist():
            stream = self._read(first, first + length + 1).astype(np.int64)
            x, y = stream[:-1], stream[1:].copy()
            y[:context] = IGNORE_INDEX
            rows.append((x, y))
        return rows

    def _read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens `start` to `stop`, wrapping around. Position -1 is an end-of-text token."""
        if start < 0:
            return np.concatenate(([self.eot_id], self.tokens.read(0, stop)))
        n = self.tokens.n_tokens
        start, stop = start % n, start % n + stop - start
        ids = self.tokens.read(start, stop)
        return ids if stop <= n else np.concatenate((ids, self.tokens.read(0, stop - n)))


class PackedWindows(Windows):
    """Windows of `block_size` tokens, one every `stride` tokens, regardless of documents.

    With stride < block_size windows overlap. A target of an earlier window is only context in the
    next one, so every token is a target exactly once. The last window may be shorter.
    """

    def __init__(self, tokens: TokenFile, *, block_size: int, stride: int, eot_id: int) -> None:
        if tokens.n_tokens < block_size:
            raise UserError(
                f"the {tokens.path.stem} part holds {tokens.n_tokens} tokens, fewer than "
                f"model.block_size {block_size}; use more text or a smaller block_size"
            )
        self.block_size, self.stride = block_size, stride
        n_windows = 1 + math.ceil((tokens.n_tokens - block_size) / stride)
        super().__init__(tokens, n_windows, eot_id)

    def targets(self, index_B: np.ndarray) -> Targets:
        """Return the targets of the windows `index_B`, int64 (B,)."""
        start_B = index_B * self.stride
        length_B = np.minimum(self.block_size, self.tokens.n_tokens - start_B)
        return Targets(start_B, length_B, np.where(index_B > 0, self.block_size - self.stride, 0))


class DocumentWindows(Windows):
    """Windows of one document each.

    The targets are the document and the end-of-text token after it; the first input is the
    end-of-text token before it.
    """

    def __init__(self, tokens: TokenFile, *, block_size: int, eot_id: int) -> None:
        ends = tokens.positions_of(eot_id) + 1
        if not len(ends) or ends[-1] != tokens.n_tokens:
            raise UserError(
                f"{tokens.path}: does not end with an end-of-text token; run data.prepare again"
            )
        self.starts = np.concatenate(([0], ends[:-1]))
        self.lengths = ends - self.starts
        longest = int(self.lengths.argmax(0))
        if self.lengths[longest] > block_size:
            raise UserError(
                f"the {tokens.path.stem} part's document {longest} holds {self.lengths[longest]} "
                f"tokens, more than model.block_size {block_size}; raise block_size or set "
                "data.windows packed"
            )
        super().__init__(tokens, len(ends), eot_id)

    def targets(self, index_B: np.ndarray) -> Targets:
        """Return the targets of the windows `index_B`, int64 (B,)."""
        return Targets(self.starts[index_B], self.lengths[index_B], np.zeros_like(index_B))


def cut_windows(
    tokens: TokenFile, kind: str, block_size: int, stride: int, *, eot_id: int
) -> Windows:
    """Return the windows of a token file.

    Args:
        kind: `documents` or `packed`.
        stride: of packed windows, in tokens; 0 = block_size.

    Raises:
        UserError: too few tokens, a document longer than block_size, or a stride that would leave
            out text.
    """
    if kind == "documents":
        return DocumentWindows(tokens, block_size=block_size, eot_id=eot_id)
    if stride > block_size:
        raise UserError(
            f"data.stride {stride} is more than model.block_size {block_size}: "
            "text would be left out; lower it"
        )
    return PackedWindows(tokens, block_size=block_size, stride=stride or block_size, eot_id=eot_id)
