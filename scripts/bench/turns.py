"""Time the training steps of several contestants in turns, each turn in a new process.

A separate process gives each contestant its own memory, allocator and threads.
"""

import statistics
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from model.config import ModelConfig
from scripts.bench.checkout import FIELDS
from scripts.bench.contestants import PHASES, Contestant, LlmTiny, NanoGPT, time_phases, time_steps
from scripts.bench.process import Figures, Job, run_job, run_worker
from scripts.bench.timing import Spread, ratios, summary
from scripts.report import table
from train import Config
from utils.config.load import build
from utils.config.schema import flatten
from utils.device import peak_memory_bytes
from utils.errors import UserError
from utils.output import log_if_not_tty

WORKER = "scripts.bench.turns"


def check_same_shape(config: Config) -> None:
    """Check that nanoGPT has the same model and the same training step.

    Raises:
        UserError: names the setting that nanoGPT does not support.
    """
    theirs = ModelConfig(position="learned", tie_weights=True)
    for name, value in flatten(theirs).items():
        if name not in FIELDS and (ours := getattr(config.model, name)) != value:
            raise UserError(
                f"--nanogpt: its model has model.{name} {value}, not {ours}; try --shape nanogpt"
            )
    if config.optim.name != "adamw" or config.train.grad_accum_steps != 1:
        raise UserError(
            "--nanogpt: its step needs optim.name adamw and train.grad_accum_steps 1; set them"
        )


def interleave(config: Config, args: Namespace, counts: dict[str, int]) -> dict[str, Any]:
    """Return mode (eager, compiled) -> each program's figures, and our rate divided by nanoGPT's.

    Args:
        args: of `bench train`.
        counts: steps_per_window, windows, warmup_steps, phase_steps.
    """
    names = ["ours", "nanogpt"] if args.nanogpt else ["ours"]
    settings = {name: value for name, value in flatten(config).items() if name != "run_dir"}
    common = {"settings": settings, "random": bool(args.shape), **counts}
    common["nanogpt"] = str(Path(args.nanogpt).absolute()) if args.nanogpt else ""
    modes = ("eager", "compiled") if args.compiled else ("eager",)
    return {mode: run_turns(mode, names, common, args.runs) for mode in modes}


def run_turns(mode: str, names: list[str], common: Job, runs: int) -> dict[str, Any]:
    """Run all turns of one mode; return their summary, or {"error": reason} if one fails."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    results: dict[str, list[Figures]] = {name: [] for name in names}
    for turn in range(runs):
        # Alternate the order, so that a machine that slows down or speeds up favours neither.
        for name in names if turn % 2 == 0 else names[::-1]:
            log_if_not_tty(f"turn {turn + 1}/{runs}: {name}, {mode}")
            job = {**common, "name": name, "compile": mode == "compiled"}
            figures = run_job(job, threads, WORKER)
            if "error" in figures:
                return {"error": f"{name}: {figures['error']}"}
            results[name].append(figures)
    return summarise(results)


def measure(job: Job) -> Figures:
    """Return tokens per second, phase times and peak memory of one contestant in this process."""
    settings = {  # JSON has no tuples
        name: tuple(value) if isinstance(value, list) else value
        for name, value in job["settings"].items()
    }
    config = build(Config, settings | {"train.compile": job["compile"]})
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    with tempfile.TemporaryDirectory() as scratch:
        contestant: Contestant
        if job["name"] == "nanogpt":
            contestant = NanoGPT(Path(job["nanogpt"]), config, Path(scratch))
        else:
            contestant = LlmTiny(config, Path(scratch), random=job["random"])
        if job["compile"] and not contestant.compiled:
            return {"error": "torch.compile does not work here"}
        # The job has the counts that time_steps reads, among other keys.
        rate = Spread.of([window.rate for window in time_steps(contestant, job)])
        parts = time_phases(contestant, job["phase_steps"])
    peak = peak_memory_bytes(contestant.device)
    return {"tokens_per_s": rate.median, "parts_s": parts, "peak_bytes": peak}


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return each contestant's median figures over its turns, and the spread of the ratio."""
    record: dict[str, Any] = {}
    for name, turns in results.items():
        record[name] = {
            "tokens_per_s": summary([turn["tokens_per_s"] for turn in turns]),
            "parts_s": {
                phase: statistics.median(turn["parts_s"][phase] for turn in turns)
                for phase in PHASES
            },
            "peak_bytes": max(turn["peak_bytes"] for turn in turns),
        }
    if "nanogpt" in results:
        rates = [[turn["tokens_per_s"] for turn in results[name]] for name in ("ours", "nanogpt")]
        record["ratio"] = ratios(*rates)
    return record


def show_turns(modes: dict[str, Any], runs: int) -> str:
    """Return a table for each mode: rates, ratio, phase times and memory."""
    texts = []
    for mode, record in modes.items():
        if "error" in record:
            texts.append(f"{mode}: not measured, {record['error']}")
            continue
        rows = []
        for name in (name for name in ("ours", "nanogpt") if name in record):
            one = record[name]
            rate, peak = Spread(**one["tokens_per_s"]), one["peak_bytes"] / 2**20
            parts_ms = [f"{one['parts_s'][phase] * 1000:.2f}" for phase in PHASES]
            rows.append([name, f"{rate:,.0f}", *parts_ms, f"{peak:,.0f}"])
        head = [mode, "tokens/s", *(f"{phase}, ms" for phase in PHASES), "peak MiB"]
        text = table(head, rows)
        if "ratio" in record:
            text += f"\nours / nanogpt: {Spread(**record['ratio']):.3f}"
        texts.append(text)
    note = f"{runs} processes each, in turns: median (low to high); peak: memory of the process"
    return "\n\n".join([*texts, note])


if __name__ == "__main__":
    run_worker(measure)
