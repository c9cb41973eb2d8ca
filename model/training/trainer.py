"""One training run: its parts, its step, its evaluation, its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from data.batches import Batch, Batches
from data.prepare import prepare
from data.prepared_folder import check_belonging, check_content, read_meta
from data.scoring import scoring
from model.gpt import TinyGPT
from model.hf.pretrained import starting_point
from model.load import load_weights
from model.sampling.generate import generate_ids
from model.sampling.sampler import sample_seeds
from model.training.evaluate import Evaluation, evaluate
from model.training.loss import LossOf
from model.training.optim import clip_gradients, make_optimizer, set_lr, set_momentum
from settings import Config, is_finished
from tok.tokenizer import BPETokenizer
from utils import device
from utils.distributed import ALONE, Ranks
from utils.errors import UserError
from utils.output import say
from utils.processes import keep_freed_memory
from utils.run import checkpoint
from utils.run.folder import RunFolder
from utils.run.log import RunLog

COUNTERS = ("step", "tokens", "bad_evals", "best_val", "last_val", "elapsed_s")
IDENTITIES = ("tokenizer_sha256", "data_identity", "threads", "torch")
STATE_KEYS = ("model", "optimizer", "scaler", "config", *COUNTERS, *IDENTITIES)


class Trainer:
    """One run: everything that a step, an evaluation and a checkpoint need."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        state: dict[str, Any] | None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Builds all parts; `state`: the checkpoint to go on from. Writes nothing into the run."""
        self.config, self.run, self.ranks = config, run, ranks
        self.part = ranks.rows(config.train.batch_size * config.train.grad_accum_steps)
        known = state and state.get("ranks", 1) == ranks.size  # older checkpoints are of one
        if threads := state["threads"] if known else config.train.num_threads or ranks.threads():
            torch.set_num_threads(threads)  # sums depend on the number of threads
        self.device = device.pick_device(ranks.device_name(config.train.device))
        keep_freed_memory()
        self.amp = device.pick_amp(config.train.amp, self.device)
        self.autocast = device.autocast(self.device, self.amp)
        weights, self.foreign = starting_point(config, run, state)
        self.load_data(state)
        self.batches = self.make_batches()
        self.batches.settle(self.device, device.spare_memory_bytes(self.device))
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
        self.loss = plain = LossOf(self.model)
        if config.train.compile:
            first = self.micro_batches(self.batches.get_batch("train", 0))[0]
            self.loss = device.compile_or_eager(plain, self.autocast, *first)
        self.compiled = self.loss is not plain
        self.rate = 0.0
        self.weights = list(self.model.parameters())
        self.unwatched = not device.answers_at_once(self.device) and self.amp != "fp16"
        self.unread: list[tuple[int, float, int, torch.Tensor, torch.Tensor]] = []
        self.numbers: dict[str, float] = {}
        # Told at the end of each part of a step; scripts.bench puts a clock here.
        self.mark: Callable[[str], object] = lambda part: None

    def load_data(self, state: dict[str, Any] | None) -> None:
        """Finds or makes the prepared folder, and what belongs to it."""
        config = self.config
        self.folder = Path(config.data.dir)
        if config.data.dir:  # prepare() has looked at what it gives
            check_content(self.folder)
        else:
            size, block = config.model.vocab_size, config.model.block_size
            with self.ranks.first_alone("data"):
                self.folder = prepare(config.data, size, block_size=block, tokenizer=self.foreign)
        self.meta = read_meta(self.folder)
        self.tokenizer = BPETokenizer.load(self.folder / "tokenizer.json")
        check_belonging(
            self.folder, self.tokenizer, config.model.vocab_size, foreign=self.foreign, state=state
        )
        self.val_windows, self.floor, self.note = scoring(
            self.folder, config.data.windows, config.model.block_size, self.tokenizer.eot_id
        )
        self.end_id = self.tokenizer.eot_id

    def make_batches(self) -> Batches:
        """The batches of the prepared folder, as the settings cut them."""
        data, train = self.config.data, self.config.train
        return Batches(
            self.folder,
            block_size=self.config.model.block_size,
            rows=train.batch_size * train.grad_accum_steps,
            end_id=self.end_id,
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
        if (before := state.get("ranks", 1)) != self.ranks.size:
            masks = ", and dropout draws other masks" if self.config.model.dropout else ""
            say(
                f"warning: the run had {before} ranks till now, these are {self.ranks.size}: "
                f"from here on its numbers may differ in the last digits{masks}"
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
            "ranks": self.ranks.size,
            "torch": str(torch.__version__),
        }

    def micro_batches(self, whole: Batch) -> list[tuple[torch.Tensor, ...]]:
        """This rank's micro-batches: (x_BT, y_BT), and doc_BT where documents are masked."""
        tensors = [device.send(t[self.part], self.device) for t in whole if t is not None]
        parts = zip(*(t.split(self.config.train.batch_size) for t in tensors), strict=True)
        return list(parts)

    def train_step(self) -> dict[str, float]:
        """One optimizer step; the numbers of its row in metrics.csv.

        On a GPU, which is not waited for here, there are none: `read` tells them.

        Raises:
            UserError: the loss or the gradient is not finite; the weights are as before the step.
                On a GPU `read` raises it, later, but before anything is saved.
        """
        optim, train = self.config.optim, self.config.train
        lr = optim.lr_at(self.step, train.max_steps)
        set_lr(self.optimizer, lr)
        set_momentum(self.optimizer, optim.momentum_at(self.step))
        # Dropout too is a function of (seed, step), with other masks for the rows of other ranks.
        device.seed_all(train.seed, self.step + 1, self.ranks.rank)
        whole, n_targets = self.batches.training_batch(self.step)
        parts = self.micro_batches(whole)
        self.mark("data")
        self.optimizer.zero_grad(set_to_none=True)
        nats = self.backward(parts, n_targets)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.weights, optim.grad_clip)
        self.mark("clip")
        self.unread.append((self.step, lr, n_targets, nats, norm))
        numbers = {} if self.unwatched else self.read()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.tokens += n_targets
        self.mark("optimizer")
        return numbers

    def read(self) -> dict[str, float]:
        """The numbers of the last step; looks through all since the last call.

        Raises:
            UserError: the loss or the gradient of one of them is not finite.
        """
        if self.unread:
            told = [number for *_, nats, norm in self.unread for number in (nats, norm)]
            values = iter(torch.stack(told).tolist())  # the one place where a GPU is waited for
            for step, lr, n_targets, _, _ in self.unread:
                loss, norm = next(values) / n_targets, next(values)
                self.check_finite(step, loss, norm, lr)
                self.numbers = {"lr": lr, "train_loss": loss, "grad_norm": norm}
            self.unread.clear()
        return self.numbers

    def backward(self, parts: list[tuple[torch.Tensor, ...]], n_targets: int) -> torch.Tensor:
        """Adds up the gradients of all micro-batches of all ranks; the sum of their losses."""
        sums = []
        for part in parts:
            with self.autocast():
                loss_sum = self.loss(*part)
            # Divided by the targets of the whole step, so that accumulation equals the big batch.
            loss = self.scaler.scale(loss_sum / n_targets)
            self.mark("forward")
            loss.backward()
            self.mark("backward")
            sums.append(loss_sum.detach())
        nats = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        return self.ranks.add_up(self.weights, nats)

    def check_finite(self, step: int, loss: float, norm: float, lr: float) -> None:
        """Stops the run before a step that would destroy the weights.

        A gradient that overflows fp16 is the scaler's to skip, while its scale can still shrink.
        """
        skipped_by_scaler = self.amp == "fp16" and self.scaler.get_scale() > 1.0
        if math.isfinite(loss) and (math.isfinite(norm) or skipped_by_scaler):
            return
        raise UserError(
            f"{self.run.path}: stopped before step {step + 1}: loss {loss}, "
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
        """One pass over the whole validation part; the ranks take turns at its batches."""
        batches = self.batches.eval_batches("val", self.config.train.batch_size)
        own = islice(batches, self.ranks.rank, None, self.ranks.size)
        return evaluate(self.model, own, self.byte_lengths, self.autocast, total=self.ranks.totals)

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

    def evaluate_and_save(self, log: RunLog | None, numbers: dict[str, float]) -> None:
        """Evaluates, then writes the row, best.pt if it is, the sample, and last.pt, in that order.

        A kill between any two of these leaves a folder that resumes to the same run. Of several
        ranks the first writes; the others wait for it at the next sum.
        """
        result = self.evaluate()
        self.last_val = result.nats_per_token
        improved = self.last_val < self.best_val  # a NaN is never the best
        self.best_val = self.last_val if improved else self.best_val
        self.bad_evals = 0 if improved else self.bad_evals + 1
        self.check_weights()
        self.ranks.require_alike(self.weights)
        if not self.ranks.first:
            return
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
            log.sample(self.step, text)
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

    def finished(self) -> bool:
        """Whether all steps are done, or early stopping ended the run."""
        return is_finished(self.config, self.step, self.bad_evals)
