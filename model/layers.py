"""Layers besides attention: MLP, norms and rotary positions; and the check of token ids."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.linear import Linear


def activate(kind: str, x: Tensor) -> Tensor:
    """Apply the activation of an MLP without a gate, elementwise.

    gelu: x * Phi(x) with the normal distribution Phi; gelu_tanh: its tanh approximation (Hendrycks
    and Gimpel 2016, arXiv 1606.08415); relu2: max(x, 0)^2 (So et al. 2021, arXiv 2109.08668).

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
        """Return the MLP's output, (B, T, D), for inputs (B, T, D)."""
        if self.kind == "swiglu":
            hidden = F.silu(self.gate(x_BTD)) * self.fc(x_BTD)
        else:
            hidden = activate(self.kind, self.fc(x_BTD))
        return self.dropout(self.proj(hidden))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich 2019, arXiv 1910.07467.

    Without gain there is no weight.
    """

    def __init__(self, size: int, eps: float, gain: bool = True) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(size)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """Return normed x, of any shape that ends in `size`. Shape and dtype stay the same."""
        # Under autocast x may be in half precision, and rms_norm requires one dtype.
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, (self.size,), weight, self.eps)


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the norm that `config.norm` names, for the residual stream (D)."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps, config.norm_gain)
    return nn.LayerNorm(
        config.n_embd, config.norm_eps, elementwise_affine=config.norm_gain, bias=config.bias
    )


def rope_table(
    block_size: int, head_size: int, theta: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the factors of `apply_rope` for positions 0 to block_size - 1: two tensors (T, K).

    Rotary position embedding, Su et al. 2021, arXiv 2104.09864. Dimensions k and k + K / 2 form a
    pair. Its angle at position t is t * theta ** (-2k / K). The first tensor holds the cosines, for
    both halves of the head. The second holds the sines, negative in the first half.

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
    """Rotate the pairs of dimensions in the last axis (K) of x.

    cos and sin come from `rope_table` and must broadcast to x.

    >>> cos_TK, sin_TK = rope_table(block_size=3, head_size=4, theta=10000.0)
    >>> rotated_TK = apply_rope(torch.ones(3, 4), cos_TK, sin_TK)
    >>> bool(torch.allclose(rotated_TK.norm(dim=-1), torch.tensor(2.0)))  # lengths are unchanged
    True
    """
    # roll swaps the halves; the minus sign of the rotation is in the table.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def check_ids(ids_BT: Tensor, vocab_size: int) -> Tensor:
    """Return token ids as int64: smaller types would overflow in the bigram hash.

    Raises:
        ValueError: not integers, not of shape (B, T), or an id is not in the vocabulary. The range
            is checked only in eager code on a CPU, in microseconds: on a GPU the host would wait.
    """
    if ids_BT.is_floating_point() or ids_BT.is_complex() or ids_BT.dtype == torch.bool:
        raise ValueError(f"token ids must be integers, not {ids_BT.dtype}")
    if ids_BT.ndim != 2 or not ids_BT.shape[1]:
        raise ValueError(f"token ids need the shape (B, T), T above 0, not {tuple(ids_BT.shape)}")
    ids_BT = ids_BT.long()
    if ids_BT.device.type == "cpu" and ids_BT.numel() and not torch.compiler.is_compiling():
        for extreme in map(int, ids_BT.aminmax()):
            if not 0 <= extreme < vocab_size:
                raise ValueError(
                    f"token id {extreme} is not in the vocabulary of ids 0 to {vocab_size - 1}"
                )
    return ids_BT
