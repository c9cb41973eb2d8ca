"""The memory that a training run needs, before it starts; and what to change if it is too much."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import torch

from model.config import ModelConfig
from model.flops import Memory, mib, training_memory
from model.training.config import TrainConfig
from model.training.optim import OPTIMIZERS
from model.training.trainer import Trainer
from utils import device
from utils.errors import UserError, is_out_of_memory
from utils.output import log


def describe_memory(trainer: Trainer) -> str:
    """Return a line with the estimated peak memory; warn if the machine has less.

    Call it before the first step: what the process holds now is part of the estimate.
    """
    memory, on_gpu = estimate(trainer), trainer.device.type == "cuda"
    free = device.free_gpu_memory_bytes(trainer.device) or psutil.virtual_memory().available
    # What the process holds now includes the weights.
    held = torch.cuda.memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    needed = memory.total - memory.weights
    if needed > free:
        hint = smaller(trainer.config.model, trainer.config.train, memory, free)
        log(
            f"warning: training needs about {mib(needed)} more memory, and "
            f"{mib(free)} are free; set {hint}"
        )
    return f"about {mib(held + needed)} of memory"


def estimate(trainer: Trainer) -> Memory:
    """Return the estimated bytes of training, without what the process needs for other things."""
    config = trainer.config
    return training_memory(
        config.model,
        config.train.batch_size,
        activation_bytes=4 if trainer.amp == "off" else 2,
        moments=OPTIMIZERS[config.optim.name].moments,
    )


def smaller(model: ModelConfig, train: TrainConfig, memory: Memory, free_bytes: int) -> str:
    """Return the setting to change, with a value that fits into the free memory.

    >>> model = ModelConfig(n_embd=192)
    >>> smaller(model, TrainConfig(batch_size=32), Memory(1000, 1000, 2000, 32_000), 15_000)
    'train.batch_size 8 and train.grad_accum_steps 4, which give the same updates'
    >>> smaller(model, TrainConfig(batch_size=32), Memory(1000, 1000, 2000, 32_000), 3000)
    'model.n_embd 96'
    """
    left = free_bytes - memory.gradients - memory.moments
    rows = left * train.batch_size // max(1, memory.activations)
    fitting = [n for n in range(1, train.batch_size) if n <= rows and train.batch_size % n == 0]
    if not fitting:
        step = 2 * model.n_head  # RoPE needs heads of even size
        return f"model.n_embd {max(step, model.n_embd // 2 // step * step)}"
    accum = train.grad_accum_steps * train.batch_size // fitting[-1]
    return (
        f"train.batch_size {fitting[-1]} and train.grad_accum_steps {accum}, "
        "which give the same updates"
    )


@contextlib.contextmanager
def hint_if_out_of_memory(trainer: Trainer) -> Iterator[None]:
    """Turn an error of the memory allocator into one that names the setting to change.

    Raises:
        UserError: the memory is exhausted.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        memory = estimate(trainer)
        half = memory.gradients + memory.moments + memory.activations // 2
        hint = smaller(trainer.config.model, trainer.config.train, memory, half)
        raise UserError(f"{trainer.device}: not enough memory; set {hint}") from None
