"""Run one measurement in a separate process: the job is a JSON argument, stdout gets JSON figures.

`scripts.bench tokenizer` starts it. A separate process has its own peak memory and no warm caches
of another tokenizer, and the number of cores is set before any library reads it.
"""

import gc
import hashlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts.bench.process import Figures, Job, run_worker
from scripts.bench.tokenizer.peers import LOADERS, TRAINERS
from utils.processes import peak_rss_bytes

PROMPT_WORDS = 20
PROMPTS = 200


def train(job: Job) -> Figures:
    """Train once; return the figures. The time includes reading the file, but not the import."""
    run, tokens_of = TRAINERS[job["name"]](job)
    seconds, cpu_s, trained = time_call(run)
    peak = peak_rss_bytes()
    tokens = tokens_of(trained)
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_bytes": peak} | {
        "tokens": tokens_digest(tokens),
        "n": len(tokens),
    }


def tokens_digest(tokens: Sequence[bytes]) -> str:
    """Return the hex sha256 of the merged tokens in order."""
    lines = b"\n".join(token.hex().encode() for token in tokens)
    return hashlib.sha256(lines).hexdigest()


def encode(job: Job) -> Figures:
    """Time each call of each library in turns, with a newly loaded tokenizer each time.

    One core is used because no call here starts threads or processes; the CPU time confirms it. The
    process is not pinned to a core, as another program may be using that core.
    """
    raw = Path(job["corpus"]).read_bytes()
    loaders = {name: partial(LOADERS[name], job) for name in job["names"]}
    for load in loaders.values():
        load()  # imports the library, which is not timed
    figures: Figures = {key: defaultdict(list) for key in ("load_s", "load_cpu_s", "prompt_us")}
    prompts = cut_prompts(raw[:100_000].decode("utf-8", "ignore"))
    for _ in range(job["runs"]):
        for name, load in loaders.items():
            gc.collect()
            seconds, cpu_s, calls = time_call(load)
            figures["load_s"][name].append(seconds)
            figures["load_cpu_s"][name].append(cpu_s)
            call = next(iter(calls.values()))  # the call that returns a list
            times = [time_call(call, prompt)[0] * 1e6 for prompt in prompts]
            figures["prompt_us"][name].append(statistics.median(times))
    texts = [raw[:size].decode("utf-8", "ignore") for size in job["sizes"]]
    return figures | {"texts": [encode_text(text, loaders, job["runs"]) for text in texts]}


def encode_text(text: str, loaders: dict[str, Any], runs: int) -> dict[str, Any]:
    """Return the seconds of each call on one text, and whether its ids equal ours."""
    reference = list(loaders["ours"]()["encode"](text))
    names = [(name, method) for name, load in loaders.items() for method in load()]
    calls: dict[str, dict[str, Any]] = {}
    for name, method in names:  # compare all ids before timing
        ids = flatten_ids(loaders[name]()[method](text))
        calls[f"{name} {method}"] = {"seconds": [], "cpu_s": [], "equal": ids == reference}
    for _ in range(runs):
        for name, method in names:
            call = loaders[name]()[method]  # newly loaded: its caches hold nothing of this text
            gc.collect()
            seconds, cpu_s, _ = time_call(call, text)
            calls[f"{name} {method}"]["seconds"].append(seconds)
            calls[f"{name} {method}"]["cpu_s"].append(cpu_s)
    return {"bytes": len(text.encode()), "tokens": len(reference), "calls": calls}


def flatten_ids(ids: Any) -> list[int]:
    """Return the ids of a call as one list, from a list, an array or a list of lists."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if len(ids) and isinstance(ids[0], list):
        return [one for part in ids for one in part]
    return list(ids)


def cut_prompts(text: str) -> list[str]:
    """Return different prompts of PROMPT_WORDS words from the start of the text."""
    words = text.split()
    starts = range(0, min(len(words), PROMPTS * PROMPT_WORDS), PROMPT_WORDS)
    return [" ".join(words[start : start + PROMPT_WORDS]) for start in starts]


def time_call(step: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Return the wall-clock seconds and CPU seconds of a call, and its result."""
    cpu_s, start = cpu_seconds(), time.perf_counter()
    result = step(*arguments)
    return time.perf_counter() - start, cpu_seconds() - cpu_s, result


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, its threads, and its finished child processes."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def measure(job: Job) -> Figures:
    """Do a job of `scripts.bench tokenizer`; return its figures."""
    return {"train": train, "encode": encode}[job["what"]](job)


if __name__ == "__main__":
    run_worker(measure)
