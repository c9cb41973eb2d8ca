"""Normalisation of the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from model.gpt import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich 2019, arXiv 1910.07467.

    Without gain the weight is left out.
    """

    def __init__(self, size: int, eps: float, gain: bool = True) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(size)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends in `size`, to the same shape and dtype."""
        # Under autocast x may be half as wide as the weight, and rms_norm wants one dtype.
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, (self.size,), weight, self.eps)


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm of the residual stream (D) that `config.norm` names."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps, config.norm_gain)
    return nn.LayerNorm(
        config.n_embd, config.norm_eps, elementwise_affine=config.norm_gain, bias=config.bias
    )
