"""Whether the bytes of a token, encoded by themselves, give that token: what ranks alone can hold.

Formats differ in what a vocabulary says. Ours and Hugging Face's list merges, pair by pair.
tiktoken's list only tokens by rank: any two neighbours that together spell a token merge, lowest
rank first, and a pre-token that is a token is taken whole. The three agree on every text if each
token is what its own bytes merge to. The reason: let two neighbours stand where, taken together,
they spell token t, when the merges below t are done. No merge crossed the two outer borders, so the
bytes between them went the way they go by themselves, and the two neighbours are the two that t was
made of. A trained vocabulary always has this property, by the same argument at the place where t
was learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from tok.encoding.merge import merge_ids
from tok.vocabulary import BYTE_ORDERS, Pair, token_bytes, token_lengths


class Merger:
    """Merges that grow one by one, and what they make of some bytes so far."""

    def __init__(self, merges: Sequence[Pair] = ()) -> None:
        self.merges: list[Pair] = list(merges)
        self._new: dict[Pair, int] = {pair: 256 + rank for rank, pair in enumerate(merges)}
        self._lengths = token_lengths(self.merges)

    def add(self, pair: Pair) -> None:
        """Makes `pair` the next merge."""
        self._new[pair] = 256 + len(self.merges)
        self.merges.append(pair)
        self._lengths.append(self._lengths[pair[0]] + self._lengths[pair[1]])

    def merge(self, numbers: Sequence[int]) -> list[int]:
        """The numbers that remain of single bytes, given by number.

        >>> Merger([(97, 98), (256, 256)]).merge(b"ababa")
        [257, 97]
        """
        if len(numbers) == 2:  # most tokens of a small vocabulary; the rest is slow to set up
            new = self._new.get((numbers[0], numbers[1]))
            return list(numbers) if new is None else [new]
        return merge_ids(numbers, self._new, self.merges, self._lengths)


def first_unreachable(merges: Sequence[Pair]) -> int | None:
    """The lowest number whose own bytes do not merge to it, or None if there is none.

    >>> first_unreachable([(97, 98), (98, 99), (97, 257)])  # ab comes first, so abc is ab c
    258
    >>> first_unreachable([(97, 98), (98, 99), (256, 99)])
    """
    merger = Merger(merges)
    for number, raw in enumerate(token_bytes(merges, BYTE_ORDERS["value"])):
        if merger.merge(raw) != [number]:
            return number
    return None
