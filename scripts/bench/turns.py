"""Training steps of several contestants, each in a process of its own, in turns."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from scripts.bench.contestants import PARTS
from scripts.bench.process import run_job
from scripts.bench.timing import Spread
from settings import Config
from utils.config.load import flatten
from utils.errors import UserError
from utils.output import plain, table

WORKER = "scripts.bench.train_worker"


def require_same_shape(config: Config) -> None:
    """Checks that nanoGPT has a model and a step like ours.

    Raises:
        UserError: names the setting that it does not have.
    """
    model, wanted = config.model, {"position": "learned", "norm": "layernorm", "mlp": "gelu"}
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
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    modes = {}
    for mode in ("eager", "compiled") if compiled else ("eager",):
        results: dict[str, list[dict[str, Any]]] = {who: [] for who in whos}
        error = ""
        for turn in range(runs):
            # Who goes first changes, as machines slow down and speed up.
            for who in whos if turn % 2 == 0 else whos[::-1]:
                plain(f"turn {turn + 1}/{runs}: {who}, {mode}")
                job = {**common, "who": who, "compile": mode == "compiled"}
                figures = run_job(job, threads, WORKER, watched=False)
                if "error" in figures:
                    error = f"{who}: {figures['error']}"
                    break
                results[who].append(figures)
            if error:
                break
        modes[mode] = {"error": error} if error else summarise(results)
    return modes


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the turns, and the ratio of each turn."""
    record: dict[str, Any] = {}
    for who, turns in results.items():
        record[who] = {
            "tokens_per_s": asdict(Spread.of([turn["tokens_per_s"] for turn in turns])),
            "parts_s": {
                part: statistics.median(turn["parts_s"][part] for turn in turns) for part in PARTS
            },
            "peak_bytes": max(turn["peak_bytes"] for turn in turns),
        }
    if "nanogpt" in results:
        ratios = [
            ours["tokens_per_s"] / theirs["tokens_per_s"]
            for ours, theirs in zip(results["ours"], results["nanogpt"], strict=True)
        ]
        record["ratio"] = asdict(Spread.of(ratios))
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
