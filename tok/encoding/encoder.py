"""Text to ids: a prompt pre-token by pre-token, a large text in arrays (tok.encoding.batch).

Both give the same ids. Arrays take a millisecond to get going, and then do tens of MB a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby

import numpy as np

from tok.encoding.batch import BatchEncoder
from tok.encoding.merge import merge_ids
from tok.encoding.merge_many import PairTable
from tok.encoding.special import SpecialReader, allowed_tokens, special_pattern
from tok.patterns import Pattern, split, to_bytes, to_text
from tok.split_arrays import BLOCK_BYTES, blocks
from tok.vocabulary import Pair

MAX_PIECES = 1 << 18
MAX_PIECE_CHARS = 128

# What text is cut into, to be encoded part by part: a special token's id; a short text; or a block
# of a long one with the starts of its pre-tokens, int64[P].
Part = int | bytes | tuple[bytes, np.ndarray]

SHORT = 1 << 12  # characters or bytes; where both ways take about equally long


def is_long(text: object) -> bool:
    """Whether to encode `text` in arrays.

    >>> is_long("a prompt"), is_long(bytes(10_000))
    (False, True)
    """
    return isinstance(text, (str, bytes, bytearray, memoryview)) and len(text) > SHORT


@dataclass(eq=False)
class Encoder:
    """Encodes with one vocabulary; remembers the pre-tokens that it has seen."""

    merges: Sequence[Pair]  #: merges[i] makes number 256 + i (tok.vocabulary says what a number is)
    lengths: Sequence[int]  #: of each number in bytes
    byte_numbers: bytes  #: byte_numbers[b] is the number of byte b
    tokens: Sequence[bytes]  #: of each number its bytes
    ids: Sequence[int]  #: of each number its id
    special_ids: Mapping[str, int]
    pattern: Pattern

    def __post_init__(self) -> None:
        self._new = {pair: 256 + rank for rank, pair in enumerate(self.merges)}
        self._cache = PieceCache(self._encode_piece)

    def warm_up(self) -> None:
        """Makes the tables in which whole words are looked up; otherwise the first text waits."""
        self.encode_short("It's 1 word unheardof.", allowed_special=False)

    def encode_short(self, text: str, allowed_special: bool | Collection[str]) -> list[int]:
        """The ids of a text as `tok.patterns.to_text` gives it."""
        tokens = allowed_tokens(self.special_ids, allowed_special)
        if not tokens:
            return list(self._encode_plain(text))
        ids: list[int] = []
        for i, part in enumerate(special_pattern(tokens).split(text)):
            # The pattern has one group: every second part is a special token.
            ids += [self.special_ids[part]] if i % 2 else self._encode_plain(part)
        return ids

    def parts(
        self, read: Callable[[int], bytes], allowed_special: bool | Collection[str] = False
    ) -> Iterator[Part]:
        """Cuts a stream of bytes into parts, to be encoded in order, here or in other processes.

        Args:
            read: gives at most so many next bytes, b"" at the end.
        """
        tokens = allowed_tokens(self.special_ids, allowed_special)
        if not tokens:
            yield from self._cut(read)
            return
        reader = SpecialReader(read, tokens)
        while True:
            yield from self._cut(reader.read)
            found = reader.next_part()
            if found is None:
                return
            yield self.special_ids[found]

    def _cut(self, read: Callable[[int], bytes]) -> Iterator[Part]:
        begin = read(BLOCK_BYTES)
        more = read(BLOCK_BYTES) if len(begin) <= SHORT else None
        if more == b"":
            if begin:
                yield begin
            return
        ahead = [part for part in (more, begin) if part]
        yield from blocks(lambda size: ahead.pop() if ahead else read(size), self.pattern)

    def encode_parts(self, parts: Iterable[Part]) -> Iterator[np.ndarray]:
        """The ids of parts, one after the other: arrays int64, however many."""
        for are_blocks, run in groupby(parts, key=lambda part: isinstance(part, tuple)):
            if are_blocks:
                numbers = self._batch.encode(part for part in run if isinstance(part, tuple))
                yield from numbers if self._placed is None else map(self._placed.take, numbers)
            else:
                ids = chain.from_iterable(map(self._encode_small, run))
                yield np.fromiter(ids, dtype=np.int64)

    def _encode_small(self, part: Part) -> Iterable[int]:
        if isinstance(part, int):
            return [part]
        assert isinstance(part, bytes), "blocks are encoded in arrays"
        return self._encode_plain(to_text(part))

    def _encode_plain(self, text: str) -> Iterable[int]:
        return chain.from_iterable(map(self._cache.__getitem__, split(text, self.pattern)))

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        raw = to_bytes(piece)
        number = self._whole.get(raw)
        if number is not None:
            return (self.ids[number],)
        return tuple(map(self.ids.__getitem__, self._merge(raw)))

    def _merge(self, raw: bytes) -> list[int]:
        """The numbers of one pre-token, of any length."""
        return merge_ids(raw.translate(self.byte_numbers), self._new, self.merges, self.lengths)

    @cached_property
    def _batch(self) -> BatchEncoder:
        pairs = PairTable(self.merges, self.byte_numbers, self.lengths)
        return BatchEncoder(pairs, self.tokens, self._merge)

    @cached_property
    def _whole(self) -> dict[bytes, int]:
        """The tokens that the merges make of their own bytes, and their numbers."""
        whole = self._batch.is_whole.nonzero()[0].tolist()
        return {self.tokens[number]: number for number in whole}

    @cached_property
    def _placed(self) -> np.ndarray | None:
        """int64: the id of each number; None if each number is its id."""
        ids = np.array(self.ids, dtype=np.int64)
        return None if (ids == np.arange(len(ids))).all() else ids


class PieceCache(dict[str, tuple[int, ...]]):
    """Pre-token -> ids, worked out when first asked for. Bounded: when full it starts afresh.

    >>> cache = PieceCache(lambda piece: tuple(piece.encode()))
    >>> cache["ab"], len(cache)
    ((97, 98), 1)
    """

    def __init__(
        self, encode_piece: Callable[[str], tuple[int, ...]], max_pieces: int = MAX_PIECES
    ) -> None:
        super().__init__()
        self._encode_piece = encode_piece
        self._max_pieces = max_pieces

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = self._encode_piece(piece)
        if len(piece) <= MAX_PIECE_CHARS:
            if len(self) >= self._max_pieces:
                self.clear()
            self[piece] = ids
        return ids
