"""Measure tokens per second, FLOP/s and peak memory of training steps."""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.flops import count_parameters, training_flops_per_token, training_memory
from model.training.trainer import Trainer
from scripts.bench.contestants import (
    PHASES,
    SHAPES,
    LlmTiny,
    load_get_batch,
    time_phases,
    time_steps,
)
from scripts.bench.timing import Spread, Window, time_call
from scripts.bench.turns import check_same_shape, interleave, show_turns
from scripts.matmul_peak import matmul_peak
from train import Config, initial_settings
from utils.cli import nonnegative_int, positive_int
from utils.config.flags import add_flags, given_flags
from utils.config.load import load
from utils.device import describe_device, peak_memory_bytes, synchronize
from utils.errors import plural
from utils.output import log_if_not_tty, progress_bar

FORMULA = "3 x forward; forward = 2 per matrix weight + 4 D per layer and visible token, causal"
FETCHES = 20  # batches timed in measure_fetch
PHASE_STEPS = 20  # steps whose phases are timed separately
HELP = "speed and memory of training steps"
EXAMPLES = (
    "python -m scripts.bench train --config configs/tiny.yaml",
    "python -m scripts.bench train --shape nanogpt --nanogpt ../nanoGPT --compiled --runs 3",
)


def add_command(commands: Any) -> None:
    """Add the command `train` and its arguments."""
    parser = commands.add_parser("train", help=HELP, description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("--config", action="append", default=[], metavar="FILE", help="YAML file, as for train.py")
    about = "steps in a timed window (default: 10)"
    add("--steps-per-window", type=positive_int, default=10, help=about)
    add("--windows", type=positive_int, default=5, help="timed windows (default: 5)")
    about = "untimed steps before the windows (default: 5)"
    add("--warmup-steps", type=nonnegative_int, default=5, help=about)
    add("--shape", choices=SHAPES, help="a GPT-2-like model of this shape, on random tokens")
    add("--compiled", action="store_true", help="measure with torch.compile as well as without")
    add("--nanogpt", default="", metavar="FOLDER", help="nanoGPT checkout to compare with")
    about = "processes per program, with --nanogpt or --compiled (default: 3)"
    add("--runs", type=positive_int, default=3, help=about)
    add_flags(parser, Config)
    parser.set_defaults(measure=bench_train, show=show_train)


def bench_train(args: argparse.Namespace) -> dict[str, Any]:
    """Time training steps as train.py runs them, without evaluation and saving.

    Tokens are target tokens, as in the log: padding and ignored positions don't count.

    Raises:
        UserError: a setting is wrong, or nanoGPT has no model of this kind.
    """
    shape = {name: str(value) for name, value in SHAPES.get(args.shape, {}).items()}
    config, _ = load(Config, args.config, shape | given_flags(args, Config), initial_settings)
    counts = {name: getattr(args, name) for name in ("steps_per_window", "windows", "warmup_steps")}
    with tempfile.TemporaryDirectory() as scratch:
        if args.nanogpt:
            check_same_shape(config)
            # Only a check, before anything is timed.
            load_get_batch(Path(args.nanogpt), Path(scratch))
        ours = LlmTiny(config, Path(scratch), random=bool(args.shape))
        windows: list[Window] = []
        timed = time_steps(ours, counts)
        for window in progress_bar(timed, total=args.windows, desc="windows", leave=False):
            windows.append(window)
            log_if_not_tty(f"window {len(windows)}/{args.windows}: {window.rate:,.0f} tokens/s")
        rate = Spread.of([window.rate for window in windows])
        step_s = Spread.of([window.seconds / args.steps_per_window for window in windows])
        record = describe_training(ours.trainer, rate, step_s) | counts
        record["compile"] = ours.compiled  # false if torch.compile was asked for but failed
        record["parts_s"] = time_phases(ours, PHASE_STEPS)
        record |= measure_evaluation(ours.trainer)
    turns: dict[str, Any] = {}
    if args.nanogpt or args.compiled:
        turns = interleave(config, args, counts | {"phase_steps": PHASE_STEPS})
    return record | {"shape": args.shape, "runs": args.runs, "turns": turns}


def measure_evaluation(trainer: Trainer) -> dict[str, Any]:
    """Return the seconds of one evaluation, and the number of tokens that it scores."""
    tokens: list[int] = []
    seconds = time_call(
        lambda: tokens.append(trainer.evaluate().tokens), lambda: synchronize(trainer.device)
    )
    return {"evaluation_s": seconds, "evaluation_tokens": tokens[0]}


def peak_shares(trainer: Trainer, length: int, rate: float) -> dict[str, Any]:
    """Return FLOPs per token, counted in three ways, and the share of the peak by each count.

    Args:
        length: mean number of tokens in a row.
        rate: tokens per second.
    """
    model = trainer.config.model
    ways = {
        "causal": training_flops_per_token(model, length),
        "not_causal": training_flops_per_token(model, length, causal=False),
        # nanoGPT's estimate_mfu: all parameters except positions, attention over the whole row.
        "with_embeddings": 6.0
        * (count_parameters(model).total - count_parameters(model).position_embedding)
        + 12.0 * model.n_layer * model.qkv_sizes[0] * length,
    }
    peak = matmul_peak(trainer.device, trainer.amp)
    shares = {name: flops * rate / peak for name, flops in ways.items()}
    return {"matmul_peak_flops_per_s": peak, "peak_share": shares, "flops_by_way": ways}


def describe_training(trainer: Trainer, rate: Spread, step_s: Spread) -> dict[str, Any]:
    """Return the measured figures, and those derived from them."""
    config, peak = trainer.config, peak_memory_bytes(trainer.device)
    fetch_s, tokens, rows, positions = measure_fetch(trainer)
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
        "padding_share": 1 - tokens / positions,
        "fetch_s": fetch_s,
        "fetch_share": fetch_s / step_s.median,
        "parameters": count_parameters(config.model).total,
        "flops_per_token": flops,
        "flops_per_s": flops * rate.median,
        "flops_formula": FORMULA,
        **peak_shares(trainer, round(tokens / rows), rate.median),
        "peak_memory_bytes": peak,
        "estimated_memory_bytes": training_memory(config.model, config.train.batch_size).total,
    }


def measure_fetch(trainer: Trainer) -> tuple[float, int, int, int]:
    """Return the mean seconds to make a batch; targets, rows and positions of FETCHES batches."""
    seconds, tokens, rows, positions = 0.0, 0, 0, 0
    for step in range(FETCHES):
        start = time.perf_counter()
        batch, n_targets = trainer.batches.training_batch(step)
        seconds += time.perf_counter() - start
        tokens += n_targets
        ids_BT = batch[0]
        assert ids_BT is not None
        rows, positions = rows + len(ids_BT), positions + ids_BT.numel()
    return seconds / FETCHES, tokens, rows, positions


def show_train(record: dict[str, Any]) -> str:
    """Return the figures of `bench train` as text."""
    rate, step_ms = Spread(**record["tokens_per_s"]), Spread(**record["step_s"]).scaled(1000)
    shares, parts = record["peak_share"], record["parts_s"]
    whole, fetch_ms = sum(parts.values()), record["fetch_s"] * 1000
    mode = f"{record['amp'].replace('off', 'fp32')}, {'compiled' if record['compile'] else 'eager'}"
    rows = [
        ("device", f"{record['device']}, torch {record['torch']}, {mode}"),
        ("parameters", f"{record['parameters']:,}"),
        ("tokens/s", f"{rate:,.0f}"),
        ("step, ms", f"{step_ms:.1f}"),
        ("tokens per step", f"{record['tokens_per_step']:,.0f}"),
        ("padding", f"{record['padding_share']:.1%} of the positions"),
        ("making a batch", f"{fetch_ms:.2f} ms, {record['fetch_share']:.1%} of a step"),
        ("FLOPs per token", f"{record['flops_per_token']:,.0f} = {record['flops_formula']}"),
        ("FLOP/s", f"{record['flops_per_s'] / 1e9:,.1f} G"),
        ("matmul peak", f"{record['matmul_peak_flops_per_s'] / 1e9:,.1f} G FLOP/s, measured"),
        ("  share of it", f"{shares['causal']:.1%} = FLOPs per token x tokens/s / peak"),
        ("  not causal", f"{shares['not_causal']:.1%}, each token attends to its whole row"),
        ("  with embeddings", f"{shares['with_embeddings']:.1%}, by 6 N + 12 layers x D x T"),
        *[(part, f"{parts[part] * 1000:.2f} ms, {parts[part] / whole:.1%}") for part in PHASES],
        ("evaluation", f"{record['evaluation_s']:.2f} s, {record['evaluation_tokens']:,} tokens"),
        ("peak memory", f"{record['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        ("  for training", f"{record['estimated_memory_bytes'] / 2**20:,.0f} MiB (estimate)"),
    ]
    width = max(len(name) for name, _ in rows)
    windows, steps = record["windows"], record["steps_per_window"]
    note = f"median of {plural(windows, 'window')} of {plural(steps, 'step')} (low to high)"
    text = "\n".join([f"{name:<{width}}  {value}" for name, value in rows] + [note])
    turns = record["turns"]
    return f"{text}\n\n{show_turns(turns, record['runs'])}" if turns else text
