"""Text to ids: a prompt pre-token by pre-token, a large text in arrays (tok.batch).

Both give the same ids. Arrays take a millisecond to get going, and then 30 MB in a second.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING

from tok.cache import PieceCache
from tok.errors import TokenizerError
from tok.merge import merge_ids
from tok.split import split, to_bytes, to_text
from tok.starts import blocks

if TYPE_CHECKING:
    import numpy as np

    from tok.batch import BatchEncoder

SHORT = 1 << 12  # characters or bytes; where both ways take about equally long


def is_long(text: object) -> bool:
    """Whether to encode `text` in arrays.

    >>> is_long("a prompt"), is_long(bytes(10_000))
    (False, True)
    """
    return isinstance(text, (str, bytes, bytearray, memoryview)) and len(text) > SHORT


class Encoder:
    """Encodes with one vocabulary; remembers the pre-tokens that it has seen."""

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        lengths: Sequence[int],
        byte_numbers: bytes,
        tokens: Sequence[bytes],
        ids: Sequence[int],
        special_ids: Mapping[str, int],
        pattern: str,
    ) -> None:
        """
        Args:
            merges: merges[i] makes number 256 + i (tok.vocabulary says what a number is).
            lengths: of each number in bytes.
            byte_numbers: byte_numbers[b] is the number of byte b.
            tokens: of each number its bytes.
            ids: of each number its id.
            special_ids: special token -> id.
            pattern: name of the split pattern.
        """
        self._merges = merges
        self._lengths = lengths
        self._byte_numbers = byte_numbers
        self._tokens = tokens
        self._ids = ids
        self._special_ids = special_ids
        self._pattern = pattern
        self._new = {pair: 256 + rank for rank, pair in enumerate(merges)}
        self._cache = PieceCache(self._encode_piece)

    def warm_up(self) -> None:
        """Makes the tables that large texts, and new words of short ones, are looked up in."""
        _ = self._whole

    def encode_short(self, text: str, allowed_special: bool | Collection[str]) -> list[int]:
        """The ids of a text as `tok.split.to_text` gives it."""
        special = self._special_pattern(allowed_special)
        if special is None:
            return list(self._encode_plain(text))
        ids: list[int] = []
        for i, part in enumerate(special.split(text)):
            # The pattern's one group: every second part is a special token.
            ids += [self._special_ids[part]] if i % 2 else self._encode_plain(part)
        return ids

    def encode_long(
        self, raw: bytes, allowed_special: bool | Collection[str]
    ) -> Iterator[np.ndarray]:
        """The ids of the bytes of a text, int64, block by block."""
        special = self._special_pattern(allowed_special)
        if special is None:
            yield from self._encode_blocks(blocks(BytesIO(raw).read, self._pattern))
            return
        for i, part in enumerate(bytes_pattern(special).split(raw)):
            if i % 2:
                yield self._array([self._special_ids[part.decode()]])
            elif len(part) <= SHORT:
                yield self._array(self._encode_plain(to_text(part)))
            else:
                yield from self._encode_blocks(blocks(BytesIO(part).read, self._pattern))

    def _array(self, ids: Iterable[int]) -> np.ndarray:
        import numpy as np

        return np.fromiter(ids, dtype=np.int64)

    def _encode_plain(self, text: str) -> Iterable[int]:
        return chain.from_iterable(map(self._cache.__getitem__, split(text, self._pattern)))

    def _encode_blocks(self, parts: Iterable[tuple[bytes, np.ndarray]]) -> Iterator[np.ndarray]:
        numbers = self._batch.encode(parts)
        return numbers if self._ids_of is None else map(self._ids_of.__getitem__, numbers)

    @cached_property
    def _batch(self) -> BatchEncoder:
        from tok.batch import BatchEncoder
        from tok.merge_many import PairTable

        pairs = PairTable(self._merges, self._byte_numbers, self._lengths)
        return BatchEncoder(pairs, self._tokens)

    @cached_property
    def _ids_of(self) -> np.ndarray | None:
        """int64: the id of each number; None if each number is its id."""
        import numpy as np

        ids = np.array(self._ids, dtype=np.int64)
        return None if (ids == np.arange(len(ids))).all() else ids

    @cached_property
    def _whole(self) -> dict[bytes, int]:
        """The tokens that the merges make of their own bytes, and their numbers."""
        whole = self._batch.is_whole.nonzero()[0].tolist()
        return {self._tokens[number]: number for number in whole}

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        raw = to_bytes(piece)
        number = self._whole.get(raw)
        if number is not None:
            return (self._ids[number],)
        numbers = merge_ids(
            raw.translate(self._byte_numbers), self._new, self._merges, self._lengths
        )
        return tuple(map(self._ids.__getitem__, numbers))

    def _special_pattern(self, allowed: bool | Collection[str]) -> re.Pattern[str] | None:
        if isinstance(allowed, str):
            raise TokenizerError(f"allowed_special must be True, False or a set, not {allowed!r}")
        tokens = tuple(self._special_ids) if allowed is True else tuple(allowed or ())
        for token in tokens:
            if token not in self._special_ids:
                raise TokenizerError(
                    f"allowed_special: {token!r} is no special token of this tokenizer"
                )
        if not tokens:
            return None
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def bytes_pattern(pattern: re.Pattern[str]) -> re.Pattern[bytes]:
    """The same pattern for text in UTF-8, whose characters never begin inside one another."""
    return re.compile(pattern.pattern.encode())
