"""Training steps of several contestants, each in a process of its own, in turns.

So each contestant has the memory, the allocator and the threads of a program of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from scripts.bench.contestants import PARTS, NanoGPT, Ours, Subject, clock_parts, timed_steps
from scripts.bench.process import Figures, Job, do_job, run_job
from scripts.bench.timing import Spread, ratios, summary
from train import Config
from utils.config.load import build
from utils.config.schema import flatten
from utils.device import peak_memory_bytes
from utils.errors import UserError
from utils.output import log_if_not_tty, table

WORKER = "scripts.bench.turns"


def require_same_shape(config: Config) -> None:
    """Checks that nanoGPT has a model and a step like ours.

    Raises:
        UserError: names the setting that it does not have.
    """
    model = config.model
    wanted: dict[str, object] = {"position": "learned", "norm": "layernorm", "mlp": "gelu"}
    wanted |= {"tie_weights": True, "qk_norm": False, "softcap": 0.0, "bigram_rows": 0}
    wanted |= {"pointer": False, "embedding_norm": False, "norm_gain": True, "mlp_ratio": 4.0}
    for name, value in wanted.items():
        if getattr(model, name) != value:
            raise UserError(
                f"--nanogpt: its model has model.{name} {value}, not {getattr(model, name)}; "
                "try --shape nanogpt"
            )
    if config.optim.name != "adamw" or config.train.grad_accum_steps != 1:
        raise UserError("--nanogpt: its step is timed with optim.name adamw, grad_accum_steps 1")


def take_turns(
    config: Config, counts: dict[str, int], *, runs: int, random: bool, nanogpt: str, compiled: bool
) -> dict[str, Any]:
    """Rates of all contestants, ours over nanoGPT's turn by turn, and the parts of their steps.

    Args:
        counts: steps_per_window, windows, warmup_steps, parts_steps.
        nanogpt: its checkout; "" leaves it out.
        compiled: measure compiled models beside eager ones.
    """
    whos = ["ours", "nanogpt"] if nanogpt else ["ours"]
    settings = {name: value for name, value in flatten(config).items() if name != "run_dir"}
    common = {"settings": settings, "random": random, **counts}
    common["nanogpt"] = str(Path(nanogpt).absolute()) if nanogpt else ""
    modes = ("eager", "compiled") if compiled else ("eager",)
    return {mode: turns_of(mode, whos, common, runs) for mode in modes}


def turns_of(mode: str, whos: list[str], common: Job, runs: int) -> dict[str, Any]:
    """What `summarise` makes of all turns in one mode; {"error": why} as soon as one fails."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    results: dict[str, list[Figures]] = {who: [] for who in whos}
    for turn in range(runs):
        # Who goes first changes, as machines slow down and speed up.
        for who in whos if turn % 2 == 0 else whos[::-1]:
            log_if_not_tty(f"turn {turn + 1}/{runs}: {who}, {mode}")
            job = {**common, "who": who, "compile": mode == "compiled"}
            figures = run_job(job, threads, WORKER)
            if "error" in figures:
                return {"error": f"{who}: {figures['error']}"}
            results[who].append(figures)
    return summarise(results)


def measure(job: Job) -> Figures:
    """Tokens per second and the parts of a step of one contestant, in a separate process."""
    settings = {  # JSON has no tuples
        name: tuple(value) if isinstance(value, list) else value
        for name, value in job["settings"].items()
    }
    config = build(Config, settings | {"train.compile": job["compile"]})
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    with tempfile.TemporaryDirectory() as scratch:
        subject: Subject
        if job["who"] == "nanogpt":
            subject = NanoGPT(Path(job["nanogpt"]), config, Path(scratch))
        else:
            subject = Ours(config, Path(scratch), random=job["random"])
        if job["compile"] and not subject.compiled:
            return {"error": "torch.compile does not work here"}
        rate = Spread.of([window.rate for window in timed_steps(subject, job)])
        parts = clock_parts(subject, job["parts_steps"])
    peak = peak_memory_bytes(subject.device)
    return {"tokens_per_s": rate.median, "parts_s": parts, "peak_bytes": peak}


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the turns, and the ratio of each turn."""
    record: dict[str, Any] = {}
    for who, turns in results.items():
        record[who] = {
            "tokens_per_s": summary([turn["tokens_per_s"] for turn in turns]),
            "parts_s": {
                part: statistics.median(turn["parts_s"][part] for turn in turns) for part in PARTS
            },
            "peak_bytes": max(turn["peak_bytes"] for turn in turns),
        }
    if "nanogpt" in results:
        rates = [[turn["tokens_per_s"] for turn in results[who]] for who in ("ours", "nanogpt")]
        record["ratio"] = ratios(*rates)
    return record


def show_turns(modes: dict[str, Any], runs: int) -> str:
    """A table for each mode: rates, ratio, and where a step's time goes."""
    texts = []
    for mode, record in modes.items():
        if "error" in record:
            texts.append(f"{mode}: not measured, {record['error']}")
            continue
        rows = []
        for who in (who for who in ("ours", "nanogpt") if who in record):
            one = record[who]
            rows.append(
                [
                    who,
                    f"{Spread(**one['tokens_per_s']):,.0f}",
                    *(f"{one['parts_s'][part] * 1000:.2f}" for part in PARTS),
                    f"{one['peak_bytes'] / 2**20:,.0f}",
                ]
            )
        head = [mode, "tokens/s", *(f"{part}, ms" for part in PARTS), "peak MiB"]
        text = table(head, rows)
        if "ratio" in record:
            text += f"\nours / nanogpt: {Spread(**record['ratio']):.3f}"
        texts.append(text)
    note = f"processes in turn, {runs} each: median (low to high); peak: memory of the process"
    return "\n\n".join([*texts, note])


if __name__ == "__main__":
    do_job(measure)
