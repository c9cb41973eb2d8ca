"""The contestants of `scripts.bench train`: our trainer, and nanoGPT's model and training loop."""

import ast
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from data.dataset import Dataset
from data.token_file import token_writer
from model.config import ModelConfig
from model.training.duration import PhaseClock
from model.training.step_log import StepLog
from scripts.bench.checkout import check_checkout, load_module, make_model
from scripts.bench.timing import Window, time_windows
from tok.tokenizer import BPETokenizer
from train import Config, build_trainer
from utils import device
from utils.config.tables import read_table
from utils.errors import UserError
from utils.files import write_atomic
from utils.run.folder import RunFolder
from utils.run.log import RunLog

PHASES = ("data", "forward", "backward", "clip", "optimizer", "logging")
RANDOM_TOKENS = 1_000_000
LOG_EVERY = 10  # steps between two log lines, as in nanoGPT's recipe
TABLES = read_table(Path(__file__).with_name("shapes.yaml"))
# Settings become text, as given to a flag.
SHAPES: dict[str, dict[str, Any]] = {
    name: TABLES["training"] | shape for name, shape in TABLES["train"].items()
}


@dataclass(frozen=True)
class RandomTokens:
    """Replaces the tokenizer where the tokens are random. Each token counts as one byte."""

    vocab_size: int
    identity: str = "random tokens"
    eot_id: int = 0

    @property
    def byte_lengths(self) -> np.ndarray:
        """The number of bytes of each token id, int64."""
        return np.ones(self.vocab_size, dtype=np.int64)


def random_data(folder: Path, model: ModelConfig) -> Dataset:
    """Write random tokens into a folder and return them as a data set, to time any model shape."""
    n_tokens, rng = max(RANDOM_TOKENS, 2 * model.block_size), np.random.default_rng(1)
    for split, n in (("train", n_tokens), ("val", n_tokens // 10)):
        with token_writer(folder / f"{split}.npy", model.vocab_size) as writer:
            writer.write(rng.integers(0, model.vocab_size, n))
    meta = {"identity": "", "train": {"tokens": n_tokens, "documents": 1}}
    tokenizer = cast(BPETokenizer, RandomTokens(model.vocab_size))
    return Dataset(folder, meta, tokenizer, val_windows="packed", floor=None, note="")


class LlmTiny:
    """Our trainer as train.py runs it, without evaluations and checkpoints."""

    def __init__(self, config: Config, scratch: Path, *, random: bool) -> None:
        data = random_data(scratch, config.model) if random else None
        self.trainer, _ = build_trainer(config, RunFolder(scratch), data=data)
        self.device = self.trainer.device
        self.compiled = self.trainer.compiled
        self.log = StepLog(self.trainer, RunLog(RunFolder(scratch)), quiet=True)

    def step(self, on_phase_end: Callable[[str], object]) -> int:
        """Run one step as `model.training.fit.fit` does; return the number of target tokens.

        `on_phase_end` is called with the name of each phase when that phase ends.
        """
        before = self.trainer.tokens
        self.trainer.train_step(on_phase_end)
        self.log.after_step()
        on_phase_end("logging")
        return self.trainer.tokens - before


class NanoGPT:
    """nanoGPT's model, optimizer and get_batch, and one step of nanoGPT's training loop."""

    def __init__(self, checkout: Path, config: Config, scratch: Path) -> None:
        model, train, optim = config.model, config.train, config.optim
        self.device = device.pick_device(train.device)
        kind = self.device.type
        if kind == "cuda":  # as nanoGPT's train.py sets them
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        amp = device.pick_amp(train.amp, self.device)
        self.autocast = device.autocast(self.device, amp)
        self.raw = make_model(checkout, model).to(self.device)
        with contextlib.redirect_stdout(sys.stderr):
            self.optimizer = self.raw.configure_optimizers(
                optim.weight_decay, optim.lr, optim.betas, kind
            )
        self.scaler = torch.amp.GradScaler(kind, enabled=amp == "fp16")
        data = load_get_batch(checkout, scratch)
        rng = np.random.default_rng(1)
        n_tokens = max(RANDOM_TOKENS, 2 * model.block_size)
        tokens = rng.integers(0, model.vocab_size, n_tokens).astype(np.uint16)
        write_atomic(scratch / "train.bin", tokens.tobytes())
        # get_batch reads these settings as global variables of its module.
        sizes = {"block_size": model.block_size, "batch_size": train.batch_size}
        vars(data).update(data_dir=str(scratch), device_type=kind, device=self.device, **sizes)
        self.get_batch = data.get_batch
        self.clip, self.steps = optim.grad_clip, 0
        self.batch = self.get_batch("train")
        self.model: Callable[..., Any] = self.raw
        if train.compile:
            self.model = device.compile_or_eager(self.raw, self.autocast, *self.batch)
        self.compiled = self.model is not self.raw

    def step(self, on_phase_end: Callable[[str], object]) -> int:
        """Run one iteration of nanoGPT's training loop, in its order; see `LlmTiny.step`."""
        ids, targets = self.batch
        with self.autocast():
            _, loss = self.model(ids, targets)
        on_phase_end("forward")
        self.batch = self.get_batch("train")
        on_phase_end("data")
        self.scaler.scale(loss).backward()
        on_phase_end("backward")
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.raw.parameters(), self.clip)
        on_phase_end("clip")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        on_phase_end("optimizer")
        self.steps += 1
        if self.steps % LOG_EVERY == 0:
            print(f"iter {self.steps}: loss {loss.item():.4f}", file=sys.stderr)
        on_phase_end("logging")
        return targets.numel()


Contestant = LlmTiny | NanoGPT  # training programs whose steps can be timed


def load_get_batch(checkout: Path, scratch: Path) -> ModuleType:
    """Return a module with the get_batch of a checkout's train.py.

    train.py itself can't be imported: it starts a training.

    Raises:
        UserError: train.py is missing or has no get_batch.
    """
    check_checkout(checkout, "train.py", "model.py")
    program = checkout / "train.py"
    source = program.read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_batch":
            head = "import os\nimport numpy as np\nimport torch\n\n"
            path = scratch / "nanogpt_get_batch.py"
            path.write_text(head + (ast.get_source_segment(source, node) or ""), encoding="utf-8")
            return load_module(path, path.stem)
    raise UserError(f"{program}: has no get_batch; name nanoGPT's own folder")


def time_steps(contestant: Contestant, counts: Mapping[str, int]) -> Iterator[Window]:
    """Yield timed windows of steps. `counts` has steps_per_window, windows and warmup_steps."""
    return time_windows(
        lambda: contestant.step(lambda phase: None),
        steps=counts["steps_per_window"],
        windows=counts["windows"],
        warmup=counts["warmup_steps"],
        synchronize=lambda: device.synchronize(contestant.device),
    )


def time_phases(contestant: Contestant, steps: int) -> dict[str, float]:
    """Return the median seconds of each phase of a step; for logging, the mean."""
    found = []
    for _ in range(steps):
        clock = PhaseClock(contestant.device)
        contestant.step(clock)
        found.append(clock.seconds)
    # Only every LOG_EVERY-th step logs, so the median of logging would be about 0.
    return {
        phase: (fmean if phase == "logging" else median)([one[phase] for one in found])
        for phase in PHASES
    }
