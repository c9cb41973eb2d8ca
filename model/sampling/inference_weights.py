"""The weights of a model as the step of `model.sampling.decoder.Decoder` takes them, gathered once.

Attributes of modules are slow to look up, and some products want a copy of the weights in another
order; so whoever draws often from one model gathers its weights once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.eval_mode import unwrap
from model.gpt import Block, TinyGPT
from model.layers import RMSNorm, activate
from model.sampling.matmul import (
    Matrix,
    Product,
    batch_invariant_attention,
    batch_invariant_elementwise,
    batch_invariant_matmul,
    can_pack,
    default_attention,
    default_matmul,
    gelu,
    packed_matmul,
)

PACKING_THRESHOLD = 1 << 22  # of a model: to start oneDNN costs more than it saves, for one row

Elementwise = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """What a block computes with."""

    attn_norm: Elementwise
    qkv: Product
    qk_gain: Tensor | None  # of the norms of queries and keys, (2, 1, 1, K)
    attn_proj: Product
    mlp_norm: Elementwise
    gate: Product | None
    fc: Product
    mlp_proj: Product


class InferenceWeights:
    """Everything that a step computes with. A copy in part: training goes on without it."""

    @torch.no_grad()
    def __init__(self, model: nn.Module) -> None:
        """Of a TinyGPT, compiled or wrapped as it may be. Takes as long as to copy it, if large."""
        raw = unwrap(model)
        assert isinstance(raw, TinyGPT)
        self.model, config = raw, raw.config
        self.embedding = raw.token_embedding.weight
        on_cpu = self.embedding.device.type == "cpu"
        self._product = default_matmul
        if on_cpu and count_weights_read(raw) <= PACKING_THRESHOLD:
            self._product = batch_invariant_matmul
        elif can_pack(self.embedding):
            self._product = packed_matmul
        elementwise = batch_invariant_elementwise if on_cpu else lambda function: function
        self.activate = elementwise(activation_of(config.mlp, on_cpu))
        self.batch_invariant_attention = (
            default_attention if self.embedding.is_cuda else batch_invariant_attention
        )
        self.softplus, self.tanh = elementwise(F.softplus), elementwise(torch.tanh)
        self.layers = [self._layer(block) for block in raw.blocks]
        self.final_norm = norm_of(raw.final_norm)
        self.embedding_norm = norm_of(raw.embedding_norm) if config.embedding_norm else None
        self.head = self._product((raw.head_weight, None))
        if config.pointer:
            pointer, scale = raw.pointer, config.n_embd**-0.5
            parts = (pointer.query.weight * scale, pointer.key.weight, pointer.gate.weight)
            self.ask = self._product((torch.cat(parts), None))
            self.out = self._product(matrix_of(pointer.out))

    def _layer(self, block: nn.Module) -> Layer:
        assert isinstance(block, Block)
        attn, mlp = block.attn, block.mlp
        gain = None
        if attn.q_norm is not None and attn.k_norm is not None:
            q_gain, k_gain = attn.q_norm.weight, attn.k_norm.weight
            if q_gain is not None and k_gain is not None:
                gain = torch.stack((q_gain, k_gain))[:, None, None]
        return Layer(
            attn_norm=norm_of(block.attn_norm),
            qkv=self._product(matrix_of(attn.qkv)),
            qk_gain=gain,
            attn_proj=self._product(matrix_of(attn.proj)),
            mlp_norm=norm_of(block.mlp_norm),
            gate=self._product(matrix_of(mlp.gate)) if mlp.kind == "swiglu" else None,
            fc=self._product(matrix_of(mlp.fc)),
            mlp_proj=self._product(matrix_of(mlp.proj)),
        )


def count_weights_read(model: TinyGPT) -> int:
    """Weights that a step reads: all but tables of which it looks up single rows."""
    tables = ("token_embedding.", "position_embedding.", "bigram_embedding.")
    named = model.named_parameters()
    n = sum(weight.numel() for name, weight in named if not name.startswith(tables))
    return n + (model.token_embedding.weight.numel() if model.config.tie_weights else 0)


def activation_of(kind: str, on_cpu: bool) -> Elementwise:
    """The activation of an MLP; for swiglu that of its gate."""
    if kind == "swiglu":
        return F.silu
    return gelu if kind == "gelu" and on_cpu else partial(activate, kind)


def matrix_of(linear: nn.Linear) -> Matrix:
    """Weights and bias of a linear layer."""
    return linear.weight, linear.bias


def norm_of(module: nn.Module) -> Elementwise:
    """What a norm computes, without the module around it."""
    if isinstance(module, RMSNorm):
        size, weight, eps = (module.size,), module.weight, module.eps
        return lambda x: torch.rms_norm(x, size, weight, eps)
    assert isinstance(module, nn.LayerNorm)
    shape, gain, shift = module.normalized_shape, module.weight, module.bias
    return lambda x: torch.layer_norm(x, shape, gain, shift, module.eps)
