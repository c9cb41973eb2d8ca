"""The learning rate, a pure function of the step: warmup, then cosine, linear, wsd or constant."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "linear", "wsd", "constant")


def lr_at(
    step: int,
    *,
    peak_lr: float,
    min_lr: float,
    warmup_steps: int,
    max_steps: int,
    schedule: str = "cosine",
    decay_fraction: float = 0.2,
) -> float:
    """Learning rate of optimizer step `step`, counted from 0.

    Warmup is linear and ends at `peak_lr`; its first step is not at 0. The last step,
    `max_steps - 1`, is exactly at `min_lr`, for which a warmup as long as the run is cut by a step;
    the only step of a run of one is at the peak. In between: `cosine` (Loshchilov & Hutter 2016,
    arXiv 1608.03983, without restarts), `linear`, or `wsd` (warmup, stable, decay; Hu et al. 2024,
    arXiv 2404.06395), which holds the peak and falls linearly over the last `decay_fraction` of the
    steps, one at least. `constant` never falls.

    >>> [round(lr_at(s, peak_lr=1.0, min_lr=0.1, warmup_steps=2, max_steps=7), 3) for s in range(7)]
    [0.5, 1.0, 0.914, 0.689, 0.411, 0.186, 0.1]
    >>> wsd = dict(min_lr=0.0, warmup_steps=1, max_steps=6, schedule="wsd", decay_fraction=0.5)
    >>> [round(lr_at(s, peak_lr=1.0, **wsd), 3) for s in range(6)]
    [1.0, 1.0, 1.0, 0.667, 0.333, 0.0]
    """
    warmup = min(warmup_steps, max_steps - 1)  # the last step is not of the warmup
    if step < warmup:
        return peak_lr * (step + 1) / warmup
    if schedule == "constant":
        return peak_lr
    # The peak is reached at `start`; the fall ends on the last step.
    start = max(warmup - 1, 0)
    if schedule == "wsd":
        start = max(start, max_steps - 1 - max(1, round(decay_fraction * max_steps)))
    progress = min(1.0, max(0.0, (step - start) / max(1, max_steps - 1 - start)))
    share = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0 - progress
    return min_lr + share * (peak_lr - min_lr)
