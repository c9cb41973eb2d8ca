"""Generation without a cache: all of a row is computed again for every token. The oracle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.attention import causal_mask
from model.bigram import bigram_rows
from model.gpt import TinyGPT
from model.layers import rope_table


def all_logits(model: TinyGPT, ids: list[int]) -> Tensor:
    """Logits (T, V) of what may follow each place of a row of any length, by the rules of
    docs/theory.md; the row begins with a prompt of at most block_size ids."""
    with torch.no_grad():
        return (learned if model.config.position == "learned" else banded)(model, ids)


def continued_logits(model: TinyGPT, prompts: Sequence[Sequence[int]], more_NB: Tensor) -> Tensor:
    """Logits (B, N + 1, V): what may follow each prompt, and then each of the ids that came."""
    rows = [[*prompt, *more] for prompt, more in zip(prompts, more_NB.T.tolist(), strict=True)]
    parts = [all_logits(model, row)[len(p) - 1 :] for p, row in zip(prompts, rows, strict=True)]
    return torch.stack(parts)


def banded(model: TinyGPT, ids: list[int]) -> Tensor:
    """RoPE: every place sees the last block_size, at their absolute places."""
    config, ids_1T = model.config, torch.tensor([ids])
    T, dtype = len(ids), model.token_embedding.weight.dtype
    band_11TT = (causal_mask(T) & ~causal_mask(T).tril(-config.block_size))[None, None]
    table = rope_table(T, config.head_size, config.rope_theta, dtype)
    rope = tuple(part[:, None] for part in table)
    embedded_1TD = model.token_embedding(ids_1T)
    x_1TD = embedded_1TD
    if n_rows := config.bigram_rows:
        rows_1T = bigram_rows(ids_1T, config.vocab_size, n_rows, None)
        x_1TD = x_1TD + model.bigram_embedding(rows_1T)
    if config.embedding_norm:
        x_1TD = model.embedding_norm(x_1TD)
    for block in model.blocks:
        x_1TD = block(x_1TD, rope, band_11TT)
    x_1TD = model.final_norm(x_1TD)
    if not config.pointer:
        return model.logits(x_1TD)[0]
    read_1TD, gains_1TT = model.pointer(x_1TD, embedded_1TD, band_11TT)
    logits_1TV = model.logits(x_1TD + read_1TD)
    return logits_1TV.scatter_add(2, ids_1T[:, None].expand_as(gains_1TT), gains_1TT)[0]


def learned(model: TinyGPT, ids: list[int]) -> Tensor:
    """Learned positions: a full row goes on with the last half of its tokens."""
    size, start, rows = model.config.block_size, 0, []
    for place in range(len(ids)):
        if place - start == size:
            start = place - size // 2
        rows.append(model(torch.tensor([ids[start : place + 1]]))[0, -1])
    return torch.stack(rows)
