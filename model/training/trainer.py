"""The trainer: a training step, an evaluation, a checkpoint."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch

from model.gpt import TinyGPT
from model.load import load_weights
from model.sampling.generate import generate_ids
from model.sampling.sampler import sample_seeds
from model.training.config import RunConfig, is_finished
from model.training.evaluate import Average, Evaluation, StopCheck, evaluate_split, never_stop
from model.training.loss import ModelWithLoss
from model.training.optim import clip_gradients, restore_optimizer, set_step
from model.training.protocols import Batches, Tokenizer
from utils import device
from utils.distributed import SINGLE_PROCESS, Distributed
from utils.errors import UserError, errors_at
from utils.metrics import Throughput
from utils.output import log
from utils.run import checkpoint
from utils.run.environment import resume_warnings
from utils.run.folder import RunFolder
from utils.run.log import RunLog, sync_logs, worse_than_start
from utils.run.saver import Saver

COUNTERS = ("step", "tokens", "bad_evals", "best_val", "last_val", "elapsed_s")


def ignore_phase(phase: str) -> None:
    """Do nothing at the end of a phase."""


class Trainer:
    """A model in training, with the optimizer, batches and counters of its steps."""

    def __init__(
        self,
        config: RunConfig,
        model: TinyGPT,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        tokenizer: Tokenizer,
        run: RunFolder,
        *,
        data_identity: str = "",
        floor_nats_per_byte: float | None = None,
        state: dict[str, Any] | None = None,
        dist: Distributed = SINGLE_PROCESS,
    ) -> None:
        """Store the components and restore `state`; write nothing.

        Args:
            run: the folder of checkpoints.
            data_identity: of the prepared data, for the checkpoint.
            floor_nats_per_byte: entropy floor of the validation split, for the log.
            state: the checkpoint to resume from.
        """
        self.config, self.model, self.optimizer = config, model, optimizer
        self.batches, self.tokenizer, self.run, self.dist = batches, tokenizer, run, dist
        self.data_identity, self.floor_nats_per_byte = data_identity, floor_nats_per_byte
        self.device = next(model.parameters()).device
        self.amp = device.pick_amp(config.train.amp, self.device)
        self.autocast = device.autocast(self.device, self.amp)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")
        self.byte_lengths = torch.tensor(tokenizer.byte_lengths)
        self.weights = list(model.parameters())
        self.average = Average(self.weights, config.optim, config.train)
        self.local_rows = dist.local_rows(config.train.batch_size * config.train.grad_accum_steps)
        self.step, self.tokens, self.bad_evals, self.elapsed_s = 0, 0, 0, 0.0
        self.best_val, self.last_val = math.inf, math.nan  # nats per token
        self.val_step: int | None = None  # the step of last_val
        self.pending_evaluation: dict[str, float] | None = None  # metrics of the step to evaluate
        self.stop_evaluation: StopCheck = never_stop
        self.saver = Saver()
        if state:
            self.restore(state)
        eager = ModelWithLoss(model)
        self.loss: Callable[..., torch.Tensor] = eager
        if config.train.compile:
            micro_batch = self.micro_batches(batches.training_batch(0)[0])[0]
            self.loss = device.compile_or_eager(eager, self.autocast, *micro_batch)
        self.compiled = self.loss is not eager
        # Reading a GPU value forces a sync, so metrics are buffered and read together. Not in fp16,
        # where GradScaler reads the gradients anyway.
        self.async_metrics = not device.is_synchronous(self.device) and self.amp != "fp16"
        self.pending_metrics: list[tuple[int, float, int, torch.Tensor, torch.Tensor]] = []
        self.metrics: dict[str, float] = {}
        self.throughput = Throughput()
        self._started = time.perf_counter() - self.elapsed_s

    def restore(self, state: dict[str, Any]) -> None:
        """Restore model, optimizer, scaler and counters from a checkpoint.

        Raises:
            UserError: the checkpoint's weights do not match the settings.
        """
        with errors_at(self.run.last, "start a new run"):
            load_weights(self.model, state["model"])
            if "training_weights" in state:
                self.average.start()
                load_weights(self.model, state["training_weights"])
            restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"].keys() == self.scaler.state_dict().keys():  # {} without fp16
            self.scaler.load_state_dict(state["scaler"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.val_step = checkpoint.evaluated_step(state)
        self.pending_evaluation = state.get("pending_evaluation")
        for line in resume_warnings(state, self.dist.size, self.config.model.dropout):
            log(line)

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint; its step stands in for all random states."""
        more: dict[str, Any] = {"logs": sync_logs(self.run)}
        if self.val_step != self.step:
            more["val_step"] = self.val_step
        if self.pending_evaluation is not None:
            more["pending_evaluation"] = self.pending_evaluation
        return {
            **self.average.state(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
            "config": asdict(cast(Any, self.config)),
            "tokenizer_sha256": self.tokenizer.identity,
            "data_identity": self.data_identity,
            "threads": torch.get_num_threads(),
            "ranks": self.dist.size,
            "torch": str(torch.__version__),
            **more,
        }

    def micro_batches(self, batch: Sequence[torch.Tensor | None]) -> list[tuple[torch.Tensor, ...]]:
        """Return this rank's micro-batches: (x_BT, y_BT), with documents (x_BT, y_BT, doc_BT)."""
        tensors = [
            device.copy_to_device(t[self.local_rows], self.device) for t in batch if t is not None
        ]
        return list(zip(*(t.split(self.config.train.batch_size) for t in tensors), strict=True))

    def train_step(self, on_phase_end: Callable[[str], object] = ignore_phase) -> None:
        """Take one optimizer step. `flush_metrics` returns its metrics.

        Args:
            on_phase_end: called with the name of each phase when it ends, to measure it.

        Raises:
            UserError: the loss or the gradient is not finite; the weights are unchanged. On a GPU
                `flush_metrics` raises it, later, but before anything is saved.
        """
        self.throughput.start()
        optim, train = self.config.optim, self.config.train
        lr = set_step(self.optimizer, optim, self.step, train.max_steps)
        # Dropout masks depend on (seed, step, rank) alone. Seed (seed, 0) is for initial weights.
        device.seed_all(train.seed, self.step + 1, self.dist.rank)
        batch, n_targets = self.batches.training_batch(self.step)
        micro_batches = self.micro_batches(batch)
        on_phase_end("data")
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = self.backward(micro_batches, n_targets, on_phase_end)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.weights, optim.grad_clip)
        on_phase_end("clip")
        self.pending_metrics.append((self.step, lr, n_targets, loss_sum, norm))
        if not self.async_metrics:
            self._read_pending()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.tokens += n_targets
        self.average.update(self.step)
        on_phase_end("optimizer")
        self._stop_clock(n_targets)

    def flush_metrics(self) -> dict[str, float]:
        """Return learning rate, loss and gradient norm of the latest step; syncs with a GPU.

        Raises:
            UserError: the loss or the gradient of a step since the last call is not finite.
        """
        if self.pending_metrics:
            self.throughput.start()
            self._read_pending()
            self._stop_clock(0)
        return self.metrics

    def _read_pending(self) -> None:
        tensors = [
            tensor for *_, loss_sum, norm in self.pending_metrics for tensor in (loss_sum, norm)
        ]
        # The only GPU sync in the training loop, except for GradScaler's in fp16.
        values = iter(torch.stack(tensors).tolist())
        for step, lr, n_targets, _, _ in self.pending_metrics:
            loss, norm = next(values) / n_targets, next(values)
            self.check_finite(step, loss, norm, lr)
            self.metrics = {"lr": lr, "train_loss": loss, "grad_norm": norm}
        self.pending_metrics.clear()

    def _stop_clock(self, n_tokens: int) -> None:
        self.throughput.stop(n_tokens)
        self.elapsed_s = time.perf_counter() - self._started

    def backward(
        self,
        micro_batches: list[tuple[torch.Tensor, ...]],
        n_targets: int,
        on_phase_end: Callable[[str], object] = ignore_phase,
    ) -> torch.Tensor:
        """Sum the gradients over the micro-batches of all ranks; return the sum of the losses.

        Args:
            n_targets: number of targets of the whole step.
            on_phase_end: see `train_step`.
        """
        sums = []
        for micro_batch in micro_batches:
            with self.autocast():
                loss_sum = self.loss(*micro_batch)
            # Dividing by the targets of the whole step makes accumulation equal to one large batch.
            loss = self.scaler.scale(loss_sum / n_targets)
            on_phase_end("forward")
            loss.backward()
            on_phase_end("backward")
            sums.append(loss_sum.detach())
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        return self.dist.all_reduce_gradients(self.weights, total)

    def check_finite(self, step: int, loss: float, norm: float, lr: float) -> None:
        """Raise if the loss or the gradient norm is not finite.

        In fp16 a non-finite norm is tolerated while GradScaler can still back off.

        Raises:
            UserError: one is not finite and not tolerated.
        """
        scaler_can_back_off = self.amp == "fp16" and self.scaler.get_scale() > 1.0
        if math.isfinite(loss) and (math.isfinite(norm) or scaler_can_back_off):
            return
        raise UserError(
            f"{self.run.path}: stopped: step {step + 1} had loss {loss}, "
            f"gradient norm {norm}, lr {lr:.3g}; nothing was saved after it, the earlier "
            "checkpoints are intact; try a lower --optim.lr in a new run"
        )

    def check_weights(self) -> None:
        """Check the weights before they are saved: a finite gradient can still overflow a weight.

        Raises:
            UserError: a weight is not finite.
        """
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise UserError(
                    f"{self.run.path}: stopped after step {self.step}: weight {name} is not finite"
                    "; the earlier checkpoints are intact; try a lower --optim.lr in a new run"
                )

    def evaluate(self) -> Evaluation:
        """Evaluate the whole validation split; see `evaluate_split`."""
        rest = (self.byte_lengths, self.autocast, self.dist, self.stop_evaluation)
        with self.average.in_use():
            return evaluate_split(self.model, self.batches, self.config.train.batch_size, *rest)

    def sample(self) -> str:
        """Sample a short text. The seed is fixed, so the text depends only on the weights."""
        train, end = self.config.train, self.tokenizer.eot_id
        prompt = [end, *self.tokenizer.encode(train.sample_prompt)]
        options = {"max_new_tokens": train.sample_tokens, "stop_id": end}
        seeds = sample_seeds(train.seed, 1)
        with self.average.in_use():
            (ids,) = generate_ids(self.model, [prompt], seeds=seeds, **options)
        return train.sample_prompt + self.tokenizer.decode([i for i in ids if i != end])

    def pop_metrics(self) -> dict[str, float]:
        """Return `flush_metrics`, and the tokens per second of the steps since the last call."""
        return self.flush_metrics() | {"tokens_per_s": self.throughput.pop_rate()}

    def evaluation_due(self) -> bool:
        """Return whether to evaluate now, after the latest step."""
        train = self.config.train
        return self.step == train.max_steps or self.step % train.eval_every_steps == 0

    def evaluate_and_save(self, run_log: RunLog | None, metrics: dict[str, float]) -> None:
        """Evaluate; write the metrics, a sample, best.pt (if the best, or missing), last.pt.

        Step 0 is never the best: its weights are untrained, or those that fine-tuning starts from.
        A kill between two writes is safe: resuming gives the same run. Only the main rank writes.

        Args:
            run_log: None in all processes but the main one.
            metrics: of the latest step, see `pop_metrics`; empty before the first step.

        Raises:
            EvaluationStoppedError: `stop_evaluation` returned True; nothing was written.
        """
        self.pending_evaluation = metrics
        result = self.evaluate()
        self.pending_evaluation = None
        self.last_val, self.val_step = result.nats_per_token, self.step
        improved = self.step > 0 and self.last_val < self.best_val  # False for NaN
        self.best_val = self.last_val if improved else self.best_val
        self.bad_evals = 0 if improved or self.step == 0 else self.bad_evals + 1
        self.check_weights()
        self.dist.check_weights_in_sync(self.weights)
        if run_log is None:
            return
        metrics = metrics | {
            "val_loss": self.last_val,
            "val_ppl": result.perplexity,
            "val_bpb": result.bits_per_byte,
        }
        run_log.write(self.row(metrics))
        worse = worse_than_start(self.run, self.last_val) if self.config.train.init_from else ""
        note = worse or (" (best)" if improved else "")
        log(f"step {self.step}: {self.summary(metrics, result)}{note}")
        if self.config.train.sample_tokens:
            run_log.write_sample(self.step, text := self.sample())
            log(f"  {text[:240]!r}")
        if self.finished() and self.run.plot.is_file():  # a kill must not leave the old plot
            self.run.plot.unlink()
        self.saver.wait()  # the last write may have made best.pt
        best = self.step > 0 and (improved or not self.run.best.exists())
        self.saver.save([self.run.best] * best + [self.run.last], self.state())

    def summary(self, metrics: dict[str, float], result: Evaluation) -> str:
        """Return the log line of an evaluation."""
        parts = [f"train {metrics['train_loss']:.4f}"] if "train_loss" in metrics else []
        parts.append(f"val {result.describe(self.floor_nats_per_byte)}")
        return ", ".join(parts)

    def row(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return the row of metrics.csv for the latest step."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "epoch": self.batches.epoch_at(self.step),
            **metrics,
            "tokens_per_s": round(metrics.get("tokens_per_s", 0.0), 1),
            "elapsed_s": round(self.elapsed_s, 3),
            "memory_bytes": device.peak_memory_bytes(self.device),
        }

    def finished(self) -> bool:
        """Return whether all steps are done, or early stopping has ended the run."""
        return is_finished(self.config.train, self.step, self.bad_evals)
