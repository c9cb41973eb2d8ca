"""Shared by the tests of the cached path: kinds of models, prompts, and the reference logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from model.gpt import TinyGPT
from model.sampling.decoder import Decoder, cache_size_for
from model.sampling.inference_weights import InferenceWeights
from model.sampling.naive import all_logits

KINDS = [
    {},
    {"bias": True, "tie_weights": True, "mlp": "gelu_tanh"},  # GPT-2
    {"norm": "rmsnorm", "qk_norm": True, "mlp": "relu2", "softcap": 5.0},  # nanochat
    {"norm": "rmsnorm", "norm_gain": False, "qk_norm": True, "embedding_norm": True},
    {"mlp": "swiglu", "bias": True, "norm": "rmsnorm", "embedding_norm": True},
    {"attention": "manual", "n_head": 1, "bigram_rows": 64, "tie_weights": True},
    {"n_head": 4, "n_kv_head": 2, "head_size": 6, "qk_norm": True},
    {"n_head": 4, "n_kv_head": 1, "bias": True},
    {"pointer": True},
    {"pointer": True, "bigram_rows": 64, "qk_norm": True, "mlp": "relu2", "softcap": 5.0},
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "plain")
positions = pytest.mark.parametrize("position", ["rope", "learned"])
ONE = [[5]]
EIGHT = [[1], [1, 2], [7, 3, 9], [1, 2, 3, 4], [1] * 5, [6, 2, 8, 3, 1, 8], [4] * 7, [*range(8)]]
prompts = pytest.mark.parametrize("prompts", [ONE, EIGHT], ids=["one", "eight"])


def decoder_of(
    model: TinyGPT, prompts: Sequence[Sequence[int]], max_new_tokens: int, **settings: Any
) -> Decoder:
    return Decoder(
        InferenceWeights(model),
        prompts,
        cache_size_for(model.config, prompts, max_new_tokens),
        **settings,
    )


def continued_logits(model: TinyGPT, prompts: Sequence[Sequence[int]], new_TB: Tensor) -> Tensor:
    """Return logits (B, T + 1, V): of the next token after each prompt, then after each new id."""
    rows = [[*prompt, *new] for prompt, new in zip(prompts, new_TB.T.tolist(), strict=True)]
    parts = [all_logits(model, row)[len(p) - 1 :] for p, row in zip(prompts, rows, strict=True)]
    return torch.stack(parts)
