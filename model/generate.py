"""Sampling: prompts -> new ids, a token of each sample at a time.

Each sample has its own generator and takes one number from it per token, so that sample i depends
on its seed alone, not on how many others are drawn beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, nn

from model.draw import Drawing, chosen_logprobs, sample_next
from model.gpt import TinyGPT
from model.mode import evaluating, raw_module


class Step(NamedTuple):
    """The new token of every sample; None for those that have ended."""

    ids: list[int | None]
    logprobs: list[float | None]
    """In nats, of the chosen id under the model's own distribution: no temperature, no filter."""


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    drawing: Drawing | None = None,
    stop_id: int | None = None,
) -> Iterator[Step]:
    """Draws a continuation of each prompt, side by side, and yields a token of each per step.

    A sample ends with `stop_id`, which is yielded, or after `max_new_tokens`; ended samples cost
    nothing more. Equal prompts are read once. When prompt and new tokens outgrow block_size, the
    model sees the last block_size of them. The global random state is neither read nor changed. The
    model (compiled or wrapped as it may be) is in eval mode while it computes, and in its own mode
    whenever the caller has the turn.

    Args:
        prompts: for several samples of one prompt `[ids] * n`.
        seeds: one per prompt; for several samples from one seed see `sample_seeds`.
        drawing: None draws from the model's own distribution.

    Raises:
        ValueError: a prompt is empty (start a document with its end-of-text token), there are not
            as many seeds as prompts, or the model's logits are not finite. All on the first step or
            later, as in every generator function.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
    if not all(prompts):
        raise ValueError("a prompt is empty; give at least one id, such as end-of-text")
    raw, drawing = raw_module(model), drawing or Drawing()
    assert isinstance(raw, TinyGPT)
    device = raw.token_embedding.weight.device
    size = raw.config.block_size
    contexts = [list(prompt)[-size:] for prompt in prompts]
    active = list(range(len(seeds)))  # samples that go on
    generators = [Generator().manual_seed(seed) for seed in seeds]
    for _ in range(max_new_tokens):
        if not active:
            return
        with torch.inference_mode(), evaluating(raw):  # left before each yield
            turn = [contexts[i] for i in active]
            alike = len({len(context) for context in turn}) == 1
            batches = [turn] if alike else [[context] for context in turn]
            rows = [raw.next_logits(torch.tensor(batch, device=device)) for batch in batches]
            logits_BV = torch.cat(rows)
            if device.type == "mps":  # has no float64
                logits_BV = logits_BV.cpu()
            draws = [torch.rand((), generator=generators[i], dtype=torch.float64) for i in active]
            seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
            for row, i in enumerate(active):
                seen_BV[row, contexts[i]] = True
            uniform_B = torch.stack(draws).to(logits_BV.device)
            ids_B = sample_next(logits_BV, uniform_B, drawing, seen_BV)
            logprobs_B = chosen_logprobs(logits_BV, ids_B)
        step = Step([None] * len(seeds), [None] * len(seeds))
        for i, token, logprob in zip(active, ids_B.tolist(), logprobs_B.tolist(), strict=True):
            if math.isnan(logprob):
                raise ValueError("the model's logits are not finite; its weights are damaged")
            step.ids[i], step.logprobs[i] = token, logprob
            contexts[i] = [*contexts[i], token][-size:]
        active = [i for i in active if stop_id is None or step.ids[i] != stop_id]
        yield step


def generate_ids(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    drawing: Drawing | None = None,
    stop_id: int | None = None,
) -> list[list[int]]:
    """All new ids of each sample, the stop id included where one came; see `generate`."""
    samples: list[list[int]] = [[] for _ in seeds]
    for step in generate(
        model,
        prompts,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        drawing=drawing,
        stop_id=stop_id,
    ):
        for sample, token in zip(samples, step.ids, strict=True):
            if token is not None:
                sample.append(token)
    return samples
