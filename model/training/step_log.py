"""What a run tells of itself: run.json, a bar, rows of metrics.csv, lines for people."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from data.download.known_corpora import corpus_of
from model.flops import count_parameters
from model.training.trainer import Trainer
from utils import device
from utils.metrics import Throughput
from utils.output import plain
from utils.run.environment import environment
from utils.run.log import RunLog


class StepLog:
    """Times every step, and tells of those whose turn it is. Evaluations are not in its clock."""

    def __init__(self, trainer: Trainer, log: RunLog | None, *, quiet: bool = False) -> None:
        """Begins a bar, which `bar.close` ends; elapsed time goes on from the trainer's.

        `quiet`: nothing is shown, only written.
        """
        self.trainer, self.log, self.quiet = trainer, log, quiet
        self.meter, self.tokens = Throughput(), trainer.tokens
        self.bar = tqdm(
            total=trainer.config.train.max_steps,
            initial=trainer.step,
            desc="train",
            unit="step",
            disable=quiet or None,
        )
        self.begun, self.first = time.perf_counter(), trainer.step
        self.since = self.begun - trainer.elapsed_s

    def before_step(self) -> None:
        """Starts the clock."""
        self.tokens = self.trainer.tokens
        self.meter.start()

    def after_step(self) -> bool:
        """Counts a step, and tells of it where that is due; whether an evaluation is due instead.

        Raises:
            UserError: a step since the last time had no finite loss or gradient.
        """
        trainer, train = self.trainer, self.trainer.config.train
        evaluate = trainer.step == train.max_steps or trainer.step % train.eval_every_steps == 0
        due = evaluate or trainer.step % train.log_every_steps == 0
        if due:
            trainer.read()  # here a GPU is waited for; so the clock runs on till then
        self.meter.stop(trainer.tokens - self.tokens)
        trainer.elapsed_s = time.perf_counter() - self.since
        self.bar.update()
        if due:
            self.tell(row=not evaluate)
        return evaluate

    def tell(self, *, row: bool) -> None:
        """The bar's figures; with `row` also a row of metrics.csv, and a line for people."""
        trainer, train = self.trainer, self.trainer.config.train
        numbers = trainer.read()
        trainer.rate = self.meter.take()
        epoch = trainer.batches.epoch_at(trainer.step)
        self.bar.set_postfix_str(
            f"epoch {epoch:.2f}, loss {numbers['train_loss']:.3f}, {trainer.rate:,.0f} tokens/s"
        )
        if not row or not trainer.ranks.first:
            return
        self.log.write(trainer.row(numbers))
        step_s = (time.perf_counter() - self.begun) / (trainer.step - self.first)
        left = tqdm.format_interval(step_s * (train.max_steps - trainer.step))
        line = (
            f"step {trainer.step}/{train.max_steps}, epoch {epoch:.2f}: "
            f"loss {numbers['train_loss']:.4f}, lr {numbers['lr']:.3g}, "
            f"{trainer.rate:,.0f} tokens/s, {left} left"
        )
        if not self.quiet:
            plain(line)


def introduction(trainer: Trainer) -> list[str]:
    """What this run computes on, and what a step and an epoch are; lines for people."""
    config, rows = trainer.config, trainer.batches.rows
    train, data = config.train, trainer.meta["train"]
    width: int | float = config.model.block_size
    words = f"block_size {width}"
    if config.data.windows == "documents":
        width = data["tokens"] / data["documents"]
        words = f"{width:.1f} of a document on average"
    lines = [
        f"device {device.describe_device(trainer.device)}, amp {trainer.amp}, "
        f"{count_parameters(config.model).total:,} parameters",
        f"{rows * width:,.0f} tokens a step (batch_size {train.batch_size} x grad_accum_steps "
        f"{train.grad_accum_steps} x {words}), {1 / trainer.batches.epoch_at(1):,.1f} steps an "
        "epoch",
    ]
    if trainer.ranks.size > 1:
        lines.append(trainer.ranks.describe(rows))
    if config.optim.warmup_steps >= train.max_steps:
        lines.append(
            f"warning: optim.warmup_steps {config.optim.warmup_steps} does not fit in "
            f"train.max_steps {train.max_steps}: the warmup is cut, the last step is not in it"
        )
    return lines + ([trainer.note] if trainer.note else [])


def record(trainer: Trainer) -> dict[str, Any]:
    """What run.json holds: the data, the model, and the environment of each start."""
    starts = trainer.run.read_record().get("starts", []) if trainer.run.holds_run() else []
    now = environment() | {
        "device": device.describe_device(trainer.device),
        "amp": trainer.amp,
        "ranks": trainer.ranks.size,
        "step": trainer.step,
    }
    return {
        "data": {"folder": str(trainer.folder), "floor": trainer.floor}
        | {k: trainer.meta[k] for k in ("identity", "train", "val")}
        | {"corpus": corpus_of(trainer.meta["recipe"])},
        "floor_nats_per_token": trainer.floor
        and trainer.floor["total_nats"] / trainer.meta["val"]["tokens"],
        "seed": trainer.config.train.seed,
        "parameters": count_parameters(trainer.config.model).total,
        "starts": [*starts, now],
    }
