"""The weights of a model, gathered once for the steps of `model.sampling.decoder.Decoder`.

Looking up attributes of modules is slow, and some matrix products need the weights in another
layout. Both costs are paid once per model instead of once per step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.eval_mode import unwrap
from model.gpt import Block, TinyGPT
from model.layers import RMSNorm, activate
from model.sampling import matmul
from model.sampling.matmul import Affine, Matmul

# A row is one sample of the batch. Models that read at most this many weights per step multiply
# each row separately: with so few weights, starting oneDNN takes longer than oneDNN saves.
PACKING_THRESHOLD = 1 << 22

TensorFunction = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """The operations of one block, with their weights."""

    attn_norm: TensorFunction
    qkv: Matmul
    qk_gain: Tensor | None  # gains of the norms of queries and keys, (H + G, K)
    attn_proj: Matmul
    mlp_norm: TensorFunction
    gate: Matmul | None  # only with swiglu
    fc: Matmul
    mlp_proj: Matmul


class InferenceWeights:
    """All weights and operations of a decoding step.

    Some weights are copies and some alias the model's parameters, so build a new one after any
    weight update.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module) -> None:
        """Gather the weights of a TinyGPT, which may be compiled or wrapped.

        For a large model this, or its first step, takes as long as copying it.
        """
        raw = unwrap(model)
        assert isinstance(raw, TinyGPT)
        self.model, self.config = raw, raw.config
        config = raw.config
        self.embedding = raw.token_embedding.weight
        on_cpu = self.embedding.device.type == "cpu"
        self._make_linear = matmul.default_matmul
        if on_cpu and count_weights_read(raw) <= PACKING_THRESHOLD:
            self._make_linear = matmul.batch_invariant_matmul
        elif matmul.can_pack(self.embedding):
            self._make_linear = matmul.packed_matmul
        elementwise = matmul.batch_invariant_elementwise if on_cpu else lambda function: function
        self.activate = elementwise(activation_function(config.mlp, on_cpu))
        self.attention = matmul.batch_invariant_attention
        if self.embedding.is_cuda:
            self.attention = matmul.default_attention
        self.softplus, self.tanh = elementwise(F.softplus), elementwise(torch.tanh)
        self.layers = [self._layer(block) for block in raw.blocks]
        self.final_norm = norm_function(raw.final_norm)
        self.embedding_norm = norm_function(raw.embedding_norm) if config.embedding_norm else None
        self.head = self._make_linear((raw.head_weight, None))
        if config.pointer:
            pointer, scale = raw.pointer, config.n_embd**-0.5
            # One product for queries, keys and gate; the decoder adds the gate's bias.
            parts = (pointer.query.weight * scale, pointer.key.weight, pointer.gate.weight)
            self.pointer_inputs = self._make_linear((torch.cat(parts), None))
            self.pointer_out = self._make_linear(weight_and_bias(pointer.out))

    def _layer(self, block: nn.Module) -> Layer:
        assert isinstance(block, Block)
        attn, mlp = block.attn, block.mlp
        gain = None
        if attn.q_norm is not None and attn.k_norm is not None:
            q_gain, k_gain = attn.q_norm.weight, attn.k_norm.weight
            if q_gain is not None and k_gain is not None:
                H, G, _ = self.config.qkv_heads
                gain = torch.cat((q_gain.expand(H, -1), k_gain.expand(G, -1)))
        return Layer(
            attn_norm=norm_function(block.attn_norm),
            qkv=self._make_linear(weight_and_bias(attn.qkv)),
            qk_gain=gain,
            attn_proj=self._make_linear(weight_and_bias(attn.proj)),
            mlp_norm=norm_function(block.mlp_norm),
            gate=self._make_linear(weight_and_bias(mlp.gate)) if mlp.kind == "swiglu" else None,
            fc=self._make_linear(weight_and_bias(mlp.fc)),
            mlp_proj=self._make_linear(weight_and_bias(mlp.proj)),
        )


def count_weights_read(model: TinyGPT) -> int:
    """Return the number of weights a step reads: all but embedding tables, which are looked up."""
    tables = ("token_embedding.", "position_embedding.", "bigram_embedding.")
    named = model.named_parameters()
    n = sum(weight.numel() for name, weight in named if not name.startswith(tables))
    return n + (model.token_embedding.weight.numel() if model.config.tie_weights else 0)


def activation_function(kind: str, on_cpu: bool) -> TensorFunction:
    """Return the activation function of an MLP; for swiglu, that of its gate."""
    if kind == "swiglu":
        return F.silu
    return matmul.gelu if kind == "gelu" and on_cpu else partial(activate, kind)


def weight_and_bias(linear: nn.Linear) -> Affine:
    """Return the weight and the bias of a linear layer."""
    return linear.weight, linear.bias


def norm_function(module: nn.Module) -> TensorFunction:
    """Return the function that a norm module computes."""
    if isinstance(module, RMSNorm):
        size, weight, eps = (module.size,), module.weight, module.eps
        return lambda x: torch.rms_norm(x, size, weight, eps)
    assert isinstance(module, nn.LayerNorm)
    shape, gain, shift = module.normalized_shape, module.weight, module.bias
    return lambda x: torch.layer_norm(x, shape, gain, shift, module.eps)
