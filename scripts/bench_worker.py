"""One measurement in a process of its own: a job in JSON as argument, figures in JSON on stdout.

`scripts.bench tokenizer` starts it. So the peak memory of a training is its own, no tokenizer finds
the caches of another, and the number of cores is set before any library looks at it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.bench_peers import LOADERS, TRAINERS
from scripts.bench_process import peak_rss_bytes

PROMPT_WORDS = 20
PROMPTS = 200


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Trains once. Reading the file is in the time, importing the library is not."""
    prepare = TRAINERS[job["who"]]
    run = prepare(job)
    start = time.perf_counter()
    tokens_of = run()
    seconds = time.perf_counter() - start
    peak = peak_rss_bytes()
    tokens = tokens_of()
    return {"seconds": seconds, "peak_bytes": peak, "tokens": digest(tokens), "n": len(tokens)}


def digest(tokens: Sequence[bytes]) -> str:
    """Hex sha256 of the merged tokens in order: equal if the merges are."""
    lines = b"\n".join(token.hex().encode() for token in tokens)
    return hashlib.sha256(lines).hexdigest()


def encode(job: dict[str, Any]) -> dict[str, Any]:
    """Encodes by each call of each library in turn, with a fresh tokenizer each time."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    text = Path(job["corpus"]).read_bytes()[: max(job["sizes"])].decode("utf-8", "ignore")
    loaders = {who: LOADERS[who](job) for who in job["who"]}
    figures: dict[str, Any] = {"load_s": {}, "prompt_us": {}, "texts": []}
    load_s: dict[str, list[float]] = figures["load_s"]
    prompts = cut_prompts(text)
    for _ in range(job["runs"]):
        for who, load in loaders.items():
            gc.collect()
            seconds, calls = timed(load)
            load_s.setdefault(who, []).append(seconds)
            call = next(iter(calls.values()))  # the one that gives a list
            times = [timed(call, prompt)[0] * 1e6 for prompt in prompts]
            figures["prompt_us"].setdefault(who, []).append(statistics.median(times))
    for size in job["sizes"]:
        part = text.encode()[:size].decode("utf-8", "ignore")
        figures["texts"].append(encode_text(part, loaders, job["runs"]))
    return figures


def encode_text(text: str, loaders: dict[str, Any], runs: int) -> dict[str, Any]:
    """Seconds of each call on one text, and whether its ids are those of ours."""
    n_bytes = len(text.encode())
    reference = list(loaders["ours"]()["encode"](text))
    seconds: dict[str, list[float]] = {}
    equal: dict[str, bool] = {}
    for who, load in loaders.items():
        for name in load():  # before anything is timed
            ids = load()[name](text)
            equal[f"{who} {name}"] = flat(ids) == reference
    for _ in range(runs):
        for who, load in loaders.items():
            for name in load():
                call = load()[name]  # fresh: nothing of this text is remembered
                gc.collect()
                taken, _ = timed(call, text)
                seconds.setdefault(f"{who} {name}", []).append(taken)
    return {"bytes": n_bytes, "tokens": len(reference), "seconds": seconds, "equal": equal}


def flat(ids: Any) -> list[int]:
    """The ids of a call as one list, whether it gave a list, an array or a list of lists."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if len(ids) and isinstance(ids[0], list):
        return [one for part in ids for one in part]
    return list(ids)


def cut_prompts(text: str) -> list[str]:
    """Different prompts of 20 words each, from the start of the text."""
    words = text[:100_000].split()
    starts = range(0, min(len(words), PROMPTS * PROMPT_WORDS), PROMPT_WORDS)
    return [" ".join(words[start : start + PROMPT_WORDS]) for start in starts]


def timed(step: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds that `step` took, and what it returned."""
    start = time.perf_counter()
    result = step(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    """Runs the job that the command line holds."""
    job = json.loads(sys.argv[1])
    print(json.dumps({"train": train, "encode": encode}[job["what"]](job)))


if __name__ == "__main__":
    main()
