"""One timing of training steps in a process of its own: a job in JSON, figures on stdout.

So each contestant has the memory, the allocator and the threads of a program of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from scripts.bench.contestants import NanoGPT, Ours, Subject, clock_parts
from scripts.bench.timing import Spread, timed_windows
from settings import Config
from utils.config.load import build
from utils.device import peak_memory_bytes, synchronize
from utils.processes import peak_rss_bytes


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second and the parts of a step of one contestant."""
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
        windows = timed_windows(
            lambda: subject.step(lambda part: None),
            steps=job["steps_per_window"],
            windows=job["windows"],
            warmup=job["warmup_steps"],
            synchronize=lambda: synchronize(subject.device),
        )
        rate = Spread.of([window.rate for window in windows])
        parts = clock_parts(subject, job["parts_steps"])
    on_gpu = subject.device.type == "cuda"
    peak = peak_memory_bytes(subject.device) if on_gpu else peak_rss_bytes()
    return {"tokens_per_s": rate.median, "parts_s": parts, "peak_bytes": peak}


def main() -> None:
    """Runs the job that the command line holds; all that is printed meanwhile goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(measure(json.loads(sys.argv[1]))), file=out)


if __name__ == "__main__":
    main()
