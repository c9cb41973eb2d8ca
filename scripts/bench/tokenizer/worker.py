"""One measurement in a process of its own: a job in JSON as argument, figures in JSON on stdout.

`scripts.bench tokenizer` starts it. So the peak memory of a training is its own, no tokenizer finds
the caches of another, and the number of cores is set before any library looks at it.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.bench.process import Figures, Job, do_job
from scripts.bench.tokenizer.peers import LOADERS, TRAINERS
from utils.processes import peak_rss_bytes

PROMPT_WORDS = 20
PROMPTS = 200


def train(job: Job) -> Figures:
    """Trains once. Reading the file is in the time, importing the library is not."""
    run = TRAINERS[job["who"]](job)
    seconds, cpu_s, tokens_of = timed(run)
    peak = peak_rss_bytes()
    tokens = tokens_of()
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_bytes": peak} | {
        "tokens": digest(tokens),
        "n": len(tokens),
    }


def digest(tokens: Sequence[bytes]) -> str:
    """Hex sha256 of the merged tokens in order: equal if the merges are."""
    lines = b"\n".join(token.hex().encode() for token in tokens)
    return hashlib.sha256(lines).hexdigest()


def encode(job: Job) -> Figures:
    """Encodes by each call of each library in turn, with a fresh tokenizer each time.

    One core because no call here starts threads or processes of its own: what CPU time says, too.
    Not by pinning to a core, which other programs may be busy on.
    """
    raw = Path(job["corpus"]).read_bytes()
    loaders = {who: LOADERS[who](job) for who in job["who"]}
    figures: Figures = {key: defaultdict(list) for key in ("load_s", "load_cpu_s", "prompt_us")}
    prompts = cut_prompts(raw[:100_000].decode("utf-8", "ignore"))
    for _ in range(job["runs"]):
        for who, load in loaders.items():
            gc.collect()
            seconds, cpu_s, calls = timed(load)
            figures["load_s"][who].append(seconds)
            figures["load_cpu_s"][who].append(cpu_s)
            call = next(iter(calls.values()))  # the one that gives a list
            times = [timed(call, prompt)[0] * 1e6 for prompt in prompts]
            figures["prompt_us"][who].append(statistics.median(times))
    texts = [raw[:size].decode("utf-8", "ignore") for size in job["sizes"]]
    return figures | {"texts": [encode_text(text, loaders, job["runs"]) for text in texts]}


def encode_text(text: str, loaders: dict[str, Any], runs: int) -> dict[str, Any]:
    """Seconds of each call on one text, and whether its ids are those of ours."""
    reference = list(loaders["ours"]()["encode"](text))
    names = [(who, name) for who, load in loaders.items() for name in load()]
    calls: dict[str, dict[str, Any]] = {}
    for who, name in names:  # before anything is timed
        ids = flat(loaders[who]()[name](text))
        calls[f"{who} {name}"] = {"seconds": [], "cpu_s": [], "equal": ids == reference}
    for _ in range(runs):
        for who, name in names:
            call = loaders[who]()[name]  # fresh: nothing of this text is remembered
            gc.collect()
            seconds, cpu_s, _ = timed(call, text)
            calls[f"{who} {name}"]["seconds"].append(seconds)
            calls[f"{who} {name}"]["cpu_s"].append(cpu_s)
    return {"bytes": len(text.encode()), "tokens": len(reference), "calls": calls}


def flat(ids: Any) -> list[int]:
    """The ids of a call as one list, whether it gave a list, an array or a list of lists."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if len(ids) and isinstance(ids[0], list):
        return [one for part in ids for one in part]
    return list(ids)


def cut_prompts(text: str) -> list[str]:
    """Different prompts of 20 words each, from the start of the text."""
    words = text.split()
    starts = range(0, min(len(words), PROMPTS * PROMPT_WORDS), PROMPT_WORDS)
    return [" ".join(words[start : start + PROMPT_WORDS]) for start in starts]


def timed(step: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Seconds by the clock and of all cores that `step` took, and what it returned."""
    cpu_s, start = spent_cpu_s(), time.perf_counter()
    result = step(*arguments)
    return time.perf_counter() - start, spent_cpu_s() - cpu_s, result


def spent_cpu_s() -> float:
    """CPU time of this process, its threads, and its processes that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def measure(job: Job) -> Figures:
    """Does the job that `scripts.bench tokenizer` asks for."""
    return {"train": train, "encode": encode}[job["what"]](job)


if __name__ == "__main__":
    do_job(measure)
