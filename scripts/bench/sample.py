"""Measure the speed of sampling, ours and other projects', from a run or from random weights."""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from model.config import ModelConfig
from model.flops import count_parameters
from model.gpt import TinyGPT
from model.sampling.generate import InferenceEngine, generate_ids
from model.sampling.inference_weights import count_weights_read
from model.sampling.sampler import SamplingParams, sample_seeds
from sample import load_run
from scripts.bench.sample_peers import (
    LLAMA_CPP,
    Sampler,
    in_own_process,
    make_hf,
    make_llama_cpp,
    make_nanogpt,
)
from scripts.bench.timing import Spread, ratios, summary, time_call
from scripts.report import table
from utils.cli import nonnegative_int, positive_float, positive_int
from utils.config.tables import read_table
from utils.device import describe_device, pick_device, synchronize, use_huge_pages
from utils.errors import UserError, plural
from utils.output import log, log_if_not_tty, progress_bar

TOP_K = 50
WARMUP_TOKENS = 4
OURS, COMPILED = "ours", "ours, compiled"
SETTLE_S = 0.1  # before a turn: the last sampler's threads may still wait for work, each on a core
BANDWIDTH_BYTES = 256 * 2**20  # read to measure the bandwidth: far more than a CPU cache holds
TABLES = read_table(Path(__file__).with_name("shapes.yaml"))
SHAPES = {
    name: ModelConfig(position="learned", tie_weights=True, **shape)
    for name, shape in TABLES["sample"].items()
}
NEW_TOKENS = {"85M": 64, "124M": 64}  # of large shapes; 240 of others
HELP = "speed of sampling"
EXAMPLES = (
    "python -m scripts.bench sample --run runs/tiny",
    "python -m scripts.bench sample --shape 0.8M --nanogpt ../nanoGPT --hf",
    "python -m scripts.bench sample --shape 10.7M --compiled --batch-sizes 1 16 --new-tokens 40",
    "python -m scripts.bench sample --shape 124M --llama-cpp --prompt-tokens 1 512",
)


def add_command(commands: Any) -> None:
    """Add the command `sample` and its arguments."""
    parser = commands.add_parser("sample", help=HELP, description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("--run", metavar="FOLDER", help="run folder; its model samples")
    about = "a model of this size with random weights, instead of --run"
    add("--shape", choices=SHAPES, help=about)
    add("--nanogpt", metavar="FOLDER", help="nanoGPT checkout to compare with")
    add("--compiled", action="store_true", help="measure ours with torch.compile, too")
    add("--hf", action="store_true", help="compare with transformers' GPT-2")
    add("--llama-cpp", action="store_true", help="compare with llama.cpp, if it is installed")
    about = "lengths of the prompts; longer prompts than 1 differ by sample (default: 1)"
    add("--prompt-tokens", type=positive_int, nargs="+", default=[1], metavar="N", help=about)
    about = "numbers of samples generated together (default: 1 16 64)"
    add("--batch-sizes", type=positive_int, nargs="+", default=[1, 16, 64], help=about)
    about = "tokens per sample (default: 64 for 85M and 124M, else up to 240)"
    add("--new-tokens", type=nonnegative_int, default=0, help=about)
    add("--runs", type=positive_int, default=3, help="timed calls of each sampler (default: 3)")
    about = "skip another project's sampler if one call would take longer (default: 60)"
    add("--limit-s", type=positive_float, default=60.0, metavar="SECONDS", help=about)
    add("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, ... (default: auto)")
    parser.set_defaults(measure=bench_sample, show=show_sample)


def bench_sample(args: argparse.Namespace) -> dict[str, Any]:
    """Time whole calls, from a prompt to the last new token, in turns.

    Raises:
        UserError: an argument is wrong, or a library or checkout to compare with is missing.
    """
    if bool(args.run) == bool(args.shape):
        raise UserError("give one of --run FOLDER and --shape " + "|".join(SHAPES))
    use_huge_pages()
    device = pick_device(args.device)
    model = load_run(args.run, device=args.device).model if args.run else None
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = TinyGPT(SHAPES[args.shape]).to(device).eval()
    config = model.config
    longest = max(args.prompt_tokens)
    if longest >= config.block_size:
        raise UserError(f"--prompt-tokens {longest}: block_size is {config.block_size}; give less")
    n_new = min(NEW_TOKENS.get(args.shape, 240), config.block_size - longest + 1)
    n_tokens = args.new_tokens or n_new
    # An engine gathers the weights when it is made, as in sample.py. Ours eager and ours compiled
    # have separate engines, because an engine keeps its cached batch and its CUDA graphs.
    compiled = InferenceEngine(model)
    samplers: dict[str, Sampler] = {OURS: make_ours(InferenceEngine(model))}
    if args.compiled:
        samplers[COMPILED] = make_ours(compiled, compiled=True)
    if args.nanogpt:
        samplers["nanoGPT"] = make_nanogpt(args.nanogpt, config, TOP_K, device)
    if args.hf:
        samplers["transformers"] = make_hf(config, TOP_K, device)
    if args.llama_cpp and not all(map(find_spec, LLAMA_CPP)):
        log(f"without llama.cpp: pip install {' '.join(LLAMA_CPP)}")
    elif args.llama_cpp:
        for name, quantized in (("llama.cpp f32", False), ("llama.cpp q8_0", True)):
            most = max(args.batch_sizes), longest + n_tokens, torch.get_num_threads()
            samplers[name] = in_own_process(make_llama_cpp, config, TOP_K, *most, quantized)
            samplers[name]([[0]], 1)  # the start of the process is not to be timed
    benchmark = SampleBenchmark(samplers, compiled, n_tokens, args.runs, args.limit_s)
    return {
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "model": args.run or args.shape,
        "parameters": count_parameters(config).total,
        "weight_bytes": count_weights_read(model) * model.head_weight.element_size(),
        "new_tokens": n_tokens,
        "top_k": TOP_K,
        "runs": args.runs,
        "batches": [
            benchmark.batch(size, n) for n in args.prompt_tokens for size in args.batch_sizes
        ],
        "bandwidth_bytes_per_s": summary(benchmark.bandwidths),
    }


def make_ours(engine: InferenceEngine, compiled: bool = False) -> Sampler:
    """Return a function that samples with our engine."""

    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        generate_ids(
            engine.weights.model,
            prompts,
            seeds=sample_seeds(1, len(prompts)),
            max_new_tokens=n_tokens,
            params=SamplingParams(top_k=TOP_K),
            engine=engine,
            compiled=compiled,
        )

    return generate


@dataclass
class SampleBenchmark:
    """Times the samplers in turns, and the memory bandwidth between the turns."""

    samplers: dict[str, Sampler]
    compiled: InferenceEngine  # of ours compiled, for its compile statistics
    n_tokens: int
    runs: int
    limit_s: float  # skip another project's sampler if one call would take longer

    def __post_init__(self) -> None:
        self.device = self.compiled.weights.embedding.device
        # Rows of 1024 numbers, each of 4 bytes.
        self.memory = torch.ones(BANDWIDTH_BYTES // 4 // 1024, 1024, device=self.device)
        self.bandwidths: list[float] = []

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds that a call takes on the device."""
        return time_call(work, lambda: synchronize(self.device))

    def bandwidth(self) -> float:
        """Return bytes per second: of a sum over the memory or a product with it, the faster."""
        columns = self.memory.new_ones(1024, 2)
        times = [self.seconds(self.memory.sum), self.seconds(lambda: self.memory @ columns)]
        return BANDWIDTH_BYTES / min(times)

    def batch(self, size: int, n_prompt: int) -> dict[str, Any]:
        """Time all samplers at one batch size: whole calls, and calls of one token."""
        V = self.compiled.weights.model.config.vocab_size
        prompts = [[i % V if n_prompt > 1 else 0] + [0] * (n_prompt - 1) for i in range(size)]
        whole: dict[str, list[float]] = {}
        first: dict[str, list[float]] = {}
        left_out, warm_up_s = {}, {}
        for name, sampler in self.samplers.items():  # warm-up, not counted
            # Ours captures or compiles a step for the cache size, so warm up with the full length.
            n_tokens = self.n_tokens if name in (OURS, COMPILED) else WARMUP_TOKENS
            warm_up_s[name] = self.seconds(partial(sampler, prompts, n_tokens))
            first_s = self.seconds(partial(sampler, prompts, 1))
            step_s = max(0, warm_up_s[name] - first_s) / max(n_tokens - 1, 1)
            guess_s = first_s + step_s * (self.n_tokens - 1)
            if name not in (OURS, COMPILED) and guess_s > self.limit_s:
                left_out[name] = guess_s
            elif name != COMPILED or self.compiled.compile_stats.works:
                whole[name], first[name] = [], []
        turns = [(turn, name) for turn in range(self.runs) for name in whole]
        for turn, name in progress_bar(turns, desc=f"batch {size}", leave=False):
            sampler = self.samplers[name]
            time.sleep(SETTLE_S)
            if name == OURS:
                self.bandwidths.append(self.bandwidth())
            first[name].append(self.seconds(partial(sampler, prompts, 1)))
            whole[name].append(self.seconds(partial(sampler, prompts, self.n_tokens)))
            rate = size * self.n_tokens / whole[name][-1]
            log_if_not_tty(
                f"batch {size}, run {turn + 1}/{self.runs}, {name}: {rate:,.0f} tokens/s"
            )
        rows = []
        for name, times in whole.items():
            row: dict[str, Any] = {"who": name, "warm_up_s": warm_up_s[name]}
            row["first_s"] = summary(first[name])
            row["tokens_per_s"] = summary([size * self.n_tokens / t for t in times])
            for key, mine in (("ratio", OURS), ("ratio_compiled", COMPILED)):
                if mine in whole and name not in (mine, COMPILED):
                    row[key] = ratios(times, whole[mine])
            rows.append(row)
        return {
            "samples": size,
            "prompt_tokens": n_prompt,
            "rows": rows,
            "left_out_s": left_out,
        }


def show_sample(record: dict[str, Any]) -> str:
    """Return the figures of `bench sample` as text."""
    compiled = compile_seconds(record)
    lines = [
        f"{record['model']}: {record['parameters']:,} parameters, {record['new_tokens']} new "
        f"tokens, top-k {record['top_k']}\n{record['device']}, torch "
        f"{record['torch']}, eager{' and compiled' if compiled else ''}"
    ]
    for batch in record["batches"]:
        where = f"batch {batch['samples']}, prompt {batch['prompt_tokens']}"
        head = [where, "tokens/s", "ratio", "first token, ms"]
        head += ["ratio, compiled"] if compiled else []
        lines.append(table(head, [row[: len(head)] for row in batch_rows(batch)]))
    memory = Spread(**record["bandwidth_bytes_per_s"])
    lines.append(f"memory, GB/s: {memory.scaled(1e-9):.1f}")
    single = [
        batch for batch in record["batches"] if batch["samples"] == batch["prompt_tokens"] == 1
    ]
    for row in single[0]["rows"][:1] if single else []:
        rate = row["tokens_per_s"]["median"]
        read = record["weight_bytes"] * rate
        lines[-1] += (
            f"; ours at batch 1 reads {record['weight_bytes'] / 1e6:,.1f} MB of weights "
            f"{rate:,.0f} times a second: {read / memory.median:.0%} of that bandwidth"
        )
    lines.append(
        f"median of {plural(record['runs'], 'run')} (low to high), taken in turns; ratio: how many "
        "times as fast ours is, turn by turn"
    )
    if compiled:
        lines.append(f"compilation, not in these times: {compiled}")
    return "\n\n".join(lines)


def compile_seconds(record: dict[str, Any]) -> str:
    """Return the seconds of the first, compiling calls as text; "" if ours was not compiled."""
    return ", ".join(
        f"batch {batch['samples']} {row['warm_up_s']:.0f} s"
        for batch in record["batches"]
        for row in batch["rows"]
        if row["who"] == COMPILED
    )


def batch_rows(batch: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the table row of each sampler at one batch size."""
    for row in batch["rows"]:
        yield [
            row["who"],
            f"{Spread(**row['tokens_per_s']):,.0f}",
            f"{Spread(**row['ratio']):.2f}" if "ratio" in row else "",
            f"{Spread(**row['first_s']).scaled(1000):.1f}",
            f"{Spread(**row['ratio_compiled']):.2f}" if "ratio_compiled" in row else "",
        ]
    for name, guess_s in batch["left_out_s"].items():
        yield [name, f"left out: about {guess_s:.0f} s per call (--limit-s)", "", "", ""]
