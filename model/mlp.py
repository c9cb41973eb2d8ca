"""The position-wise network of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from utils.linear import Linear

if TYPE_CHECKING:
    from model.gpt import ModelConfig


def activate(kind: str, x: Tensor) -> Tensor:
    """The activation of an MLP without a gate, element by element.

    gelu: x * Phi(x) with the normal distribution Phi; gelu_tanh: its tanh approximation (Hendrycks
    and Gimpel 2016, arXiv 1606.08415); relu2: max(x, 0)^2 (So et al. 2021, arXiv 2109.08668).

    >>> import torch
    >>> activate("relu2", torch.tensor([0.5, 3.0])).tolist()
    [0.25, 9.0]
    """
    if kind == "gelu":
        return F.gelu(x)
    if kind == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    assert kind == "relu2", kind
    return F.relu(x).square()


class MLP(nn.Module):
    """Two matrices around an activation, or with "swiglu" three: proj(silu(gate(x)) * fc(x)).

    SwiGLU: Shazeer 2020, arXiv 2002.05202. Widths: see `ModelConfig.mlp_width`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.mlp
        if self.kind == "swiglu":
            self.gate = Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.fc = Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.proj = Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        if self.kind == "swiglu":
            hidden = F.silu(self.gate(x_BTD)) * self.fc(x_BTD)
        else:
            hidden = activate(self.kind, self.fc(x_BTD))
        return self.dropout(self.proj(hidden))
