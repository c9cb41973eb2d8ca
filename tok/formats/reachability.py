"""Check that the bytes of each token merge to that token, which files of ranks presuppose.

Formats differ in what they store. Ours and Hugging Face's list the merges. tiktoken's lists tokens
by rank: two adjacent tokens merge if their bytes together are a token, lowest rank first, and a
pre-token that is a token is taken whole. All three give the same ids for every text if the bytes of
each token merge to that token.

Proof: let merge i make the token t. After the merges before i, let two adjacent tokens together
have the bytes of t. No merge crossed their outer borders, so these bytes were merged as they are on
their own. Hence the two are the tokens that merge i joins. A trained vocabulary always has the
property, by the same argument for the occurrence from which t was learned.
"""

from collections.abc import Sequence

from tok.encoding.merge import merge_ids
from tok.vocabulary import BYTE_ORDERS, Pair, token_bytes, token_lengths


class Merger:
    """A list of merges that can be extended one by one and applied at any time."""

    def __init__(self, merges: Sequence[Pair] = ()) -> None:
        self.merges: list[Pair] = list(merges)
        self._rank_of_pair: dict[Pair, int] = {pair: 256 + i for i, pair in enumerate(merges)}
        self._lengths = token_lengths(self.merges)

    def add(self, pair: Pair) -> None:
        """Append `pair` to the merges."""
        self._rank_of_pair[pair] = 256 + len(self.merges)
        self.merges.append(pair)
        self._lengths.append(self._lengths[pair[0]] + self._lengths[pair[1]])

    def merge(self, ranks: Sequence[int]) -> list[int]:
        """Apply the merges to the ranks of single bytes; return the ranks of the tokens.

        >>> Merger([(97, 98), (256, 256)]).merge(b"ababa")
        [257, 97]
        """
        if len(ranks) == 2:  # fast path: most tokens of a small vocabulary have two bytes
            new = self._rank_of_pair.get((ranks[0], ranks[1]))
            return list(ranks) if new is None else [new]
        return merge_ids(ranks, self._rank_of_pair, self.merges, self._lengths)


def first_unreachable(merges: Sequence[Pair]) -> int | None:
    """Return the lowest rank whose bytes do not merge to it; None if there is none.

    >>> first_unreachable([(97, 98), (98, 99), (97, 257)])  # "ab" is merged first: "abc" = "ab" "c"
    258
    >>> first_unreachable([(97, 98), (98, 99), (256, 99)])
    """
    merger = Merger(merges)
    tokens = enumerate(token_bytes(merges, BYTE_ORDERS["value"]))
    return next((rank for rank, raw in tokens if merger.merge(raw) != [rank]), None)
