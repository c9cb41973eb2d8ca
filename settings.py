"""Every setting of a run: the parts' own settings, and those of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.config import DataConfig
from model.config import ModelConfig
from model.training.optim import OptimConfig
from utils.config.load import check, check_needs, setting
from utils.device import AMP
from utils.errors import UserError

MODEL_NEEDS = {
    "rope_theta": {"position": ("rope",)},
    "bigram_dropout": {"bigram_rows": True},
}
TRAIN_NEEDS = {"sample_prompt": {"sample_tokens": True}}


@dataclass(frozen=True)
class TrainConfig:
    """How long, how large a batch, and what is written down."""

    max_steps: int = setting(1000, "optimizer steps", minimum=1)
    batch_size: int = setting(32, "rows in one forward pass", minimum=1)
    grad_accum_steps: int = setting(1, "forward passes in one optimizer step", minimum=1)
    eval_every_steps: int = setting(
        200, "steps between evaluations, checkpoints and samples", minimum=1
    )
    log_every_steps: int = setting(20, "steps between rows of metrics.csv", minimum=1, free=True)
    early_stop_patience: int = setting(
        0, "evaluations without a new best before stopping; 0 = never", minimum=0, free=True
    )
    sample_tokens: int = setting(
        200, "length of the sample at each evaluation; 0 = none", minimum=0, free=True
    )
    sample_prompt: str = setting("", "what that sample starts with", free=True)
    tensorboard: bool = setting(
        False, "write metrics and samples for TensorBoard too, into run_dir/tensorboard", free=True
    )
    init_from: str = setting(
        "", "Hugging Face folder whose model and tokenizer to start from; empty = new weights"
    )
    seed: int = setting(1, "decides weights, data order and dropout", minimum=0)
    device: str = setting("auto", "auto (cuda, mps, cpu), or a device as torch spells it")
    amp: str = setting("auto", "format of matrix products; off = fp32", choices=AMP)
    compile: bool = setting(False, "torch.compile the model; falls back when that fails")
    num_threads: int = setting(0, "CPU threads; 0 = as torch chooses", minimum=0)

    def __post_init__(self) -> None:
        check(self)
        check_needs(self, TRAIN_NEEDS, "train")


@dataclass(frozen=True)
class Config:
    """Every setting of a run."""

    run_dir: str = setting("", "folder of the run; empty = runs/<name of the config file>")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_needs(self.model, MODEL_NEEDS, "model")
        if self.model.tie_weights and self.optim.head_lr_ratio != 1.0:
            raise UserError(
                "optim.head_lr_ratio has an effect without model.tie_weights only; drop one of them"
            )


def is_finished(config: Config, step: int, bad_evals: int) -> bool:
    """Whether a run that stands at `step` is done.

    >>> is_finished(Config(), 5, 0), is_finished(Config(), Config().train.max_steps, 0)
    (False, True)
    """
    return step >= config.train.max_steps or 0 < config.train.early_stop_patience <= bad_evals
