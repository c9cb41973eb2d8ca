"""The different pre-tokens that were seen, and the ids of each."""

from __future__ import annotations

import numpy as np

from tok.block import LONGEST, Block
from tok.merge_many import MAX_LINES, PairTable, merge_many
from tok.table import Table

assert LONGEST < MAX_LINES


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
