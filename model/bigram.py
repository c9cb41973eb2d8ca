"""Hashed bigram embedding: each pair (previous token, token) has a row in an embedding table."""

import torch
from torch import Tensor

# Fibonacci hashing: a product with the odd number next to 2^32 / golden ratio, modulo 2^32, spreads
# neighbouring integers far apart (Knuth, The Art of Computer Programming, volume 3, section 6.4).
FIBONACCI_MULTIPLIER = 2654435769


def hash_bigrams(ids_BT: Tensor, vocab_size: int, n_rows: int, doc_BT: Tensor | None) -> Tensor:
    """Return the table row of each pair (previous token, token), int64 (B, T), below n_rows.

    With more pairs than table rows, several pairs share one. The first token of a sequence or
    document has no previous token: it forms a pair with an extra id, vocab_size.

    >>> ids_BT = torch.tensor([[5, 7, 5, 7]])
    >>> rows_T = hash_bigrams(ids_BT, vocab_size=10, n_rows=1000, doc_BT=None)[0]
    >>> bool(rows_T[1] == rows_T[3]), bool(rows_T[0] == rows_T[2])
    (True, False)

    Args:
        doc_BT: document number of each token; None if attention crosses documents.
    """
    previous_BT = ids_BT.roll(1, dims=1)
    is_first_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    if doc_BT is not None:
        is_first_BT |= doc_BT != doc_BT.roll(1, dims=1)
    is_first_BT[:, 0] = True
    return hash_pairs(previous_BT.masked_fill(is_first_BT, vocab_size), ids_BT, vocab_size, n_rows)


def hash_pairs(previous: Tensor, ids: Tensor, vocab_size: int, n_rows: int) -> Tensor:
    """Return the table row of each pair (previous, id), int64 in the shape of both arguments.

    A `previous` of vocab_size means that there is no previous token.

    >>> hash_pairs(torch.tensor([5]), torch.tensor([7]), vocab_size=10, n_rows=1000).tolist()
    [227]
    """
    pairs = previous.long() * vocab_size + ids  # one number per pair; overflows in int32
    # The low 32 bits, as a fraction of 2^32, choose the row. An int64 overflow keeps them intact.
    return (pairs * FIBONACCI_MULTIPLIER & 0xFFFFFFFF) * n_rows >> 32
