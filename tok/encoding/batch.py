"""Encoding large texts: the pre-tokens of a block of text all at once, in NumPy arrays.

With "the then the" and a vocabulary in which 257 is "the" and 258 " the":

    1. cut       0  3  8            where each pre-token starts (tok.patterns)
    2. number    0  1  2            which of the different pieces "the", " then", " the" each is
    3. merge     (257) (258 110) (258)      the ids of those pieces that are new (merge_many)
    4. lay out   257  258 110  258  the ids of all pre-tokens, one after the other

Few pieces are new: the vocabulary's own tokens are numbered beforehand, and others are remembered.
So the time goes into cutting and numbering, which takes the same few array steps for every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from tok.encoding.arrays import concat_ranges
from tok.encoding.block import LONGEST, WIDTHS, Block
from tok.encoding.hash_table import Table
from tok.encoding.merge_many import MAX_LINES, PairTable, merge_many

CUT_FROM = 32  # bytes
GROUP = 8  # blocks whose new pieces are merged together: fewer, longer arrays
MAX_CACHE_BYTES = 1 << 26  # of what is remembered beside the vocabulary; then it starts afresh

assert LONGEST < MAX_LINES


class BatchEncoder:
    """Blocks of text to ids. Remembers the pieces that it has seen."""

    def __init__(
        self,
        pairs: PairTable,
        tokens: Sequence[bytes],
        merge_long: Callable[[bytes], Sequence[int]],
    ) -> None:
        """
        Args:
            tokens: tokens[id] are the bytes of each id that the merges give.
            merge_long: the ids of one pre-token, for the few that do not fit a Block's widths.
        """
        self._pairs = pairs
        self._merge_long = merge_long
        self._tokens = b"".join(tokens)
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        self._token_starts = np.cumsum(lengths) - lengths
        self._apart = self._never_side_by_side()
        # The ids of pieces that have several, one after the other; of all widths.
        self._store: np.ndarray
        self._start_afresh()

    def encode(self, blocks: Iterable[tuple[bytes, np.ndarray]]) -> Iterator[np.ndarray]:
        """The ids of each block, int64[ids].

        Args:
            blocks: some bytes, and where in them pre-tokens start, int64[P]; see tok.split_arrays.
        """
        rest = iter(blocks)
        while group := [
            Block(raw, self._cut_apart(raw, starts)) for raw, starts in islice(rest, GROUP)
        ]:
            if self._n_bytes() > self._full_bytes:
                self._start_afresh()
            for first_P, count_P, store in self._look_up(group):
                yield lay_out(store, first_P, count_P)

    def _look_up(
        self, group: Sequence[Block]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each block's pre-tokens first_P, count_P and the store, as `lay_out` takes them."""
        numbered = []
        for block in group:
            *by_width, long = block.by_width()
            numbers = [
                pieces.number(block, chosen)
                for pieces, chosen in zip(self._pieces, by_width, strict=True)
            ]
            numbered.append((block, by_width, numbers, long))
        for pieces in self._pieces:
            ids = pieces.merge_new(self._pairs, len(self._store))
            self._store = np.concatenate([self._store, ids])
        for block, by_width, numbers, long in numbered:
            first_P, count_P = np.empty((2, len(block.starts)), dtype=np.int64)
            for pieces, chosen, number in zip(self._pieces, by_width, numbers, strict=True):
                first_P[chosen] = pieces.first[number]
                count_P[chosen] = pieces.count[number]
            store = self._store
            if len(long):
                merged = [self._merge_long(block.piece(index)) for index in long]
                count_P[long] = [len(ids) for ids in merged]
                first_P[long] = len(store) + np.cumsum(count_P[long]) - count_P[long]
                store = np.concatenate([store, *merged])
            yield first_P, count_P, store

    def _start_afresh(self) -> None:
        self._pieces = [PieceTable(width) for width in WIDTHS]
        self._store = np.zeros(0, dtype=np.int64)
        ((first_P, count_P, _),) = self._look_up([Block(self._tokens, self._token_starts)])
        #: bool[ids]: whether the bytes of an id, as a pre-token, become that id.
        self.is_whole = (count_P == 1) & (first_P == np.arange(len(first_P)))
        self._full_bytes = self._n_bytes() + MAX_CACHE_BYTES

    def _never_side_by_side(self) -> np.ndarray:
        """bool[65536]: at 256 a + b, whether the bytes a, b stand side by side in no token."""
        inside = np.ones(len(self._tokens), dtype=bool)
        inside[self._token_starts] = False
        apart = np.ones(1 << 16, dtype=bool)
        apart[pairs_before(self._tokens, np.flatnonzero(inside))] = False
        return apart

    def _cut_apart(self, raw: bytes, starts: np.ndarray) -> np.ndarray:
        """Cuts long pre-tokens where no merge can reach across: the ids stay the same.

        Chinese and Japanese text in an English vocabulary falls into characters, which are seen
        again, where its pre-tokens are sentences, which are not.
        """
        lengths = np.diff(starts, append=len(raw))
        long = np.flatnonzero(lengths >= CUT_FROM)
        if not len(long):
            return starts
        # The second to the last byte of every long pre-token: where it may be cut.
        places = concat_ranges(starts[long] + 1, lengths[long] - 1)
        cuts = places[self._apart[pairs_before(raw, places)]]
        return np.insert(starts, np.searchsorted(starts, cuts), cuts) if len(cuts) else starts

    def _n_bytes(self) -> int:
        return self._store.nbytes + sum(pieces.n_bytes for pieces in self._pieces)


def lay_out(store: np.ndarray, first_P: np.ndarray, count_P: np.ndarray) -> np.ndarray:
    """The ids of pre-tokens one after the other: those of number p are store[first_P[p]] and the
    following, count_P[p] in all; but where it is one, first_P[p] is the id.

    >>> lay_out(np.array([7, 8, 9]), np.array([3, 1, 5]), np.array([1, 2, 1])).tolist()
    [3, 8, 9, 5]
    """
    several = np.flatnonzero(count_P != 1)
    if not len(several):
        return first_P
    laid = np.repeat(first_P, count_P)
    first, count = first_P[several], count_P[several]
    place = np.cumsum(count_P)[several] - count  # where the first id of each goes
    laid[concat_ranges(place, count)] = store[concat_ranges(first, count)]
    return laid


def pairs_before(raw: bytes, places: np.ndarray) -> np.ndarray:
    """uint16: the bytes before and at each place (from 1 on) as one number.

    >>> pairs_before(b"abc", np.array([1, 2])).tolist() == [256 * 97 + 98, 256 * 98 + 99]
    True
    """
    bytes_N = np.frombuffer(raw, dtype=np.uint8)
    return bytes_N[places - 1].astype(np.uint16) << 8 | bytes_N[places]


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
