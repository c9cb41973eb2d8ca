"""Reports of a run in training: progress bar, log lines, and entries of run.json."""

import math
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from model.flops import count_parameters
from model.training.trainer import Trainer
from utils import device
from utils.output import describe_count, log, log_if_not_tty, progress_bar
from utils.run.environment import environment
from utils.run.log import RunLog

ANNOUNCE_AFTER_S = 1.0  # after this time in an evaluation its duration can be estimated
LONG_EVALUATION_S = 5.0  # shorter evaluations are not announced
WIDE_COLUMNS = 70  # from this width of the terminal on, WIDE_BAR; below, NARROW_BAR
WIDE_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
NARROW_BAR = "{n_fmt}/{total_fmt}, {remaining} left{postfix}"


class StepLog:
    """The progress bar, and every `log_every_steps` a row of metrics.csv and a log line."""

    def __init__(self, trainer: Trainer, run_log: RunLog | None, *, quiet: bool = False) -> None:
        """Start the progress bar; end it with `bar.close`.

        Args:
            run_log: writer of the rows; None in all processes but the main one.
            quiet: print nothing, only write rows.
        """
        self.trainer, self.run_log, self.quiet = trainer, run_log, quiet
        # Seconds of all steps since first_step, and of the latest evaluation.
        self.first_step, self.train_s, self.eval_s = trainer.step, 0.0, 0.0
        self._since = self._eval_started = time.perf_counter()
        self._announced = self._warned = False
        self._shown = 0.0  # when the progress of an evaluation was last shown
        self.bar = step_bar(trainer.config.train.max_steps, trainer.step, disable=quiet or None)

    def show_evaluation(self, number: int, n_batches: int) -> None:
        """Show the progress of an evaluation before batch `number`; announce a long one, once."""
        now = time.perf_counter()
        if number < self.trainer.dist.size:  # the first batch of this rank
            self._eval_started = now
            return
        total_s = (now - self._eval_started) / number * n_batches
        if not self._announced and now - self._eval_started >= ANNOUNCE_AFTER_S:
            self._announced = True
            tokens = self.trainer.batches.n_tokens("val")
            if not self.quiet and total_s >= LONG_EVALUATION_S:
                log(f"evaluating {describe_count(tokens)} tokens, about {total_s:.0f} s")
        left_s = self._eval_started + total_s - now
        last = number + self.trainer.dist.size >= n_batches
        if not self.bar.disable and (last or now - self._shown >= self.bar.mininterval):
            self._shown = now
            left = f", {left_s:.0f} s left" if is_wide(self.bar) else ""
            self.bar.set_postfix_str("" if last else f"evaluating {number / n_batches:.0%}{left}")

    def after_evaluation(self) -> None:
        """Measure the time of an evaluation, including its sample and its checkpoints."""
        now = time.perf_counter()
        self.eval_s, self._since = now - self._since, now

    def warn_about_evaluations(self) -> None:
        """Warn once if the evaluations of the run take longer than its steps."""
        train = self.trainer.config.train
        every = min(train.eval_every_steps, train.max_steps)
        steps_s = every * self.train_s / (self.trainer.step - self.first_step)
        if self._warned or self.eval_s < max(steps_s, LONG_EVALUATION_S):
            return
        self._warned = True
        log(
            f"warning: evaluations take longer than training: {self.eval_s:.0f} s each, and the "
            f"{every} steps before each {steps_s:.0f} s; raise train.eval_every_steps, or set a "
            "lower data.val_max_bytes"
        )

    def after_step(self) -> dict[str, float] | None:
        """Log the step if it is due; return its metrics if an evaluation is due.

        Raises:
            UserError: the loss or the gradient of a step since the last call is not finite.
        """
        trainer, evaluation_due = self.trainer, self.trainer.evaluation_due()
        self.bar.update()
        now = time.perf_counter()
        self.train_s, self._since = self.train_s + now - self._since, now
        if not evaluation_due and trainer.step % trainer.config.train.log_every_steps:
            return None
        metrics = trainer.pop_metrics()
        epoch = trainer.batches.epoch_at(trainer.step)
        show_metrics(self.bar, metrics)
        if not self.quiet:
            self.warn_about_evaluations()
        if evaluation_due:
            return metrics
        if self.run_log is not None:
            self.run_log.write(trainer.row(metrics))
            if not self.quiet:
                log_if_not_tty(self.line(metrics, epoch))
        return None

    def line(self, metrics: dict[str, float], epoch: float) -> str:
        """Return the log line of a step, with an estimate of the remaining time."""
        step, max_steps = self.trainer.step, self.trainer.config.train.max_steps
        step_s = self.train_s / (step - self.first_step)
        n_evaluations = max_steps // self.trainer.config.train.eval_every_steps
        n_evaluations -= step // self.trainer.config.train.eval_every_steps
        left_s = step_s * (max_steps - step) + self.eval_s * n_evaluations
        remaining = tqdm.format_interval(left_s)
        return (
            f"step {step}/{max_steps}, epoch {epoch:.2f}: "
            f"loss {metrics['train_loss']:.4f}, lr {metrics['lr']:.3g}, "
            f"{metrics['tokens_per_s']:,.0f} tokens/s, {remaining} left"
        )


def step_bar(max_steps: int, step: int, disable: bool | None) -> Any:
    """Return a progress bar that fits a terminal of 40 columns; from WIDE_COLUMNS on it says more.

    Args:
        disable: None = only if stderr is not a terminal.
    """
    bar = progress_bar(total=max_steps, initial=step, unit="step", disable=disable)
    bar.bar_format = WIDE_BAR if is_wide(bar) else NARROW_BAR
    return bar


def show_metrics(bar: Any, metrics: Mapping[str, float]) -> None:
    """Show the loss and, in a wide bar, the tokens per second."""
    rate = f", {metrics['tokens_per_s']:,.0f} tokens/s" if is_wide(bar) else ""
    bar.set_postfix_str(f"loss {metrics['train_loss']:.3f}{rate}")


def is_wide(bar: Any) -> bool:
    """Return whether the bar has room for more than the loss."""
    columns = None if bar.disable else bar.format_dict["ncols"]
    return columns is None or columns >= WIDE_COLUMNS


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
    if not train.init_from and trainer.step == 0:  # an untrained model prefers no token
        vocab_size = trainer.config.model.vocab_size
        lines.append(
            f"expected first loss: ln {vocab_size} = {math.log(vocab_size):.2f} nats/token"
        )
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
    """Return entries of run.json: seed, model size, and the environment of each start or resume."""
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
