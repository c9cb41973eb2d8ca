"""One training run: its parts, its step, its evaluation, its checkpoint."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.batches import Batch, Batches
from data.folders import check_content, read_meta
from data.prepare import prepare
from data.validation import scoring
from data.windows import IGNORE
from model.accounting import count_parameters
from model.draw import sample_seeds
from model.evaluate import Evaluation, evaluate
from model.generate import generate_ids
from model.gpt import TinyGPT
from model.load import load_weights
from model.loss import next_token_loss
from pretrained import starting_point
from settings import Config, is_finished
from tok.bpe import BPETokenizer
from utils import checkpoint, device
from utils.errors import UserError
from utils.metrics import CsvLog
from utils.optim import clip_gradients, make_optimizer, set_lr, set_momentum
from utils.runs import RunFolder, append_sample, environment

COUNTERS = ("step", "tokens", "bad_evals", "best_val", "last_val", "elapsed_s")
IDENTITIES = ("tokenizer_sha256", "data_identity", "threads", "torch")
STATE_KEYS = ("model", "optimizer", "scaler", "config", *COUNTERS, *IDENTITIES)


class Trainer:
    """One run: everything that a step, an evaluation and a checkpoint need."""

    def __init__(self, config: Config, run: RunFolder, state: dict[str, Any] | None) -> None:
        """Builds all parts; `state`: the checkpoint to go on from. Writes nothing into the run."""
        self.config, self.run = config, run
        if threads := state["threads"] if state else config.train.num_threads:
            torch.set_num_threads(threads)  # sums depend on the number of threads
        self.device = device.pick_device(config.train.device)
        self.amp = device.pick_amp(config.train.amp, self.device)
        self.autocast = device.autocast(self.device, self.amp)
        weights, self.foreign = starting_point(config, run, state)
        self.folder = Path(config.data.dir)
        if config.data.dir:  # prepare() has looked at what it gives
            check_content(self.folder)
        else:
            self.folder = prepare(
                config.data,
                config.model.vocab_size,
                block_size=config.model.block_size,
                tokenizer=self.foreign,
            )
        self.meta = read_meta(self.folder)
        self.tokenizer = BPETokenizer.load(self.folder / "tokenizer.json")
        self.check_data(state)
        self.val_windows, self.floor, self.note = scoring(
            self.folder, config.data.windows, config.model.block_size, self.tokenizer.eot_id
        )
        self.batches = self.make_batches()
        device.seed_all(config.train.seed, 0)
        self.model = TinyGPT(config.model).to(self.device)
        if weights:
            load_weights(self.model, weights)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")
        self.byte_lengths = torch.tensor(self.tokenizer.byte_lengths)
        self.step, self.tokens, self.bad_evals, self.elapsed_s = 0, 0, 0, 0.0
        self.best_val, self.last_val = math.inf, math.nan
        if state:
            self.restore(state)
        self.forward = self.model
        if config.train.compile:
            x_BT, _, *doc_BT = self.micro_batches(self.batches.get_batch("train", 0))[0]
            self.forward = device.compile_or_eager(self.model, self.autocast, x_BT, *doc_BT)
        self.rate = 0.0

    def check_data(self, state: dict[str, Any] | None) -> None:
        """Checks that tokenizer, data, model and checkpoint belong together.

        Raises:
            UserError: they don't; names both sides.
        """
        size, wanted = self.tokenizer.vocab_size, self.config.model.vocab_size
        if size != wanted:
            raise UserError(
                f"model.vocab_size is {wanted}, the tokenizer has {size} tokens; "
                f"set --model.vocab_size {size}"
            )
        pairs = [("tokenizer", self.tokenizer.identity, self.meta["tokenizer_sha256"], self.folder)]
        if self.foreign:  # which came with the weights
            pairs.append(("tokenizer", self.foreign.identity, self.tokenizer.identity, self.folder))
        if state:
            pairs.append(
                ("tokenizer", state["tokenizer_sha256"], self.tokenizer.identity, self.folder)
            )
            pairs.append(("data", state["data_identity"], self.meta["identity"], self.folder))
        for what, expected, found, where in pairs:
            if expected != found:
                raise UserError(
                    f"{where}: another {what} than the run's: {found[:12]}, "
                    f"expected {expected[:12]}; put the original back, or start a new run"
                )

    def make_batches(self) -> Batches:
        """The batches of the prepared folder, as the settings cut them."""
        data, train = self.config.data, self.config.train
        return Batches(
            self.folder,
            block_size=self.config.model.block_size,
            rows=train.batch_size * train.grad_accum_steps,
            end_id=self.tokenizer.eot_id,
            seed=train.seed,
            windows=data.windows,
            val_windows=self.val_windows,
            stride=data.stride,
            shift=data.shift,
            mask_documents=data.mask_documents,
            fixed_length=train.compile,
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint.

        Raises:
            UserError: it does not fit the settings.
        """
        try:
            load_weights(self.model, state["model"])
        except UserError as error:
            raise UserError(f"{self.run.last}: {error}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        if state["torch"] != str(torch.__version__):
            say(
                f"warning: the run began with torch {state['torch']}, this is {torch.__version__}: "
                "from here on its numbers may differ in the last digits"
            )

    def state(self) -> dict[str, Any]:
        """All that going on from here needs; data order and dropout follow from the step."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
            "config": asdict(self.config),
            "tokenizer_sha256": self.tokenizer.identity,
            "data_identity": self.meta["identity"],
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def micro_batches(self, whole: Batch) -> list[tuple[torch.Tensor, ...]]:
        """Parts of a batch, on the device: (x_BT, y_BT), and doc_BT where documents are masked."""
        tensors = [t for t in whole if t is not None]
        parts = zip(*(t.split(self.config.train.batch_size) for t in tensors), strict=True)
        return [tuple(t.to(self.device, non_blocking=True) for t in part) for part in parts]

    def train_step(self) -> dict[str, float]:
        """One optimizer step; the numbers of its row in metrics.csv.

        Raises:
            UserError: the loss or the gradient is not finite; the weights are as before the step.
        """
        optim, train = self.config.optim, self.config.train
        lr = optim.lr_at(self.step, train.max_steps)
        set_lr(self.optimizer, lr)
        set_momentum(self.optimizer, optim.momentum_at(self.step))
        device.seed_all(train.seed, self.step + 1)  # dropout too is a function of (seed, step)
        whole = self.batches.get_batch("train", self.step)
        n_targets = int((whole.y_BT != IGNORE).sum())
        self.optimizer.zero_grad(set_to_none=True)
        nats = 0.0
        for x_BT, y_BT, *doc_BT in self.micro_batches(whole):
            with self.autocast():
                loss_sum, _ = next_token_loss(self.forward(x_BT, *doc_BT), y_BT)
            # Divided by the targets of the whole step, so that accumulation equals the big batch.
            self.scaler.scale(loss_sum / n_targets).backward()
            nats += float(loss_sum.detach())
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model, optim.grad_clip)
        loss = nats / n_targets
        self.check_finite(loss, norm, lr)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.tokens += n_targets
        return {"lr": lr, "train_loss": loss, "grad_norm": norm}

    def check_finite(self, loss: float, norm: float, lr: float) -> None:
        """Stops the run before a step that would destroy the weights.

        A gradient that overflows fp16 is the scaler's to skip, while its scale can still shrink.
        """
        skipped_by_scaler = self.amp == "fp16" and self.scaler.get_scale() > 1.0
        if math.isfinite(loss) and (math.isfinite(norm) or skipped_by_scaler):
            return
        raise UserError(
            f"{self.run.path}: stopped before step {self.step + 1}: loss {loss}, "
            f"gradient norm {norm}, lr {lr:.3g}; the checkpoints are those before it; "
            "try a lower --optim.lr in a new run"
        )

    def check_weights(self) -> None:
        """Keeps weights that one finite but too large step has broken out of the checkpoints.

        Raises:
            UserError: a weight is not finite.
        """
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise UserError(
                    f"{self.run.path}: stopped after step {self.step}: weight {name} is not "
                    "finite; the checkpoints are those before it; try a lower --optim.lr in a new "
                    "run"
                )

    def evaluate(self) -> Evaluation:
        """One pass over the whole validation part."""
        batches = self.batches.eval_batches("val", self.config.train.batch_size)
        parts = (tuple(t for t in batch if t is not None) for batch in batches)
        return evaluate(self.model, parts, self.byte_lengths, self.autocast)

    def sample(self) -> str:
        """A short text of the model as it is now, the same for the same weights."""
        train = self.config.train
        prompt = [self.tokenizer.eot_id, *self.tokenizer.encode(train.sample_prompt)]
        (ids,) = generate_ids(
            self.model,
            [prompt[-self.config.model.block_size :]],
            seeds=sample_seeds(train.seed, 1),
            max_new_tokens=train.sample_tokens,
            stop_id=self.tokenizer.eot_id,
        )
        return train.sample_prompt + self.tokenizer.decode(
            [i for i in ids if i != self.tokenizer.eot_id]
        )

    def evaluate_and_save(self, log: CsvLog, numbers: dict[str, float]) -> None:
        """Evaluates, then writes the row, best.pt if it is, the sample, and last.pt, in that order.

        A kill between any two of these leaves a folder that resumes to the same run.
        """
        result = self.evaluate()
        self.last_val = result.nats_per_token
        improved = self.last_val < self.best_val  # a NaN is never the best
        self.best_val = self.last_val if improved else self.best_val
        self.bad_evals = 0 if improved else self.bad_evals + 1
        self.check_weights()
        numbers = numbers | {
            "val_loss": self.last_val,
            "val_ppl": result.perplexity,
            "val_bpb": result.bits_per_byte,
        }
        log.write(self.row(numbers))
        say(f"step {self.step}: {self.summary(numbers, result)}{' (best)' if improved else ''}")
        if improved or not self.run.best.exists():
            checkpoint.save(self.run.best, self.state())
        if self.config.train.sample_tokens:
            text = self.sample()
            append_sample(self.run.samples, self.step, text)
            say(f"  {text[:240]!r}")
        checkpoint.save(self.run.last, self.state())

    def summary(self, numbers: dict[str, float], result: Evaluation) -> str:
        """One line about an evaluation."""
        words = [f"train {numbers['train_loss']:.4f}"] if "train_loss" in numbers else []
        words.append(
            f"val {result.nats_per_token:.4f} nats/token, {result.bits_per_byte:.4f} bits/byte"
        )
        if self.floor:
            ratio = result.nats_per_byte / self.floor["nats_per_byte"]
            words.append(f"{ratio - 1:+.1%} to the floor")
        return ", ".join(words)

    def row(self, numbers: dict[str, float]) -> dict[str, float]:
        """A row of metrics.csv after the current step."""
        place = {
            "step": self.step,
            "tokens": self.tokens,
            "epoch": self.batches.epoch_at(self.step),
        }
        memory = device.peak_memory_bytes(self.device)
        clock = {
            "tokens_per_s": round(self.rate, 1),
            "elapsed_s": round(self.elapsed_s, 3),
            "memory_bytes": memory,
        }
        return place | numbers | clock

    def record(self) -> dict[str, Any]:
        """What run.json holds: the data, the model, and the environment of each start."""
        starts = self.run.read_record().get("starts", []) if self.run.holds_run() else []
        now = environment() | {
            "device": device.describe_device(self.device),
            "amp": self.amp,
            "step": self.step,
        }
        return {
            "data": {"folder": str(self.folder), "floor": self.floor}
            | {k: self.meta[k] for k in ("identity", "train", "val")},
            "floor_nats_per_token": self.floor
            and self.floor["total_nats"] / self.meta["val"]["tokens"],
            "seed": self.config.train.seed,
            "parameters": count_parameters(self.config.model).total,
            "starts": [*starts, now],
        }

    def introduction(self) -> list[str]:
        """What this run computes on, and what a step and an epoch are; lines for people."""
        config, rows = self.config, self.batches.rows
        train, data = config.train, self.meta["train"]
        width: int | float = config.model.block_size
        words = f"block_size {width}"
        if config.data.windows == "documents":
            width = data["tokens"] / data["documents"]
            words = f"{width:.1f} of a document on average"
        lines = [
            f"device {device.describe_device(self.device)}, amp {self.amp}, "
            f"{count_parameters(config.model).total:,} parameters",
            f"{rows * width:,.0f} tokens a step (batch_size {train.batch_size} x grad_accum_steps "
            f"{train.grad_accum_steps} x {words}), {1 / self.batches.epoch_at(1):,.1f} steps an "
            "epoch",
        ]
        if config.optim.warmup_steps >= train.max_steps:
            lines.append(
                f"warning: optim.warmup_steps {config.optim.warmup_steps} does not fit in "
                f"train.max_steps {train.max_steps}: the warmup is cut, the last step is not in it"
            )
        return lines + ([self.note] if self.note else [])

    def finished(self) -> bool:
        """Whether all steps are done, or early stopping ended the run."""
        return is_finished(self.config, self.step, self.bad_evals)


def say(line: str) -> None:
    """One line for people, above the progress bar."""
    tqdm.write(line, file=sys.stderr)
