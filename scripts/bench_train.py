"""`python -m scripts.bench train`: tokens per second and memory of training steps."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from typing import Any

import torch
from tqdm import tqdm

from data.windows import IGNORE
from model.accounting import count_parameters, training_flops_per_token, training_memory
from pretrained import adopt
from settings import Config
from trainer import Trainer
from utils.config import load
from utils.device import describe_device, peak_memory_bytes, synchronize
from utils.errors import UserError
from utils.flags import add_flags, given_flags
from utils.measure import Spread, timed_windows
from utils.progress import plain
from utils.runs import RunFolder

FORMULA = "3 x forward; forward = 2 per matrix weight + 4 D per token looked at and layer, causal"
FETCHES = 20  # batches whose making is timed


def add_command(commands: Any) -> None:
    """The arguments of `bench train`."""
    parser = commands.add_parser("train", help="tokens per second and memory of training steps")
    parser.add_argument("--config", action="append", default=[], help="YAML file, as for train.py")
    parser.add_argument(
        "--steps-per-window", type=int, default=10, help="steps timed at once (default: 10)"
    )
    parser.add_argument("--windows", type=int, default=5, help="how often (default: 5)")
    parser.add_argument("--warmup-steps", type=int, default=5, help="untimed first (default: 5)")
    add_flags(parser, Config)
    parser.set_defaults(measure=bench_train, show=show_train)


def bench_train(args: argparse.Namespace) -> dict[str, Any]:
    """Times Trainer.train_step as train.py calls it; evaluation, logging and saving are not in it.

    Tokens are targets, as in the log: padding and ignored positions don't count.

    Raises:
        UserError: a count is too small, or a setting is wrong.
    """
    for name, least in (("steps_per_window", 1), ("windows", 1), ("warmup_steps", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')}: must be {least} or more")
    config, given = load(Config, args.config, given_flags(args, Config))
    config = adopt(config, given)
    with tempfile.TemporaryDirectory() as scratch:  # for messages alone: a step writes nothing
        trainer = Trainer(config, RunFolder(scratch), None)

        def step() -> int:
            before = trainer.tokens
            trainer.train_step()
            return trainer.tokens - before

        timed = timed_windows(
            step,
            steps=args.steps_per_window,
            windows=args.windows,
            warmup=args.warmup_steps,
            synchronize=lambda: synchronize(trainer.device),
        )
        windows = []
        for window in tqdm(timed, total=args.windows, desc="windows", disable=None, leave=False):
            windows.append(window)
            plain(f"window {len(windows)}/{args.windows}: {window.rate:,.0f} tokens/s")
    rate = Spread.of([window.rate for window in windows])
    step_s = Spread.of([window.seconds / args.steps_per_window for window in windows])
    return describe_training(trainer, rate, step_s) | {
        "windows": args.windows,
        "steps_per_window": args.steps_per_window,
        "warmup_steps": args.warmup_steps,
    }


def describe_training(trainer: Trainer, rate: Spread, step_s: Spread) -> dict[str, Any]:
    """Everything that was measured, and what follows from it."""
    config, peak = trainer.config, peak_memory_bytes(trainer.device)
    fetch_s, tokens, rows, places = measure_fetch(trainer)
    flops = training_flops_per_token(config.model, round(tokens / rows))
    return {
        "device": describe_device(trainer.device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "amp": trainer.amp,
        "compile": config.train.compile,
        "tokens_per_s": asdict(rate),
        "step_s": asdict(step_s),
        "tokens_per_step": tokens / FETCHES,
        "padding_share": 1 - tokens / places,
        "fetch_s": fetch_s,
        "fetch_share": fetch_s / step_s.median,
        "parameters": count_parameters(config.model).total,
        "flops_per_token": flops,
        "flops_per_s": flops * rate.median,
        "flops_formula": FORMULA,
        "peak_memory_bytes": peak,
        "estimated_memory_bytes": training_memory(config.model, config.train.batch_size).total,
    }


def measure_fetch(trainer: Trainer) -> tuple[float, int, int, int]:
    """Mean seconds to make a step's batch; targets, rows and positions of all that were made."""
    seconds, tokens, rows, places = 0.0, 0, 0, 0
    for step in range(FETCHES):
        start = time.perf_counter()
        batch = trainer.batches.get_batch("train", step)
        seconds += time.perf_counter() - start
        tokens += int((batch.y_BT != IGNORE).sum())
        rows, places = rows + len(batch.y_BT), places + batch.y_BT.numel()
    return seconds / FETCHES, tokens, rows, places


def show_train(record: dict[str, Any]) -> str:
    """The figures of `bench train` for people."""
    rate, step_ms = Spread(**record["tokens_per_s"]), Spread(**record["step_s"]).scaled(1000)
    mode = f"{record['amp'].replace('off', 'fp32')}, {'compiled' if record['compile'] else 'eager'}"
    rows = [
        ("device", f"{record['device']}, torch {record['torch']}, {mode}"),
        ("parameters", f"{record['parameters']:,}"),
        ("tokens/s", f"{rate:,.0f}"),
        ("step, ms", f"{step_ms:.1f}"),
        ("tokens in a step", f"{record['tokens_per_step']:,.0f}"),
        ("padding", f"{record['padding_share']:.1%} of the positions"),
        ("data", f"{record['fetch_s'] * 1000:.2f} ms, {record['fetch_share']:.1%} of a step"),
        ("FLOPs per token", f"{record['flops_per_token']:,.0f} = {record['flops_formula']}"),
        ("FLOP/s", f"{record['flops_per_s'] / 1e9:,.1f} G"),
        ("peak memory", f"{record['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        ("  of it training", f"{record['estimated_memory_bytes'] / 2**20:,.0f} MiB (estimate)"),
    ]
    width = max(len(name) for name, _ in rows)
    note = (
        f"median of {record['windows']} windows of {record['steps_per_window']} steps (low to high)"
    )
    return "\n".join([f"{name:<{width}}  {value}" for name, value in rows] + [note])
