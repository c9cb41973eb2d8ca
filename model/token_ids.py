"""Check token ids before a model reads them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_ids(ids_BT: Tensor, vocab_size: int) -> Tensor:
    """Return token ids as int64: smaller types would overflow in the bigram hash.

    Raises:
        ValueError: not integers, or an id is not in the vocabulary (on a CPU, not compiled: the
            check takes microseconds there, and would make the host wait for a GPU).
    """
    if ids_BT.is_floating_point() or ids_BT.is_complex() or ids_BT.dtype == torch.bool:
        raise ValueError(f"token ids must be integers, not {ids_BT.dtype}")
    ids_BT = ids_BT.long()
    if ids_BT.device.type == "cpu" and ids_BT.numel() and not torch.compiler.is_compiling():
        for extreme in map(int, ids_BT.aminmax()):
            if not 0 <= extreme < vocab_size:
                raise ValueError(
                    f"token id {extreme} is not in the vocabulary of ids 0 to {vocab_size - 1}"
                )
    return ids_BT
