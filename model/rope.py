"""Rotary position embedding: turns each query and key by an angle that grows with its position.

Su et al. 2021, "RoFormer" (arXiv 2104.09864), in the layout of GPT-NeoX and Llama: dimension k of a
head is paired with k + K/2 ("rotate half"), and the whole head is turned.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(
    block_size: int, head_size: int, theta: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Factors of `apply_rope` for positions 0 to block_size - 1: two tensors (T, K).

    The angle of pair k at position t is t * theta ** (-2k / K). The first tensor is its cosine for
    both halves of the head, the second its sine, negative in the first half.

    >>> cos_TK, sin_TK = rope_table(block_size=2, head_size=2, theta=10000.0)
    >>> sin_TK[1].tolist()[1] == torch.sin(torch.tensor(1.0)).item()
    True
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).to(dtype) / head_size
    frequencies = 1.0 / theta**exponents
    angles_TK = torch.outer(torch.arange(block_size, dtype=torch.int64).to(dtype), frequencies)
    cos_TK, sin_TK = angles_TK.cos(), angles_TK.sin()
    return torch.cat((cos_TK, cos_TK), dim=-1), torch.cat((-sin_TK, sin_TK), dim=-1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the last axis (size K) of x.

    cos and sin come from `rope_table` and must broadcast against x.

    >>> cos_TK, sin_TK = rope_table(block_size=3, head_size=4, theta=10000.0)
    >>> turned_TK = apply_rope(torch.ones(3, 4), cos_TK, sin_TK)
    >>> bool(torch.allclose(turned_TK.norm(dim=-1), torch.tensor(2.0)))  # lengths stay
    True
    """
    # The halves change places; the minus of the rotation stands in the table.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
