"""Reports of a run in training: progress bar, log lines, and entries of run.json."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from model.flops import count_parameters
from model.training.trainer import Trainer
from utils import device
from utils.output import log_if_not_tty
from utils.run.environment import environment
from utils.run.log import RunLog


class StepLog:
    """The progress bar, and every `log_every_steps` a row of metrics.csv and a log line."""

    def __init__(self, trainer: Trainer, log: RunLog | None, *, quiet: bool = False) -> None:
        """Start the progress bar; end it with `bar.close`.

        Args:
            log: writer of the rows; None in all processes but the main one.
            quiet: print nothing, only write rows.
        """
        self.trainer, self.log, self.quiet = trainer, log, quiet
        self.first_step, self.started = trainer.step, time.perf_counter()
        self.bar = tqdm(
            total=trainer.config.train.max_steps,
            initial=trainer.step,
            desc="train",
            unit="step",
            disable=quiet or None,
        )

    def after_step(self) -> dict[str, float] | None:
        """Log the step if it is due; return its metrics if an evaluation is due.

        Raises:
            UserError: the loss or the gradient of a step since the last call is not finite.
        """
        trainer, evaluate = self.trainer, self.trainer.evaluation_due()
        self.bar.update()
        if not evaluate and trainer.step % trainer.config.train.log_every_steps:
            return None
        metrics = trainer.pop_metrics()
        epoch = trainer.batches.epoch_at(trainer.step)
        self.bar.set_postfix_str(
            f"epoch {epoch:.2f}, loss {metrics['train_loss']:.3f}, "
            f"{metrics['tokens_per_s']:,.0f} tokens/s"
        )
        if evaluate:
            return metrics
        if self.log is not None:
            self.log.write(trainer.row(metrics))
            if not self.quiet:
                log_if_not_tty(self.line(metrics, epoch))
        return None

    def line(self, metrics: dict[str, float], epoch: float) -> str:
        """Return the log line of a step, with an estimate of the remaining time."""
        step, max_steps = self.trainer.step, self.trainer.config.train.max_steps
        step_s = (time.perf_counter() - self.started) / (step - self.first_step)
        remaining = tqdm.format_interval(step_s * (max_steps - step))
        return (
            f"step {step}/{max_steps}, epoch {epoch:.2f}: "
            f"loss {metrics['train_loss']:.4f}, lr {metrics['lr']:.3g}, "
            f"{metrics['tokens_per_s']:,.0f} tokens/s, {remaining} left"
        )


def describe_run(trainer: Trainer, tokens_per_row: float, row_formula: str) -> list[str]:
    """Return lines for the user: device, model size, tokens per step and steps per epoch.

    Args:
        tokens_per_row: mean number of tokens in a row of a batch.
        row_formula: how that number is computed, in words.
    """
    train = trainer.config.train
    rows = train.batch_size * train.grad_accum_steps
    lines = [
        f"device {device.describe_device(trainer.device)}, amp {trainer.amp}, "
        f"{count_parameters(trainer.config.model).total:,} parameters",
        f"{rows * tokens_per_row:,.0f} tokens a step (batch_size {train.batch_size} x "
        f"grad_accum_steps {train.grad_accum_steps} x {row_formula}), "
        f"{1 / trainer.batches.epoch_at(1):,.1f} steps an epoch",
    ]
    if trainer.dist.size > 1:
        lines.append(trainer.dist.describe(rows))
    warmup_steps = trainer.config.optim.warmup_steps
    if warmup_steps >= train.max_steps:
        lines.append(
            f"warning: optim.warmup_steps {warmup_steps} does not fit in "
            f"train.max_steps {train.max_steps}: the warmup is cut to end before the last step"
        )
    return lines


def run_metadata(trainer: Trainer) -> dict[str, Any]:
    """Return the entries of run.json about the model and the environment of each start."""
    starts = trainer.run.read_record().get("starts", []) if trainer.run.has_run() else []
    start = environment() | {
        "device": device.describe_device(trainer.device),
        "amp": trainer.amp,
        "ranks": trainer.dist.size,
        "step": trainer.step,
    }
    return {
        "seed": trainer.config.train.seed,
        "parameters": count_parameters(trainer.config.model).total,
        "starts": [*starts, start],
    }
