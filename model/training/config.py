"""The settings of the training loop, `train.*`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from model.config import ModelConfig
from model.training.optim import OptimConfig
from utils.config.schema import check, check_dependencies, setting
from utils.device import AMP
from utils.run.checkpoint import MAX_THREADS

# Setting -> the settings without which it has no effect; True = not 0.
DEPENDS_ON = {"sample_prompt": {"sample_tokens": True}}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop: number of steps, batch size, logging, device."""

    max_steps: int = setting(1000, "optimizer steps", minimum=1)
    max_minutes: float = setting(
        0.0,
        "set max_steps to what fits into this time, measured before the first step; 0 = off",
        minimum=0,
        instead_of="train.max_steps",
        only_at_start=True,
    )
    max_passes: float = setting(
        0.0,
        "lower max_steps to at most this many passes over the training text; 0 = off",
        minimum=0,
        only_at_start=True,
    )
    batch_size: int = setting(32, "rows (token sequences) in one forward pass", minimum=1)
    grad_accum_steps: int = setting(1, "forward passes in one optimizer step", minimum=1)
    eval_every_steps: int = setting(
        200, "steps between evaluations, checkpoints and samples", minimum=1
    )
    log_every_steps: int = setting(
        20, "steps between rows of metrics.csv", minimum=1, may_change_on_resume=True
    )
    early_stop_patience: int = setting(
        0,
        "evaluations without a new best before stopping; 0 = never",
        minimum=0,
        may_change_on_resume=True,
    )
    sample_tokens: int = setting(
        200,
        "maximum number of new tokens of the sample at each evaluation; 0 = no sample",
        minimum=0,
        may_change_on_resume=True,
    )
    sample_prompt: str = setting(
        "", "prompt of the samples in evaluations", may_change_on_resume=True
    )
    tensorboard: bool = setting(
        False,
        "also write metrics and samples for TensorBoard, to run_dir/tensorboard",
        may_change_on_resume=True,
    )
    init_from: str = setting(
        "",
        "Hugging Face folder with the model and tokenizer to start from; empty = new weights",
        is_path=True,
    )
    seed: int = setting(1, "seed of initial weights, data order and dropout", minimum=0)
    device: str = setting("auto", "auto (cuda, else mps, else cpu), or a device of PyTorch")
    amp: str = setting("auto", "number format of matrix products; off = fp32", choices=AMP)
    compile: bool = setting(False, "use torch.compile; if that fails, train without it")
    num_threads: int = setting(
        0, "CPU threads; 0 = PyTorch's default", minimum=0, maximum=MAX_THREADS
    )

    def __post_init__(self) -> None:
        check(self)
        check_dependencies(self, DEPENDS_ON, "train")


def limit_passes(train: TrainConfig, steps_per_pass: float) -> TrainConfig:
    """Return the settings with a number of steps within train.max_passes, which is then off.

    >>> limit_passes(TrainConfig(max_steps=1000, max_passes=2.5), steps_per_pass=100).max_steps
    250
    """
    limit = max(1, round(train.max_passes * steps_per_pass)) if train.max_passes else math.inf
    return replace(train, max_steps=int(min(train.max_steps, limit)), max_passes=0.0)


def is_finished(config: TrainConfig, step: int, bad_evals: int) -> bool:
    """Return whether a run at `step` is finished, by its steps or by early stopping.

    Args:
        bad_evals: evaluations since the one with the lowest loss.

    >>> is_finished(TrainConfig(), 5, 0), is_finished(TrainConfig(max_steps=5), 5, 0)
    (False, True)
    """
    return step >= config.max_steps or 0 < config.early_stop_patience <= bad_evals


def is_complete(config: TrainConfig, state: Mapping[str, Any]) -> bool:
    """Return whether the run of a checkpoint is finished and its last step evaluated."""
    pending = state.get("pending_evaluation") is not None
    return not pending and is_finished(config, state["step"], state["bad_evals"])


class RunConfig(Protocol):
    """The settings that training reads: a dataclass, which is stored in the checkpoint."""

    @property
    def model(self) -> ModelConfig:
        """The settings `model.*`."""

    @property
    def optim(self) -> OptimConfig:
        """The settings `optim.*`."""

    @property
    def train(self) -> TrainConfig:
        """The settings `train.*`."""
