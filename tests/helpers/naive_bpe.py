"""Byte-pair encoding as the textbook has it: all pairs counted again for each merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tok.patterns import split, to_bytes, to_text

Pair = tuple[int, int]


def replace_pair(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def naive_merge(piece: Iterable[int], merges: Sequence[Pair]) -> list[int]:
    """The ids of one pre-token."""
    ids = list(piece)
    for rank, pair in enumerate(merges):
        ids = replace_pair(ids, pair, 256 + rank)
    return ids


def naive_encode(raw: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of a text."""
    return [i for piece in split(to_text(raw)) for i in naive_merge(to_bytes(piece), merges)]


def naive_train(raw: bytes, n_merges: int) -> list[Pair]:
    """The merges of a text: at most `n_merges`, fewer if no pair is left."""
    words = [list(to_bytes(piece)) for piece in split(to_text(raw))]
    merges: list[Pair] = []
    for new in range(256, 256 + n_merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [replace_pair(word, best, new) for word in words]
    return merges
