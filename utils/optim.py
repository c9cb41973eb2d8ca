"""AdamW and its parameter groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from utils.config import check, setting
from utils.schedule import SCHEDULES, lr_at


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are updated."""

    lr: float = setting(3e-3, "peak learning rate", above=0)
    min_lr_ratio: float = setting(
        0.0, "learning rate of the last step, as a share of lr", minimum=0, maximum=1
    )
    schedule: str = setting("cosine", "how the rate falls after the warmup", choices=SCHEDULES)
    warmup_steps: int = setting(50, "steps of linear warmup", minimum=0)
    decay_fraction: float = setting(
        0.2, "wsd: share of all steps in which the rate falls", above=0, maximum=1
    )
    weight_decay: float = setting(0.1, "decoupled weight decay, on matrices only", minimum=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "AdamW's decay rates of its two moments", minimum=0, below=1
    )
    eps: float = setting(1e-8, "AdamW's epsilon", above=0)
    grad_clip: float = setting(1.0, "largest global gradient norm; 0 = no clipping", minimum=0)

    def __post_init__(self) -> None:
        check(self)

    def lr_at(self, step: int, max_steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) in a run of `max_steps`."""
        return lr_at(
            step,
            peak_lr=self.lr,
            min_lr=self.lr * self.min_lr_ratio,
            warmup_steps=min(self.warmup_steps, max_steps),
            max_steps=max_steps,
            schedule=self.schedule,
            decay_fraction=self.decay_fraction,
        )


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices (weights, embeddings), which decay, and vectors (biases, gains), which don't.

    Every parameter that is trained stands in exactly one group; a tied weight counts once.
    """
    unique = {id(p): p for p in model.parameters() if p.requires_grad}.values()
    matrices = [p for p in unique if p.ndim >= 2]
    vectors = [p for p in unique if p.ndim < 2]
    groups = [(matrices, weight_decay), (vectors, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101), as one fused kernel for all parameters."""
    groups = param_groups(model, config.weight_decay)
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=device in ("cpu", "cuda", "mps"),
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of every group; called each step, so that a restored optimizer can't bring its own."""
    for group in optimizer.param_groups:
        group["lr"] = lr
