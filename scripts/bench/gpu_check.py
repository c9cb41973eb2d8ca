"""Run the GPU tests and benchmarks in one call of less than eight minutes; write one JSON file.

Each part runs in its own process, limited to the remaining time. The result of every part is
recorded in the file (--out); the other parts still run if one fails or times out. Without a GPU the
program prints one line and exits with status 2.
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from scripts.bench.checkout import check_checkout
from scripts.bench.process import running
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.files import check_writable, write_atomic
from utils.metrics import read_column, read_rows
from utils.output import json_line

LIMIT_S = 450.0  # of all parts together
MAX_TAIL = 2000  # characters of a part's output that are kept
EXAMPLES = (
    "make gpu-check CORPUS=shakespeare.txt NANOGPT=../nanoGPT",
    "python -m scripts.bench.gpu_check --corpus shakespeare.txt --nanogpt ../nanoGPT",
)


def run_part(command: Sequence[str], limit_s: float) -> dict[str, Any]:
    """Run a program; return its status (None: no time left), seconds, and the end of its output."""
    if limit_s <= 0:
        return {"status": None, "seconds": 0.0, "tail": "no time was left"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        status: int | None = None
        with running(command, output) as process, contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(limit_s)
        output.seek(0)
        tail = output.read().decode("utf-8", "replace")[-MAX_TAIL:]
    return {"status": status, "seconds": time.perf_counter() - start, "tail": tail}


def parts(corpus: Path, nanogpt: str, scratch: Path) -> dict[str, list[str]]:
    """Return the command of each part by name, the most important first (tests: with pytest)."""
    rival = ["--nanogpt", nanogpt] if nanogpt else []
    few = "--compiled --windows 3 --runs 1"
    train = [sys.executable, "train.py", "--config", "configs/shakespeare_gpu.yaml"]
    train += ["--data.files", str(corpus), "--data.split", "bytes"]
    train += ["--data.cache_dir", str(scratch / "cache"), "--run_dir", str(scratch / "run")]

    def module(words: str) -> list[str]:
        return [sys.executable, "-m", *words.split()]

    def bench(name: str, words: str) -> list[str]:
        return [*module(f"scripts.bench {words}"), *rival, "--json", str(scratch / name)]

    tests = {"tests": module("pytest -q --no-header -m cuda -p no:cacheprovider tests")}
    sample = "sample --shape 10.7M --compiled --device cuda --batch-sizes 1 16"
    return (tests if find_spec("pytest") else {}) | {
        "sample": bench("sample", sample),
        "shakespeare": train,
        "gpt2": bench("gpt2", f"train --shape gpt2 {few}"),
        "nanogpt-gpu": bench("nanogpt-gpu", f"train --shape nanogpt-gpu {few}"),
    }


def figures(name: str, scratch: Path) -> dict[str, Any]:
    """Return the figures that a part wrote, if any: a benchmark's record or a run's evaluations."""
    if (scratch / name).is_file():
        return {"record": json.loads((scratch / name).read_text(encoding="utf-8"))}
    metrics = scratch / "run" / "metrics.csv"
    if name != "shakespeare" or not metrics.exists():
        return {}
    rows = read_rows(metrics)
    steps, bits = read_column(rows, "val_bpb")
    _, elapsed = read_column([row for row in rows if row["val_bpb"]], "elapsed_s")
    of_all = {key: read_column(rows, key)[1] for key in ("tokens_per_s", "memory_bytes")}
    last = {key: values[-1] for key, values in of_all.items() if values}
    return {"steps": steps, "val_bpb": bits, "elapsed_s": elapsed} | last


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts; return 1 if one of them failed or timed out."""
    parser = Parser(prog="scripts.bench.gpu_check", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("--corpus", required=True, metavar="FILE", help="text to train on")
    add("--nanogpt", default="", metavar="FOLDER", help="nanoGPT checkout to compare with")
    add("--out", default="gpu-check.json", metavar="FILE", help="output (default: %(default)s)")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        raise UserError("no CUDA device: gpu-check needs one; nothing was run")
    corpus = Path(args.corpus).absolute()
    if not corpus.is_file():
        raise UserError(f"--corpus {args.corpus}: no such file; check the path")
    if args.nanogpt:
        check_checkout(Path(args.nanogpt), "model.py")
    check_writable(args.out, "--out")
    nanogpt = str(Path(args.nanogpt).absolute()) if args.nanogpt else ""
    return check(corpus, nanogpt, Path(args.out))


def check(corpus: Path, nanogpt: str, out: Path) -> int:
    """Run the parts in order and rewrite `out` after each; return 1 if one of them failed."""
    end = time.perf_counter() + LIMIT_S
    record: dict[str, Any] = {"torch": str(torch.__version__), "parts": {}}
    if torch.cuda.is_available():
        record["device"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, command in parts(corpus, nanogpt, scratch).items():
            print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
            result = run_part(command, end - time.perf_counter())
            print(f"{name}: {result['seconds']:.0f} s, status {result['status']}", file=sys.stderr)
            record["parts"][name] = result | figures(name, scratch)
            write_atomic(out, f"{json_line(record)}\n".encode())
    print(f"figures: {out}", file=sys.stderr)
    return int(any(part["status"] != 0 for part in record["parts"].values()))


if __name__ == "__main__":
    run_cli(main)
