"""Bigrams: which row of a table stands for a token together with the one before it."""

from __future__ import annotations

import torch
from torch import Tensor

# Fibonacci hashing: the odd number next to 2^32 / golden ratio spreads neighbouring pairs far apart
# (Knuth, The Art of Computer Programming, volume 3, section 6.4).
SPREAD = 2654435769


def hash_bigrams(ids_BT: Tensor, vocab_size: int, n_rows: int, doc_BT: Tensor | None) -> Tensor:
    """The row of each pair (token before, token), int64 (B, T), from 0 to n_rows - 1.

    Pairs share rows by chance when there are more of them than rows. Where no token stands before,
    at the start of a row or of a document, the pair is one of its own.

    >>> ids_BT = torch.tensor([[5, 7, 5, 7]])
    >>> row = hash_bigrams(ids_BT, vocab_size=10, n_rows=1000, doc_BT=None)[0]
    >>> bool(row[1] == row[3]), bool(row[0] == row[2])
    (True, False)

    Args:
        doc_BT: number of the document of each token; None where attention crosses documents.
    """
    before_BT = ids_BT.roll(1, dims=1)
    first_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    if doc_BT is not None:
        first_BT |= doc_BT != doc_BT.roll(1, dims=1)
    first_BT[:, 0] = True
    return hash_pairs(before_BT.masked_fill(first_BT, vocab_size), ids_BT, vocab_size, n_rows)


def hash_pairs(before: Tensor, ids: Tensor, vocab_size: int, n_rows: int) -> Tensor:
    """The row of each pair, int64 in the shape of both; vocab_size stands for no token before.

    >>> hash_pairs(torch.tensor([5]), torch.tensor([7]), vocab_size=10, n_rows=1000).tolist()
    [227]
    """
    return ((before * vocab_size + ids) * SPREAD & 0xFFFFFFFF) * n_rows >> 32
