"""What `scripts.bench train` times: our trainer, and nanoGPT's model in its own loop's steps."""

from __future__ import annotations

import ast
import contextlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
import torch

from data.dataset import Dataset
from data.token_file import token_writer
from model.config import ModelConfig
from model.linear import linear
from model.training.step_log import StepLog
from scripts.bench.checkout import load_module, make_model, require_checkout
from scripts.bench.timing import Window, seconds_of, timed_windows
from tok.tokenizer import BPETokenizer
from train import Config, build_trainer
from utils import device
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.log import RunLog

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("data", "forward", "backward", "clip", "optimizer", "logging")
RANDOM_TOKENS = 1_000_000
LOG_EVERY = 10  # steps between the lines that nanoGPT's recipe prints

CLASSIC = {
    "model.position": "learned",
    "model.tie_weights": "true",
    "model.mlp": "gelu",
    "model.norm": "layernorm",
    "model.dropout": 0.0,
    "optim.weight_decay": 0.1,
    "optim.grad_clip": 1.0,
    "train.log_every_steps": LOG_EVERY,
    "train.max_steps": 100_000,
    "train.eval_every_steps": 100_000,
    "train.sample_tokens": 0,
}


def classic(
    layers: int, heads: int, width: int, block: int, rows: int, vocabulary: int
) -> dict[str, Any]:
    """Settings of a classic model of this shape, without biases as nanoGPT's recipes have it."""
    return CLASSIC | {
        "model.n_layer": layers,
        "model.n_head": heads,
        "model.n_embd": width,
        "model.block_size": block,
        "model.vocab_size": vocabulary,
        "train.batch_size": rows,
    }


# Of nanoGPT: its recipe for a CPU, that for a GPU, and GPT-2 small.
SHAPES = {
    "nanogpt": classic(4, 4, 128, 64, 12, 65),
    "nanogpt-gpu": classic(6, 6, 384, 256, 64, 65),
    "gpt2": classic(12, 12, 768, 1024, 12, 50304),
}


class Subject(Protocol):
    """Something that trains step by step."""

    device: torch.device
    compiled: bool

    def step(self, mark: Callable[[str], object]) -> int:
        """One step with its logging; the number of targets. `mark` is told each part's end."""
        ...


@dataclass(frozen=True)
class RandomTokens:
    """Stands in for a tokenizer of random tokens; each counts as a byte."""

    vocab_size: int
    identity: str = "random tokens"
    eot_id: int = 0

    @property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of each id."""
        return np.ones(self.vocab_size, dtype=np.int64)


def random_data(folder: Path, model: ModelConfig) -> Dataset:
    """Draw random tokens into a folder, to measure a shape for which there is no text."""
    n_tokens = max(RANDOM_TOKENS, 2 * model.block_size)
    write_random(folder, model.vocab_size, n_tokens)
    meta = {"identity": "", "train": {"tokens": n_tokens, "documents": 1}}
    tokenizer = cast(BPETokenizer, RandomTokens(model.vocab_size))
    return Dataset(folder, meta, tokenizer, "packed", None, "")


def write_random(folder: Path, vocab_size: int, n_tokens: int) -> None:
    """train.npy and val.npy of random tokens; validation is a tenth of it."""
    rng = np.random.default_rng(1)
    for split, n in (("train", n_tokens), ("val", n_tokens // 10)):
        with token_writer(folder / f"{split}.npy", vocab_size) as writer:
            writer.write(rng.integers(0, vocab_size, n))


class Ours:
    """Our trainer as train.py drives it; evaluations and checkpoints are left out."""

    def __init__(self, config: Config, scratch: Path, *, random: bool) -> None:
        data = random_data(scratch, config.model) if random else None
        self.trainer, _ = build_trainer(config, RunFolder(scratch), data=data)
        self.device = self.trainer.device
        self.compiled = self.trainer.compiled
        self.log = StepLog(self.trainer, RunLog(RunFolder(scratch)), quiet=True)

    def step(self, mark: Callable[[str], object]) -> int:
        """As train.fit does it."""
        before = self.trainer.tokens
        self.trainer.train_step(mark)
        self.log.after_step()
        mark("logging")
        return self.trainer.tokens - before


class NanoGPT:
    """nanoGPT's model.GPT, the optimizer it configures, its get_batch, and its loop's step."""

    def __init__(self, checkout: Path, config: Config, scratch: Path) -> None:
        model, train = config.model, config.train
        self.device = device.pick_device(train.device)
        kind = self.device.type
        if kind == "cuda":  # as its train.py sets them
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        amp = device.pick_amp(train.amp, self.device)
        self.autocast = device.autocast(self.device, amp)
        self.raw = make_model(checkout, model).to(self.device)
        optim = config.optim
        with contextlib.redirect_stdout(sys.stderr):
            self.optimizer = self.raw.configure_optimizers(
                optim.weight_decay, optim.lr, optim.betas, kind
            )
        self.scaler = torch.amp.GradScaler(kind, enabled=amp == "fp16")
        data = own_get_batch(checkout, scratch)
        rng = np.random.default_rng(1)
        n_tokens = max(RANDOM_TOKENS, 2 * model.block_size)
        rng.integers(0, model.vocab_size, n_tokens).astype(np.uint16).tofile(scratch / "train.bin")
        vars(data).update(data_dir=str(scratch), device_type=kind, device=self.device)
        vars(data).update(block_size=model.block_size, batch_size=train.batch_size)
        self.get_batch = data.get_batch
        self.clip, self.steps = optim.grad_clip, 0
        self.batch = self.get_batch("train")
        self.model: Callable[..., Any] = self.raw
        if train.compile:
            self.model = device.compile_or_eager(
                self.raw, self.autocast, *self.batch, output_index=1
            )
        self.compiled = self.model is not self.raw

    def step(self, mark: Callable[[str], object]) -> int:
        """One round of its training loop, in its order; no gradients are accumulated."""
        ids, targets = self.batch
        with self.autocast():
            _, loss = self.model(ids, targets)
        mark("forward")
        self.batch = self.get_batch("train")
        mark("data")
        self.scaler.scale(loss).backward()
        mark("backward")
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.raw.parameters(), self.clip)
        mark("clip")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        mark("optimizer")
        self.steps += 1
        if self.steps % LOG_EVERY == 0:
            print(f"iter {self.steps}: loss {loss.item():.4f}", file=sys.stderr)
        mark("logging")
        return targets.numel()


def own_get_batch(checkout: Path, scratch: Path) -> ModuleType:
    """A module that holds the get_batch of a checkout's train.py, which can't be imported itself.

    Raises:
        UserError: train.py is missing or has none.
    """
    require_checkout(checkout, "train.py", "model.py")
    program = checkout / "train.py"
    source = program.read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_batch":
            head = "import os\nimport numpy as np\nimport torch\n\n"
            path = scratch / "nanogpt_get_batch.py"
            path.write_text(head + (ast.get_source_segment(source, node) or ""), encoding="utf-8")
            return load_module(path, path.stem)
    raise UserError(f"{program}: has no get_batch")


def timed_steps(subject: Subject, counts: Mapping[str, int]) -> Iterator[Window]:
    """Times steps as `counts` says: steps_per_window, windows, warmup_steps."""
    return timed_windows(
        lambda: subject.step(lambda part: None),
        steps=counts["steps_per_window"],
        windows=counts["windows"],
        warmup=counts["warmup_steps"],
        synchronize=lambda: device.synchronize(subject.device),
    )


def clock_parts(subject: Subject, steps: int) -> dict[str, float]:
    """Median seconds of each part of a step; on a GPU each part is waited for, which costs time."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(steps):
        spent = dict.fromkeys(PARTS, 0.0)
        device.synchronize(subject.device)
        last = time.perf_counter()

        def mark(part: str, spent: dict[str, float] = spent) -> None:
            nonlocal last
            device.synchronize(subject.device)
            now = time.perf_counter()
            spent[part] += now - last
            last = now

        subject.step(mark)
        for part, value in spent.items():
            seconds[part].append(value)
    # Means of logging, whose cost falls on a step in ten.
    return {
        part: statistics.fmean(each) if part == "logging" else statistics.median(each)
        for part, each in seconds.items()
    }


def matmul_peak(on: torch.device, amp: str) -> float:
    """FLOP/s of the fastest square product found here, in the number format of training."""
    dtype = device.DTYPES.get(amp, torch.float32)
    best = 0.0
    for size in (512, 1024) if on.type == "cpu" else (4096, 8192):
        left = torch.randn(size, size, device=on, dtype=dtype)
        right = torch.randn(size, size, device=on, dtype=dtype)
        for product in (torch.mm, lambda x, y: linear(x[None], y)) * 10:
            seconds = seconds_of(partial(product, left, right), partial(device.synchronize, on))
            best = max(best, 2.0 * size**3 / seconds)
    return best
