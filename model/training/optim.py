"""Optimizers, their settings `optim.*`, the learning-rate schedule and the parameter groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.training.muon import MuonAdamW
from utils.config.schema import Dependencies, check, check_dependencies, setting
from utils.errors import UserError

SCHEDULES = ("cosine", "linear", "wsd", "constant")

# Muon's momentum at step 0. A long average of old gradients points the wrong way while the weights
# still move fast. The value is from
# https://github.com/KellerJordan/modded-nanogpt.
MOMENTUM_START = 0.85


@dataclass(frozen=True)
class OptimizerSpec:
    """What other code needs to know about an optimizer. To add an optimizer, extend OPTIMIZERS."""

    make: Callable[..., torch.optim.Optimizer]
    """Called with parameter groups and the arguments of AdamW."""
    settings: tuple[str, ...] = ()
    """Names of the `optim.*` settings that only this optimizer uses."""
    hidden_matrix: Callable[[OptimConfig, tuple[int, ...]], dict[str, Any]] = (
        lambda config, rows: {}
    )
    """Returns additional group settings of a matrix in the blocks or the pointer. rows: numbers
    of rows of the matrices stacked in it (queries, keys, values); () if it is one matrix.
    """
    at_step: Callable[[OptimConfig, int], dict[str, float]] = lambda config, step: {}
    """Returns new values of a step for group settings; each applies to the groups that have it."""
    moments: int = 2
    """Maximum number of numbers that the optimizer keeps for each weight; for memory estimates."""


OPTIMIZERS = {
    "adamw": OptimizerSpec(torch.optim.AdamW),
    "muon": OptimizerSpec(
        MuonAdamW,
        settings=("muon_lr", "muon_momentum", "muon_warmup_steps"),
        hidden_matrix=lambda config, rows: {
            "lr_ratio": config.muon_lr / config.lr,
            "muon": True,
            "momentum": config.muon_momentum,
            "split": rows,
        },
        at_step=lambda config, step: {"momentum": config.momentum_at(step)},
    ),
}
# Setting -> the settings without which it has no effect, with the values that give it one.
DEPENDS_ON: Dependencies = {
    "decay_fraction": {"schedule": ("wsd",)},
    "min_lr_ratio": {"schedule": ("cosine", "linear", "wsd")},
    **{key: {"name": (name,)} for name, spec in OPTIMIZERS.items() for key in spec.settings},
}


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning-rate schedule, weight decay and clipping."""

    name: str = setting(
        "adamw",
        "muon = Muon for matrices of blocks and pointer, AdamW for the rest",
        choices=tuple(OPTIMIZERS),
    )
    lr: float = setting(3e-3, "peak learning rate of AdamW", above=0)
    muon_lr: float = setting(0.02, "peak learning rate of Muon", above=0)
    muon_momentum: float = setting(0.95, "Muon's momentum", minimum=0, below=1)
    muon_warmup_steps: int = setting(
        0, "steps in which Muon's momentum rises from 0.85 to muon_momentum", minimum=0
    )
    embedding_lr_ratio: float = setting(
        1.0, "learning rate of the embeddings, as a multiple of lr", above=0
    )
    head_lr_ratio: float = setting(
        1.0, "learning rate of an untied output head, as a multiple of lr", above=0
    )
    vector_lr_ratio: float = setting(
        1.0, "learning rate of biases and gains, as a multiple of lr", above=0
    )
    min_lr_ratio: float = setting(
        0.0, "learning rate of the last step, as a fraction of lr", minimum=0, maximum=1
    )
    schedule: str = setting("cosine", "learning-rate decay after the warmup", choices=SCHEDULES)
    warmup_steps: int = setting(50, "steps of linear warmup", minimum=0)
    decay_fraction: float = setting(
        0.2, "wsd: fraction of all steps in which the learning rate decays", above=0, maximum=1
    )
    weight_decay: float = setting(0.1, "decoupled weight decay, on matrices only", minimum=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "AdamW's decay rates of the two moments", minimum=0, below=1
    )
    eps: float = setting(1e-8, "AdamW's epsilon", above=0)
    average_fraction: float = setting(
        0.0,
        "evaluate and save an average of the weights over this fraction of the steps; 0 = off",
        minimum=0,
        maximum=0.5,
    )
    grad_clip: float = setting(1.0, "maximum global gradient norm; 0 = no clipping", minimum=0)

    def __post_init__(self) -> None:
        check(self)
        check_dependencies(self, DEPENDS_ON, "optim")

    def lr_at(self, step: int, max_steps: int) -> float:
        """Return the learning rate of step `step`, counted from 0, in a run of `max_steps`.

        Warmup is linear from above 0, and its last step reaches `lr`. The last step of the run,
        `max_steps - 1`, is exactly at the minimum; a warmup as long as the run ends one step
        earlier. A run of one step uses the peak. In between: `cosine` (Loshchilov & Hutter 2016,
        arXiv 1608.03983, without restarts), `linear`, or `wsd` (warmup, stable, decay; Hu et al.
        2024, arXiv 2404.06395), which keeps the peak and decays linearly over the last
        `decay_fraction` of the steps, at least one. `constant` never decays.

        >>> config = OptimConfig(lr=1.0, min_lr_ratio=0.1, warmup_steps=2)
        >>> [round(config.lr_at(step, max_steps=7), 3) for step in range(7)]
        [0.5, 1.0, 0.914, 0.689, 0.411, 0.186, 0.1]
        >>> wsd = OptimConfig(lr=1.0, warmup_steps=1, schedule="wsd", decay_fraction=0.5)
        >>> [round(wsd.lr_at(step, max_steps=6), 3) for step in range(6)]
        [1.0, 1.0, 1.0, 0.667, 0.333, 0.0]
        """
        warmup = min(self.warmup_steps, max_steps - 1)  # the last step is not part of the warmup
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "constant":
            return self.lr
        # The decay starts at step `start` and ends at the last step.
        start, min_lr = max(warmup - 1, 0), self.lr * self.min_lr_ratio
        if self.schedule == "wsd":
            start = max(start, max_steps - 1 - max(1, round(self.decay_fraction * max_steps)))
        progress = min(1.0, max(0.0, (step - start) / max(1, max_steps - 1 - start)))
        cosine = self.schedule == "cosine"
        share = 0.5 * (1.0 + math.cos(math.pi * progress)) if cosine else 1.0 - progress
        return min_lr + share * (self.lr - min_lr)

    def momentum_at(self, step: int) -> float:
        """Return Muon's momentum in optimizer step `step`, counted from 0.

        >>> config = OptimConfig(name="muon", muon_momentum=0.95, muon_warmup_steps=4)
        >>> [round(config.momentum_at(step), 3) for step in (0, 2, 4, 5)]
        [0.85, 0.9, 0.95, 0.95]
        """
        start = min(MOMENTUM_START, self.muon_momentum)
        share = min(1.0, step / self.muon_warmup_steps) if self.muon_warmup_steps else 1.0
        return start + share * (self.muon_momentum - start)


def param_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return groups of parameters with equal weight decay, learning rate and kind of update.

    Matrices (weights, embeddings) get weight decay, vectors (biases, gains) do not. Muon updates
    the matrices of the blocks and the pointer. Every trainable parameter is in exactly one group.

    Args:
        model: if it has a `config`, as TinyGPT, Muon splits the matrices named qkv by it.
    """
    config_of_model: ModelConfig | None = getattr(model, "config", None)
    qkv_sizes = config_of_model.qkv_sizes if config_of_model else ()
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():  # a tied weight is listed once
        if parameter.requires_grad:
            settings = group_settings(name, parameter, config, qkv_sizes)
            group = groups.setdefault(repr(settings), {"params": [], **settings})
            group["params"].append(parameter)
    return list(groups.values())


def group_settings(
    name: str, parameter: nn.Parameter, config: OptimConfig, qkv_sizes: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Return the group settings of a parameter, from its shape and its name in TinyGPT.

    Args:
        qkv_sizes: the rows of each part of a matrix named qkv.

    >>> norm = nn.Parameter(torch.ones(2))
    >>> group_settings("final_norm.weight", norm, OptimConfig())
    {'weight_decay': 0.0, 'lr_ratio': 1.0}
    """
    if parameter.ndim < 2:
        return {"weight_decay": 0.0, "lr_ratio": config.vector_lr_ratio}
    settings: dict[str, Any] = {"weight_decay": config.weight_decay, "lr_ratio": 1.0}
    if "embedding" in name:
        settings["lr_ratio"] = config.embedding_lr_ratio
    elif name.startswith("head."):
        settings["lr_ratio"] = config.head_lr_ratio
    elif name.startswith(("blocks.", "pointer.")) and len(parameter) > 1:
        # A hidden matrix, one row per output. The pointer's gate, a single row, is not one.
        settings |= OPTIMIZERS[config.name].hidden_matrix(
            config, qkv_sizes if ".qkv." in name else ()
        )
    return settings


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name.

    AdamW: Loshchilov & Hutter 2017, arXiv 1711.05101. Muon: `model.training.muon`.
    """
    return OPTIMIZERS[config.name].make(
        param_groups(model, config), lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Restore the tensors of a state dict, and the group settings that change at each step.

    `set_step` sets the latter again; they are restored so that a checkpoint saved before that is
    the same. All other group settings are those of `optimizer`, which follow from the run's.

    Raises:
        UserError: the state is not that of this optimizer for these parameters.
    """
    groups, expected = optimizer.state_dict()["param_groups"], {}
    for ours, group in zip(groups, optimizer.param_groups, strict=True):
        for number, parameter in zip(ours["params"], group["params"], strict=True):
            step = {} if group.get("muon") else {"step": torch.Size()}
            names = ("exp_avg", "exp_avg_sq") if step else ("momentum_buffer",)
            expected[number] = step | dict.fromkeys(names, parameter.shape)
    try:
        layouts = [[one["params"] for one in x] for x in (stored["param_groups"], groups)]
        fits = layouts[0] == layouts[1]
        for number, tensors in stored["state"].items() if fits else ():
            fp32 = {name: x.shape for name, x in tensors.items() if x.dtype == torch.float32}
            # Other optimizers, which someone may add, have other tensors.
            fits &= not isinstance(optimizer, torch.optim.AdamW) or fp32 == expected[number]
        for ours, theirs in zip(groups, stored["param_groups"], strict=True):
            ours |= {name: float(theirs[name]) for name in ("lr", "momentum") if name in ours}
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError("its optimizer state does not fit the model of its config; start a new run")
    optimizer.load_state_dict({"state": stored["state"], "param_groups": groups})


def set_step(
    optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, max_steps: int
) -> float:
    """Set the learning rate and the other values of a step in every group; return the rate.

    It is called before each step, so the values in a restored state do not affect training.
    """
    lr, settings = config.lr_at(step, max_steps), OPTIMIZERS[config.name].at_step(config, step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]
        group.update({name: value for name, value in settings.items() if name in group})
    return lr


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients down to a global norm of `max_norm`; return their norm before that.

    A `max_norm` of 0 changes nothing. The norm is a scalar on the gradients' device, so this does
    not wait for a GPU.

    >>> weight = nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.tensor([3.0])
    >>> [clip_gradients([weight], max_norm).item() for max_norm in (0.0, 4.0, 2.0)]
    [3.0, 3.0, 3.0]
    >>> round(weight.grad.item(), 5)
    2.0
    """
    trained = [weight for weight in parameters if weight.grad is not None]
    norm = nn.utils.get_total_norm([cast(Tensor, weight.grad) for weight in trained])
    # Where the norm is known without waiting, small gradients need no second pass.
    if max_norm and (norm.device.type != "cpu" or not norm <= max_norm):
        nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
    return norm
