"""Learning merges from counted pre-tokens, with pair counts that are kept up to date.

Sennrich et al. 2016 (BPE for words), on bytes: the most frequent pair of neighbours becomes a new
id, again and again. Nothing is counted twice: a merge visits only the places where its pair stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tok.merge import EDGE, join

Pair = tuple[int, int]


class Corpus:
    """All distinct pre-tokens in one row (see tok.merge), with each pair's count and places."""

    def __init__(self, pieces: Mapping[bytes, int]) -> None:
        """`pieces`: pre-token as ids of single bytes -> how often it occurs."""
        self.row: list[int] = [EDGE]
        self.weights: list[int] = [0]  # cell -> how often its pre-token occurs
        for piece, count in pieces.items():
            self.row += piece
            self.row.append(EDGE)
            self.weights += [count] * (len(piece) + 1)
        self.lengths = [1] * 256  # id -> bytes
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, list[int]] = {}  # starts, ascending; some are out of date
        for start, pair in enumerate(pairwise(self.row)):
            if EDGE not in pair:
                self._add(pair, start)

    def merge(self, pair: Pair, new: int) -> set[Pair]:
        """Makes every `pair` one token `new`; returns the pairs that came into being."""
        row, lengths, weights, counts = self.row, self.lengths, self.weights, self.counts
        first, second = pair
        lengths.append(lengths[first] + lengths[second])
        born: set[Pair] = set()
        for start in join(row, self.places.pop(pair), pair, new, lengths):
            weight = weights[start]
            before, after = row[start - 1], row[start + lengths[new]]
            if before != EDGE:
                # A new token on the left was `pair` a moment ago, so it ended in `second`.
                counts[(second if before == new else before, first)] -= weight
                self._add((before, new), start - lengths[before])
                born.add((before, new))
            if after != EDGE and after != new:  # a new token on the right does it from its side
                counts[(second, after)] -= weight
                self._add((new, after), start)
                born.add((new, after))
        del counts[pair]
        return born

    def _add(self, pair: Pair, start: int) -> None:
        weight = self.weights[start]
        if pair in self.counts:
            self.counts[pair] += weight
            self.places[pair].append(start)
        else:
            self.counts[pair] = weight
            self.places[pair] = [start]


def learn_merges(
    pieces: Mapping[bytes, int], n_merges: int, on_merge: Callable[[int], None] | None = None
) -> list[Pair]:
    """The first `n_merges` merges: highest count first, ties to the smallest pair of ids.

    Counts are Python ints: no corpus is large enough to overflow them.

    >>> learn_merges({b"aaabdaaabac": 1}, 3)
    [(97, 97), (97, 98), (256, 257)]

    Args:
        pieces: pre-token as ids of single bytes -> how often it occurs.
        on_merge: called with the number of merges made so far.

    Returns:
        The merges; fewer than asked for when no pair is left.
    """
    corpus = Corpus(pieces)
    counts = corpus.counts
    # Counts in the heap may be out of date, but only too high: new places of a pair always come
    # with a new id, that is, with a new pair. So the top is right as soon as its count is.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        negative_count, pair = heappop(heap)
        count = counts.get(pair, 0)
        if count != -negative_count:
            if count > 0:
                heappush(heap, (-count, pair))
            continue
        for other in corpus.merge(pair, 256 + len(merges)):
            if counts.get(other, 0) > 0:
                heappush(heap, (-counts[other], other))
        merges.append(pair)
        if on_merge:
            on_merge(len(merges))
    return merges
