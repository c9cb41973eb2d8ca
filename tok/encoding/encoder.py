"""Encoder: text to ids. Short texts one pre-token at a time, long ones in arrays.

Both paths give the same ids. Arrays (tok.encoding.batch) have a fixed cost of about a millisecond
per call, and then process tens of MB per second.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, groupby

import numpy as np

from tok.encoding.batch import BatchEncoder
from tok.encoding.merge import merge_ids, merge_in_pieces
from tok.encoding.merge_many import PairTable
from tok.encoding.special import SpecialReader, allowed_tokens, special_pattern
from tok.patterns import Pattern, split, to_bytes, to_text
from tok.split_arrays import BLOCK_BYTES, blocks
from tok.vocabulary import Pair

MAX_CACHED_PRETOKENS = 1 << 18
MAX_CACHED_CHARS = 128  # longer pre-tokens are not cached

# A text is encoded in parts. A part is the id of a special token, a short text, or a block of a
# long text with the starts of its pre-tokens, int64[P].
Part = int | bytes | tuple[bytes, np.ndarray]

SHORT_TEXT_THRESHOLD = 1 << 12  # characters or bytes; at this length both paths are equally fast


def is_long(text: object) -> bool:
    """Return True if `text` should be encoded in arrays.

    >>> is_long("a prompt"), is_long(bytes(10_000))
    (False, True)
    """
    return (
        isinstance(text, (str, bytes, bytearray, memoryview)) and len(text) > SHORT_TEXT_THRESHOLD
    )


@dataclass(eq=False)
class Encoder:
    """Encodes text with one vocabulary; caches the ids of pre-tokens."""

    merges: Sequence[Pair]  #: merges[i] joins two ranks to rank 256 + i (see tok.vocabulary)
    lengths: Sequence[int]  #: rank -> length in bytes
    byte_ranks: bytes  #: byte -> rank
    tokens: Sequence[bytes]  #: rank -> bytes
    ids: Sequence[int]  #: rank -> id
    special_ids: Mapping[str, int]
    pattern: Pattern

    def __post_init__(self) -> None:
        self._rank_of_pair = {pair: 256 + i for i, pair in enumerate(self.merges)}
        self._cache = PretokenCache(self._encode_pretoken)

    def warm_up(self) -> None:
        """Build the look-up tables now, so that the first text is not slower than the others."""
        self.encode_short("It's 1 word unheardof.", allowed_special=False)

    def encode_short(self, text: str, allowed_special: bool | Collection[str]) -> list[int]:
        """Return the ids of `text`, which must be as `tok.patterns.to_text` returns it."""
        tokens = allowed_tokens(self.special_ids, allowed_special)
        if not tokens:
            return list(self._encode_plain(text))
        ids: list[int] = []
        for i, part in enumerate(special_pattern(tokens).split(text)):
            # The pattern has one group, so every second element is a special token.
            ids += [self.special_ids[part]] if i % 2 else self._encode_plain(part)
        return ids

    def parts(
        self, read: Callable[[int], bytes], allowed_special: bool | Collection[str] = False
    ) -> Iterator[Part]:
        """Split a stream of bytes into parts, which this or other processes encode in order.

        Args:
            read: returns at most the given number of next bytes, b"" at the end.
        """
        tokens = allowed_tokens(self.special_ids, allowed_special)
        if not tokens:
            yield from self._split_stream(read)
            return
        reader = SpecialReader(read, tokens)
        while True:
            yield from self._split_stream(reader.read)
            token = reader.pop_special()
            if token is None:
                return
            yield self.special_ids[token]

    def _split_stream(self, read: Callable[[int], bytes]) -> Iterator[Part]:
        """Yield a text without special tokens: one short part, or the blocks of a long text."""
        begin = read(BLOCK_BYTES)
        more = read(BLOCK_BYTES) if len(begin) <= SHORT_TEXT_THRESHOLD else None
        if more == b"":
            if begin:
                yield begin
            return
        ahead = [raw for raw in (more, begin) if raw]  # read already; the next one last
        yield from blocks(lambda size: ahead.pop() if ahead else read(size), self.pattern)

    def encode_parts(self, parts: Iterable[Part]) -> Iterator[np.ndarray]:
        """Yield the ids of the parts in order, in arrays int64[T] of any length."""
        for are_blocks, run in groupby(parts, key=lambda part: isinstance(part, tuple)):
            if are_blocks:
                ranks = self._batch.encode(part for part in run if isinstance(part, tuple))
                yield from ranks if self._id_of_rank is None else map(self._id_of_rank.take, ranks)
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

    def _encode_pretoken(self, pretoken: str) -> tuple[int, ...]:
        raw = to_bytes(pretoken)
        rank = self._whole_tokens.get(raw)
        if rank is not None:
            return (self.ids[rank],)
        return tuple(map(self.ids.__getitem__, self._merge(raw)))

    def _merge(self, raw: bytes) -> list[int]:
        """Return the ranks of one pre-token of any length."""
        ranks = raw.translate(self.byte_ranks)
        return merge_ids(ranks, self._rank_of_pair, self.merges, self.lengths)

    @cached_property
    def _batch(self) -> BatchEncoder:
        pairs = PairTable(self.merges, self.byte_ranks, self.lengths)
        merge_long = partial(merge_in_pieces, merge=self._merge, lengths=self.lengths)
        return BatchEncoder(pairs, self.tokens, merge_long)

    @cached_property
    def _whole_tokens(self) -> dict[bytes, int]:
        """Bytes -> rank, for the tokens whose bytes merge to that one token."""
        whole = self._batch.is_whole.nonzero()[0].tolist()
        return {self.tokens[rank]: rank for rank in whole}

    @cached_property
    def _id_of_rank(self) -> np.ndarray | None:
        """int64: rank -> id; None if every rank equals its id."""
        ids = np.array(self.ids, dtype=np.int64)
        return None if (ids == np.arange(len(ids))).all() else ids


class PretokenCache(dict[str, tuple[int, ...]]):
    """Pre-token -> ids, computed on first access. Cleared when it is full.

    >>> cache = PretokenCache(lambda pretoken: tuple(pretoken.encode()))
    >>> cache["ab"], len(cache)
    ((97, 98), 1)
    """

    def __init__(self, encode_pretoken: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._encode_pretoken = encode_pretoken

    def __missing__(self, pretoken: str) -> tuple[int, ...]:
        ids = self._encode_pretoken(pretoken)
        if len(pretoken) <= MAX_CACHED_CHARS:
            if len(self) >= MAX_CACHED_PRETOKENS:
                self.clear()
            self[pretoken] = ids
        return ids
