"""Checks before the first step: the memory, and the numbers that the device computes."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig
from model.eval_mode import eval_mode
from model.flops import Memory, mib, training_memory
from model.gpt import TinyGPT
from model.training.config import RunConfig, TrainConfig
from model.training.loss import IGNORE_INDEX, ModelWithLoss
from model.training.optim import OPTIMIZERS
from model.training.trainer import Trainer
from utils import device
from utils.errors import UserError, is_out_of_memory
from utils.output import log
from utils.processes import free_memory

MAX_TOKENS = 512  # of a batch that the CPU computes again, which should take under three seconds
MAX_LOSS_ERROR = 1e-2  # relative; bf16 has a relative precision of 2^-8
MIN_COSINE = 0.99
# Measured on the shipped configs (docs/benchmarks.md): temporary tensors and gaps of the allocator,
# in proportion to the activations; and the checkpoint's copy of the weights, and the plot.
CPU_TEMPORARIES, CPU_END_BYTES = 0.45, 80 * 2**20


@dataclass(frozen=True)
class Agreement:
    """How close a loss and its gradient are to those of a CPU."""

    loss_error: float  # relative
    cosine: float  # of the angle between the gradients

    @property
    def is_close(self) -> bool:
        """Whether both are within the errors of rounding; False for NaN."""
        return self.loss_error <= MAX_LOSS_ERROR and self.cosine >= MIN_COSINE


def compare_with_cpu(
    loss: Callable[..., Tensor],
    model: TinyGPT,
    batch: Sequence[Tensor],
    autocast: Callable[[], contextlib.AbstractContextManager[object]],
    scale: Callable[[Tensor], Tensor] = lambda value: value,
    dtype: torch.dtype = torch.float32,
) -> Agreement:
    """Compare the loss and gradient of a batch with those of a copy of the model on the CPU.

    Args:
        loss: computes the loss of `model`, which may be compiled.
        batch: inputs, targets and maybe document numbers; the first MAX_TOKENS tokens are scored.
        scale: against gradients too small for fp16, see GradScaler.
        dtype: of the copy.
    """
    x_BT, y_BT, *doc = batch
    part = slice(max(1, MAX_TOKENS // x_BT.shape[1])), slice(MAX_TOKENS)  # of rows and positions
    # The rest of the batch is not cut off: a compiled loss would be compiled again.
    kept, y_BT = y_BT[part], torch.full_like(y_BT, IGNORE_INDEX)
    y_BT[part] = kept
    n_targets = int((y_BT != IGNORE_INDEX).sum())
    reference = copy.deepcopy(model).to("cpu", dtype)
    cpu_batch, found = [tensor[part].cpu() for tensor in (x_BT, y_BT, *doc)], []
    for one, compute, tensors, context in (
        (model, loss, (x_BT, y_BT, *doc), autocast),
        (reference, ModelWithLoss(reference), cpu_batch, contextlib.nullcontext),
    ):
        one.zero_grad(set_to_none=True)
        with context():
            value = compute(*tensors) / n_targets
        scale(value).backward()
        gradients = [weight.grad for weight in one.parameters() if weight.grad is not None]
        found.append((value.item(), torch.cat([g.cpu().double().flatten() for g in gradients])))
        one.zero_grad(set_to_none=True)
    (value, gradient), (expected, expected_gradient) = found
    cosine = F.cosine_similarity(gradient, expected_gradient, dim=0).item()
    return Agreement(abs(value / expected - 1), cosine)


def check_numbers(trainer: Trainer) -> None:
    """Warn if the device, number format or compiler computes another loss or gradient than a CPU.

    Nothing is compared on a CPU in fp32 without compiler. Dropout, which is random, is off; with a
    compiler it would need a second compilation, and nothing is compared.
    """
    if trainer.device.type == "cpu" and trainer.amp == "off" and not trainer.compiled:
        return
    if trainer.compiled and trainer.config.model.dropout:
        log("numbers not compared with the CPU's, as model.dropout and train.compile are set")
        return
    batch = trainer.micro_batches(trainer.batches.training_batch(0)[0])[0]
    model, scale = trainer.model, trainer.scaler.scale
    with eval_mode(model) if trainer.config.model.dropout else contextlib.nullcontext():
        found = compare_with_cpu(trainer.loss, model, batch, trainer.autocast, scale)
    if found.is_close:
        return
    fix = "--train.compile false" if trainer.compiled else "--train.device cpu"
    log(
        f"warning: {trainer.device}, amp {trainer.amp}: the loss of the first batch differs from "
        f"the CPU's by {found.loss_error:.1%}, the cosine of the gradients is {found.cosine:.3f}; "
        f"try {fix if trainer.amp == 'off' else '--train.amp off'}"
    )


def check_memory(trainer: Trainer) -> int:
    """Return the estimated peak memory in bytes; warn if the machine has less.

    Call it before the first step: what the process holds now is part of the estimate.
    """
    memory, on_gpu = estimate(trainer.config, trainer.amp), trainer.device.type == "cuda"
    free = device.free_gpu_memory_bytes(trainer.device) or free_memory()
    # What the process holds now includes the weights.
    held = torch.cuda.memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    needed = memory.total - memory.weights
    needed += extra_cpu_bytes(memory) if trainer.device.type == "cpu" else 0
    if needed > free:
        hint = smaller(trainer.config.model, trainer.config.train, memory, free)
        log(
            f"warning: training needs about {mib(needed)} more memory, and {mib(free)} are free; "
            f"set {hint}"
        )
    return held + needed


def extra_cpu_bytes(memory: Memory) -> int:
    """Return the bytes that training on a CPU needs beyond the tensors of `memory`."""
    return int(CPU_TEMPORARIES * memory.activations) + CPU_END_BYTES


def estimate(config: RunConfig, amp: str = "off") -> Memory:
    """Return the estimated bytes of training, without what the process needs for other things."""
    return training_memory(
        config.model,
        config.train.batch_size,
        activation_bytes=4 if amp == "off" else 2,
        moments=OPTIMIZERS[config.optim.name].moments + bool(config.optim.average_fraction),
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
        memory = estimate(trainer.config, trainer.amp)
        half = memory.gradients + memory.moments + memory.activations // 2
        hint = smaller(trainer.config.model, trainer.config.train, memory, half)
        raise UserError(f"{trainer.device}: not enough memory; set {hint}") from None
