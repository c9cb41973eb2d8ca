"""Encode blocks of text in NumPy arrays: all pre-tokens of a block together.

With "the then the" and a vocabulary in which 257 is "the" and 258 " the":

    1. split     0  3  8            the start of each pre-token (tok.split_arrays)
    2. index     0  1  2            its index among the distinct pre-tokens "the", " then", " the"
    3. merge     (257) (258 110) (258)      the ids of the new distinct pre-tokens (merge_many)
    4. expand    257  258 110  258  the ids of all pre-tokens, concatenated

Few pre-tokens are new: the vocabulary's own tokens are in the table from the start, and others are
cached. So the time is spent in steps 1, 2 and 4, a fixed number of array operations per block.

The ids of this file are ranks (tok.vocabulary); tok.encoding.encoder converts them where they
differ from the ids of the vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

import numpy as np

from tok.encoding.arrays import concat_ranges
from tok.encoding.block import MAX_PRETOKEN_BYTES, WIDTHS, Block
from tok.encoding.hash_table import HashTable
from tok.encoding.merge_many import MAX_LENGTH, PairTable, merge_many

LONG_PRETOKEN_BYTES = 32  # pre-tokens of at least this length are split into pieces
# A longer block has a pre-token that no place to cut was found in. In arrays it would take 75 bytes
# of memory for each, so it is divided into parts; a part is shorter than MAX_BLOCK_BYTES.
PART_BYTES = 1 << 17
MAX_BLOCK_BYTES = 4 * PART_BYTES
# Blocks whose new pre-tokens are merged together: fewer calls, longer arrays.
BLOCKS_PER_GROUP = 8
MAX_CACHE_BYTES = 1 << 26  # limit of what is cached beyond the tokens of the vocabulary

assert MAX_PRETOKEN_BYTES < MAX_LENGTH


class BatchEncoder:
    """Encodes blocks of text and caches the ids of their distinct pre-tokens."""

    def __init__(
        self, pairs: PairTable, tokens: Sequence[bytes], merge_long: Callable[[bytes], np.ndarray]
    ) -> None:
        """
        Args:
            pairs: the merges of the vocabulary.
            tokens: tokens[id] is the bytes of an id, for all ids of bytes and merges.
            merge_long: returns the ids of one pre-token longer than MAX_PRETOKEN_BYTES.
        """
        self._pairs = pairs
        self._merge_long = merge_long
        self._tokens = b"".join(tokens)
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        self._token_starts = np.cumsum(lengths) - lengths
        self._unmergeable = self._find_unmergeable_bytes()
        # int64[T]: the ids of all cached pre-tokens, concatenated. A single id is stored too, but
        # read from PretokenTable.first.
        self._store: np.ndarray
        self._reset_cache()

    def encode(self, blocks: Iterable[tuple[bytes, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the ids of each block, int64[T].

        Args:
            blocks: bytes and the starts of their pre-tokens, int64[P]; see tok.split_arrays.
        """
        parts = self._parts(blocks)
        for is_giant, run in groupby(parts, lambda part: len(part[0]) > MAX_BLOCK_BYTES):
            if is_giant:
                yield from (self._merge_long(raw) for raw, _ in run)
                continue
            while group := [
                Block(raw, self._split_long_pretokens(raw, starts))
                for raw, starts in islice(run, BLOCKS_PER_GROUP)
            ]:
                if self._n_bytes() > self._max_bytes:
                    self._reset_cache()
                for first_P, count_P, store in self._look_up(group):
                    yield expand_ids(store, first_P, count_P)

    def _parts(
        self, blocks: Iterable[tuple[bytes, np.ndarray]]
    ) -> Iterator[tuple[bytes, np.ndarray]]:
        """Yield the blocks; divide longer ones, except for pre-tokens that merges may join."""
        for raw, starts in blocks:
            if len(raw) <= MAX_BLOCK_BYTES:
                yield raw, starts
                continue
            offsets = np.arange(PART_BYTES, len(raw), PART_BYTES)
            near = (offsets[:, None] - np.arange(min(1 << 10, PART_BYTES))).ravel()
            cuts = near[self._unmergeable[byte_pairs_at(raw, near)]]
            starts = np.union1d(starts, cuts[np.unique(cuts // PART_BYTES, return_index=True)[1]])
            long = np.flatnonzero(np.diff(starts, append=len(raw)) > 2 * PART_BYTES)
            ends = np.concatenate([long, long + 1, np.searchsorted(starts, offsets)])
            parts = [part for part in np.split(starts, np.unique(ends)) if len(part)]
            for part, end in zip(parts, [*(part[0] for part in parts[1:]), len(raw)], strict=True):
                yield raw[part[0] : end], part - part[0]

    def _look_up(
        self, group: Sequence[Block]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield for each block what `expand_ids` takes: first_P, count_P and the store."""
        indexed = []
        for block in group:
            *by_width, long_S = block.by_width()
            indices = [
                table.find_or_add(block, selected_S)
                for table, selected_S in zip(self._pretokens, by_width, strict=True)
            ]
            indexed.append((block, by_width, indices, long_S))
        for table in self._pretokens:
            ids = table.merge_new(self._pairs, len(self._store))
            self._store = np.concatenate([self._store, ids])
        for block, by_width, indices, long_S in indexed:
            first_P, count_P = np.empty((2, len(block.starts)), dtype=np.int64)
            for table, selected_S, index_S in zip(self._pretokens, by_width, indices, strict=True):
                first_P[selected_S] = table.first[index_S]
                count_P[selected_S] = table.count[index_S]
            store = self._store
            if len(long_S):
                merged = [self._merge_long(block.pretoken(index)) for index in long_S]
                count_P[long_S] = [len(ids) for ids in merged]
                first_P[long_S] = len(store) + np.cumsum(count_P[long_S]) - count_P[long_S]
                store = np.concatenate([store, *merged])
            yield first_P, count_P, store

    def _reset_cache(self) -> None:
        self._pretokens = [PretokenTable(width) for width in WIDTHS]
        self._store = np.zeros(0, dtype=np.int64)
        # All tokens of the vocabulary, as the pre-tokens of one block.
        ((first_P, count_P, _),) = self._look_up([Block(self._tokens, self._token_starts)])
        #: bool[V]: True if the bytes of an id, as a pre-token, merge to that id.
        self.is_whole = (count_P == 1) & (first_P == np.arange(len(first_P)))
        self._max_bytes = self._n_bytes() + MAX_CACHE_BYTES

    def _find_unmergeable_bytes(self) -> np.ndarray:
        """Return bool[65536]: element 256 a + b is True if no token contains the bytes a, b."""
        inside = np.ones(len(self._tokens), dtype=bool)
        inside[self._token_starts] = False
        unmergeable = np.ones(1 << 16, dtype=bool)
        unmergeable[byte_pairs_at(self._tokens, np.flatnonzero(inside))] = False
        return unmergeable

    def _split_long_pretokens(self, raw: bytes, starts: np.ndarray) -> np.ndarray:
        """Split long pre-tokens between bytes that no merge can join: the ids stay the same.

        With an English vocabulary this splits Chinese or Japanese text into characters, which recur
        and so are found in the cache. The pre-tokens themselves are sentences, which do not recur.
        """
        lengths = np.diff(starts, append=len(raw))
        long = np.flatnonzero(lengths >= LONG_PRETOKEN_BYTES)
        if not len(long):
            return starts
        # The second to the last byte of every long pre-token may become a start.
        offsets = concat_ranges(starts[long] + 1, lengths[long] - 1)
        cuts = offsets[self._unmergeable[byte_pairs_at(raw, offsets)]]
        return np.insert(starts, np.searchsorted(starts, cuts), cuts) if len(cuts) else starts

    def _n_bytes(self) -> int:
        return self._store.nbytes + sum(table.n_bytes for table in self._pretokens)


def expand_ids(store: np.ndarray, first_P: np.ndarray, count_P: np.ndarray) -> np.ndarray:
    """Return int64[T]: the ids of all pre-tokens of a block, concatenated.

    If pre-token p has one id (count_P[p] == 1), it is first_P[p]. If it has several, they are
    store[first_P[p] : first_P[p] + count_P[p]].

    >>> expand_ids(np.array([7, 8, 9]), np.array([3, 1, 5]), np.array([1, 2, 1])).tolist()
    [3, 8, 9, 5]
    """
    several_S = np.flatnonzero(count_P != 1)
    if not len(several_S):
        return first_P
    ids_T = np.repeat(first_P, count_P)
    first_S, count_S = first_P[several_S], count_P[several_S]
    target_S = np.cumsum(count_P)[several_S] - count_S  # position of the first id in the result
    ids_T[concat_ranges(target_S, count_S)] = store[concat_ranges(first_S, count_S)]
    return ids_T


def byte_pairs_at(raw: bytes, offsets: np.ndarray) -> np.ndarray:
    """Return uint16: 256 raw[i - 1] + raw[i] for each offset i, which must be at least 1.

    >>> byte_pairs_at(b"abc", np.array([1, 2])).tolist() == [256 * 97 + 98, 256 * 98 + 99]
    True
    """
    bytes_B = np.frombuffer(raw, dtype=np.uint8)
    return bytes_B[offsets - 1].astype(np.uint16) << 8 | bytes_B[offsets]


class PretokenTable:
    """The distinct pre-tokens of one width (tok.encoding.block) and their ids."""

    def __init__(self, width: int) -> None:
        self._table = HashTable(width)
        self.max_length = 8 * width - 1  # bytes
        #: int64[U]: position of a pre-token's ids in the store; the id itself if there is only one.
        self.first = np.zeros(0, dtype=np.int64)
        #: int64[U]: number of ids.
        self.count = np.zeros(0, dtype=np.int64)
        # Bytes and lengths of the pre-tokens that are not merged yet.
        self._new: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def n_bytes(self) -> int:
        """Memory of the hash table, in bytes."""
        return self._table.n_bytes

    def find_or_add(self, block: Block, selected_S: np.ndarray) -> np.ndarray:
        """Return int64[S]: the indices of the selected pre-tokens, which must be of this width."""
        index_S, added = self._table.find_or_add(block.keys(selected_S, self._table.width))
        if len(added):
            new = selected_S[added]
            self._new.append((block.columns(new, self.max_length), block.lengths[new]))
        return index_S

    def merge_new(self, pairs: PairTable, n_stored: int) -> np.ndarray:
        """Merge the pre-tokens added since the last call; return their ids, int64[T].

        The caller must append the ids to the store, which has `n_stored` ids now.
        """
        if not self._new:
            return np.zeros(0, dtype=np.int64)
        columns, lengths = zip(*self._new, strict=True)
        self._new = []
        ids, counts = merge_many(np.concatenate(columns, axis=1), np.concatenate(lengths), pairs)
        starts = np.cumsum(counts) - counts
        first = np.where(counts == 1, ids[starts], n_stored + starts)
        self.first = np.concatenate([self.first, first])
        self.count = np.concatenate([self.count, counts])
        return ids
