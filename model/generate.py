"""Sampling: logits -> the next id, and again.

Each sample has its own generator and takes one number from it per token, so that sample i depends
on its seed alone, not on how many others are drawn beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor, nn

from model.gpt import TinyGPT
from model.mode import evaluating, raw_module

ROUNDING = 1e-9  # a sum of probabilities this close below top_p has reached it


def keep_top_k(logits_BV: Tensor, k: int | None) -> Tensor:
    """Leaves the k largest logits of each row and sets the others to -inf.

    0, None and k >= V leave all. Of equal logits the smaller id stays.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2).tolist()
    [[-inf, 3.0, 2.0, -inf]]

    Raises:
        ValueError: k is negative.
    """
    if k is not None and k < 0:
        raise ValueError(f"top_k must be 0 or more, got {k}")
    if not k or k >= logits_BV.shape[-1]:
        return logits_BV
    smallest_B1 = logits_BV.topk(k, dim=-1).values[:, -1:]
    above_BV, ties_BV = logits_BV > smallest_B1, logits_BV == smallest_B1
    room_B1 = k - above_BV.sum(dim=-1, keepdim=True)
    keep_BV = above_BV | (ties_BV & (ties_BV.cumsum(dim=-1) <= room_B1))
    return logits_BV.masked_fill(~keep_BV, float("-inf"))


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Leaves the smallest set of likeliest ids whose probabilities reach p, the others become -inf.

    Nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751. At least one id stays; p = 1 leaves
    all. Of equal probabilities the smaller id comes first.

    >>> logits_BV = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    >>> keep_top_p(logits_BV, 0.8).exp().round(decimals=3).tolist()
    [[0.0, 0.5, 0.3]]

    Raises:
        ValueError: p is not above 0 and at most 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {p}")
    if p == 1:
        return logits_BV
    probs_BV, order_BV = logits_BV.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    keep_sorted_BV = before_BV < p - ROUNDING
    keep_sorted_BV[:, 0] = True
    keep_BV = torch.zeros_like(keep_sorted_BV).scatter(-1, order_BV, keep_sorted_BV)
    return logits_BV.masked_fill(~keep_BV, float("-inf"))


def next_probs(
    logits_BV: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """The distribution that is drawn from: temperature, then top_k, then top_p; (B, V) in float64.

    Temperature 0 puts everything on the largest logit (the smallest id among equals).

    >>> next_probs(torch.tensor([[1.0, 2.0, 2.0]]), temperature=0).tolist()
    [[0.0, 1.0, 0.0]]

    Raises:
        ValueError: temperature is negative or not finite, or top_k or top_p is out of range.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    logits_BV = logits_BV.double()
    if temperature == 0:
        return nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).double()
    # Largest first to 0: then no temperature, however small, makes an infinity.
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature
    return keep_top_p(keep_top_k(logits_BV, top_k), top_p).softmax(dim=-1)


def inverse_cdf(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The id of each row at which the running sum of probabilities passes its number in [0, 1).

    Never an id of probability 0. The rows need not sum to 1.

    >>> probs_BV = torch.tensor([[0.5, 0.0, 0.5]] * 3, dtype=torch.float64)
    >>> inverse_cdf(probs_BV, torch.tensor([0.49, 0.5, 0.999], dtype=torch.float64)).tolist()
    [0, 2, 2]
    """
    cdf_BV = probs_BV.cumsum(dim=-1)
    # A float64 below 1 is at most 1 - 2**-53, so the product never rounds up to the whole sum.
    return torch.searchsorted(cdf_BV, uniform_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0]


def sample_next(
    logits_BV: Tensor,
    generators: Sequence[Generator],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Tensor:
    """Draws one id per row, (B,) on the logits' device.

    Row i takes one number from generators[i], a generator on the CPU.

    Raises:
        ValueError: a setting is out of range (see `next_probs`), or a logit is NaN or all are -inf.
    """
    probs_BV = next_probs(logits_BV, temperature, top_k, top_p)
    if not torch.isfinite(logits_BV.amax(dim=-1)).all():  # the largest is NaN when any is
        raise ValueError("the model's logits are not finite; its weights are damaged")
    draws = [torch.rand((), generator=one, dtype=torch.float64) for one in generators]
    return inverse_cdf(probs_BV, torch.stack(draws).to(logits_BV.device))


def sample_seeds(seed: int, n_samples: int) -> list[int]:
    """A seed for each of several samples: the same first ones, however many are asked for.

    >>> sample_seeds(1, 3)[:2] == sample_seeds(1, 2)
    True
    """
    # A hash, as seed + i would make sample 1 of seed 0 the same as sample 0 of seed 1.
    names = [f"{seed} {i}".encode("ascii") for i in range(n_samples)]
    return [int.from_bytes(hashlib.sha256(name).digest()[:7], "big") for name in names]


def generate(
    model: nn.Module,
    prompt_ids: Sequence[int],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    stop_id: int | None = None,
) -> Iterator[list[int | None]]:
    """Draws len(seeds) continuations of one prompt side by side, a token of each per step.

    For each step yields a list with the new id of every sample, None for those that have ended. A
    sample ends with `stop_id`, which is yielded, or after `max_new_tokens`; ended samples cost
    nothing more. When prompt and new tokens outgrow block_size, the model sees the last block_size
    of them. The global random state is neither read nor changed. The model (compiled or wrapped as
    it may be) is in eval mode while it computes, and in its own mode whenever the caller has the
    turn.

    Args:
        seeds: one per sample; for several samples from one seed see `sample_seeds`.
        temperature, top_k, top_p: see `next_probs`.

    Raises:
        ValueError: the prompt is empty (start a document with its end-of-text token), or a setting
            is out of range. Both on the first step, as in every generator function.
    """
    if not prompt_ids:
        raise ValueError("the prompt is empty; give at least one id, such as end-of-text")
    raw = raw_module(model)
    assert isinstance(raw, TinyGPT)
    device = raw.token_embedding.weight.device
    active = list(range(len(seeds)))  # samples that go on
    generators = [Generator().manual_seed(seed) for seed in seeds]
    context_BT = torch.tensor([list(prompt_ids)[-raw.config.block_size :]] * len(seeds))
    context_BT = context_BT.to(device)
    for _ in range(max_new_tokens):
        if not active:
            return
        with torch.inference_mode(), evaluating(raw):  # left before each yield
            logits_BV = raw.next_logits(context_BT)
            if device.type == "mps":  # has no float64
                logits_BV = logits_BV.cpu()
            turn = [generators[i] for i in active]
            ids_B = sample_next(logits_BV, turn, temperature, top_k, top_p).to(device)
            context_BT = torch.cat((context_BT, ids_B[:, None]), dim=1)
            context_BT = context_BT[:, -raw.config.block_size :]
        step: list[int | None] = [None] * len(seeds)
        for i, token in zip(active, ids_B.tolist(), strict=True):
            step[i] = token
        if stop_id is not None and stop_id in step:
            context_BT = context_BT[ids_B != stop_id]
            active = [i for i in active if step[i] != stop_id]
        yield step


def generate_ids(
    model: nn.Module,
    prompt_ids: Sequence[int],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    stop_id: int | None = None,
) -> list[list[int]]:
    """All new ids of each sample, the stop id included where one came; see `generate`."""
    steps = generate(
        model,
        prompt_ids,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_id=stop_id,
    )
    samples: list[list[int]] = [[] for _ in seeds]
    for step in steps:
        for sample, token in zip(samples, step, strict=True):
            if token is not None:
                sample.append(token)
    return samples
