"""Generation without a cache: read this first.

For every new token the whole sequence is computed again. This defines what the fast path must
return (`generate`, which uses a KV cache); the tests compare the two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.attention import causal_mask
from model.gpt import TinyGPT
from model.layers import rope_table
from model.sampling.sampler import SamplingParams, sample_next


@torch.no_grad()
def generate_naive(
    model: TinyGPT, prompt: Sequence[int], seed: int, max_new_tokens: int, params: SamplingParams
) -> list[int]:
    """Return the ids that continue a prompt of 1 to block_size ids. The model is in eval mode."""
    ids, generator = list(prompt), torch.Generator().manual_seed(seed)
    for _ in range(max_new_tokens):
        logits_1V = all_logits(model, ids)[-1:]
        seen_1V = torch.zeros_like(logits_1V, dtype=torch.bool)
        seen_1V[0, ids] = True
        uniform_1 = torch.rand(1, generator=generator, dtype=torch.float64)
        ids.append(int(sample_next(logits_1V, uniform_1, params, seen_1V)))
    return ids[len(prompt) :]


@torch.no_grad()
def all_logits(model: TinyGPT, ids: Sequence[int]) -> Tensor:
    """Return the logits (T, V) of the next token at each position of a sequence of any length.

    With RoPE, each token sees the last block_size tokens, at their absolute positions. With learned
    positions, a full context is computed again from the last half of its tokens.
    """
    config, ids_1T, T = model.config, torch.tensor([ids]), len(ids)
    if config.position == "rope":
        band_11TT = (causal_mask(T) & ~causal_mask(T).tril(-config.block_size))[None, None]
        dtype = model.token_embedding.weight.dtype
        cos_TK, sin_TK = rope_table(T, config.head_dim, config.rope_theta, dtype)
        x_1TD = model.embed(ids_1T)
        for block in model.blocks:
            x_1TD = block(x_1TD, (cos_TK[:, None], sin_TK[:, None]), band_11TT)
        return model.output(model.final_norm(x_1TD), ids_1T, band_11TT)[0]
    start, logits_T1V = 0, []
    for end in range(1, T + 1):
        if end - start > config.block_size:
            start = end - 1 - config.block_size // 2
        logits_T1V.append(model(ids_1T[:, start:end])[:, -1])
    return torch.cat(logits_T1V)
