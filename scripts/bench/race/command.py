"""Train our model and nanoGPT's on one text in turns, and compare time and loss."""

import argparse
import contextlib
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.documents import cut_at_character
from data.ngrams import ngram_bits
from model.gpt import TinyGPT
from model.training.evaluate import evaluate
from sample import LoadedRun, load_run
from scripts.bench.checkout import check_checkout
from scripts.bench.process import ROOT, Timed, run_timed
from scripts.bench.race import nanogpt
from scripts.bench.race.plot import plot_race
from scripts.bench.timing import Spread
from scripts.report import table
from train import Config
from utils.cli import positive_int
from utils.config.load import load
from utils.errors import UserError, plural
from utils.files import decode_utf8, read_bytes
from utils.metrics import read_rows
from utils.output import log
from utils.run.environment import git_commit
from utils.run.figure import check_picture, warn_if_not_drawn

VAL_FRACTION = 0.1
# One cut separates training and validation text, as in nanoGPT. Ours is at a number of bytes,
# nanoGPT's at a number of characters, which is the same for ASCII.
SPLIT = ("--data.split=bytes", f"--data.val_fraction={VAL_FRACTION}")
NGRAMS = (2, 3, 4)  # orders of the n-gram models of our tokens
CHARACTER_ORDER = 5  # order of the n-gram model of characters
HELP = "time and loss of our training and nanoGPT's"
EXAMPLES = (
    "python -m scripts.bench race --nanogpt ../nanoGPT --corpus shakespeare.txt",
    "python -m scripts.bench race --nanogpt ../nanoGPT --corpus shakespeare.txt --seeds 3",
)


def add_command(commands: Any) -> None:
    """Add the command `race` and its arguments."""
    parser = commands.add_parser("race", help=HELP, description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("--nanogpt", required=True, metavar="FOLDER", help="nanoGPT checkout")
    about = "UTF-8 text; the last tenth is for validation"
    add("--corpus", required=True, metavar="FILE", help=about)
    about = "runs of ours and of nanoGPT's, one for each of the seeds 1, 2, ... (default: 1)"
    add("--seeds", type=positive_int, default=1, help=about)
    about = "settings of our run (default: %(default)s)"
    add("--config", default="configs/shakespeare_cpu.yaml", metavar="FILE", help=about)
    add("--plot", metavar="FILE", help="plot bits per byte over time into FILE")
    parser.set_defaults(measure=bench_race, show=show_race)


class Text:
    """The corpus, split by bytes into training and validation text."""

    def __init__(self, path: str) -> None:
        """Read and split the file.

        Raises:
            UserError: the file is not UTF-8, too short, or has line ends that nanoGPT would change.
        """
        self.path, raw = Path(path).resolve(), read_bytes(path)
        decode_utf8(raw, path, hint="convert the file")
        if b"\r" in raw:
            raise UserError(f"{path}: has carriage returns, which nanoGPT drops; convert the file")
        cut = cut_at_character(raw, len(raw) - math.floor(len(raw) * VAL_FRACTION))
        self.whole, self.train, self.val = (part.decode() for part in (raw, raw[:cut], raw[cut:]))
        if len(self.val) < 2:
            raise UserError(f"{path}: too short to split; give more text")
        # The first byte is not a target: it has no context.
        self.scored_bytes = len(raw) - cut - 1

    def bits_per_byte(self, nats: float) -> float:
        """Return a total loss over the validation text, given in nats, as bits per byte."""
        return nats / math.log(2) / self.scored_bytes


def bench_race(args: argparse.Namespace) -> dict[str, Any]:
    """Train both in turns, once for each seed, and score the checkpoints that they write.

    A time is that of the whole process: imports, training with its evaluations, checkpoint. Ours
    includes training the tokenizer and preparing the data, nanoGPT's not that of its prepare.py.

    Raises:
        UserError: an argument is wrong, or one of the programs failed.
    """
    checkout, config = Path(args.nanogpt), Path(args.config).resolve()
    check_checkout(checkout, *nanogpt.USED_FILES)
    load(Config, [args.config], {})  # only a check, before anything is trained
    text = Text(args.corpus)
    if args.plot:
        check_picture(Path(args.plot), "--plot")
    theirs, ours = [], []
    for seed in range(1, args.seeds + 1):
        with tempfile.TemporaryDirectory() as scratch:
            theirs.append(race_nanogpt(checkout, text, seed, Path(scratch)))
        log_run(f"seed {seed} of {args.seeds}: nanoGPT", theirs[-1])
        with tempfile.TemporaryDirectory() as scratch:
            ours.append(race_ours(config, text, seed, Path(scratch)))
        log_run(f"seed {seed} of {args.seeds}: ours", ours[-1])
    log("counting n-grams")
    record = describe_race(args, text, theirs, ours)
    if args.plot:
        with warn_if_not_drawn():
            plot_race(record, Path(args.plot))
    return record


def log_run(label: str, run: dict[str, Any]) -> None:
    """Log the time and the score of one run."""
    log(f"{label}: {run['seconds']:.1f} s, {run['bits_per_byte']:.4f} bits per byte")


def race_nanogpt(checkout: Path, text: Text, seed: int, scratch: Path) -> dict[str, Any]:
    """Train nanoGPT once; return time, score and loss curve."""
    copy, log_file = scratch / "nanogpt", scratch / "log"
    nanogpt.copy_checkout(checkout, copy, text.path, seed)
    chars_per_byte = len(text.val) / len(text.val.encode())
    timed = run_timed(
        "nanoGPT's train.py",
        nanogpt.train_command(),
        cwd=copy,
        env=nanogpt.environment(),
        log=log_file,
        read_values=lambda: nanogpt.read_losses(log_file, chars_per_byte),
    )
    return figures(timed, text, *nanogpt.score_checkpoint(copy, text.whole, text.val))


def figures(timed: Timed, text: Text, nats: float, parameters: int) -> dict[str, Any]:
    """Return what is recorded of every run."""
    record = {"seconds": timed.seconds, "curve": timed.values, "parameters": parameters}
    return record | {"bits_per_byte": text.bits_per_byte(nats)}


def race_ours(config: Path, text: Text, seed: int, scratch: Path) -> dict[str, Any]:
    """Train ours once from raw text; return time, loss curve and scores.

    The second score is that of the trained model with its blocks disabled: what embeddings and head
    predict alone.
    """
    run, log_file = scratch / "run", scratch / "log"
    flags = [f"--data.files={text.path}", f"--data.cache_dir={scratch / 'cache'}"]
    timed = run_timed(
        "our train.py",
        [sys.executable, "train.py", "--config", str(config), *SPLIT, *flags]
        + [f"--run_dir={run}", f"--train.seed={seed}"],
        cwd=ROOT,
        env=os.environ,
        log=log_file,
        read_values=lambda: val_bits(run / "metrics.csv"),
    )
    loaded = load_run(run, "last", "cpu")
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    record = figures(timed, text, score_ours(loaded, text.val), parameters)
    zero_blocks(loaded.model)
    return record | {
        "zeroed_bits_per_byte": text.bits_per_byte(score_ours(loaded, text.val)),
        "steps": loaded.state["step"],
        "tokenizer": loaded.tokenizer,
    }


def val_bits(metrics: Path) -> list[float]:
    """Return the evaluations in a metrics.csv so far, in bits per byte."""
    with contextlib.suppress(UserError):  # the file does not exist yet
        return [float(row["val_bpb"]) for row in read_rows(metrics) if row["val_bpb"]]
    return []


def score_ours(loaded: LoadedRun, val: str) -> float:
    """Return the total nats of the validation text in consecutive windows of block_size tokens.

    The end-of-text token is put before the text, so that the first token is scored, too. The text's
    first byte is in that token but not in `scored_bytes`, so our score is slightly too high.
    """
    tokenizer = loaded.tokenizer
    ids = np.concatenate(([tokenizer.eot_id], tokenizer.encode_array(val)))
    batches = nanogpt.consecutive_windows(ids, loaded.model.config.block_size)
    return evaluate(loaded.model, batches, torch.tensor(tokenizer.byte_lengths)).nats


def zero_blocks(model: TinyGPT) -> None:
    """Disable all blocks by zeroing their output projections. Embeddings and head remain."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("blocks.") and ".proj." in name:
                weight.zero_()


def describe_race(
    args: argparse.Namespace, text: Text, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the measured figures, and those derived from them."""
    tokenizer = ours[0]["tokenizer"]
    for one in ours:
        del one["tokenizer"]  # not a figure: the record is written as JSON
    target = statistics.mean(one["bits_per_byte"] for one in theirs)
    reached = [time_to_reach(one["curve"], target) for one in ours]
    their_s = statistics.median(one["seconds"] for one in theirs)
    found = [seconds for seconds in reached if seconds is not None]
    return {
        "corpus": text.path.name,
        "train_bytes": len(text.train.encode()),
        "scored_bytes": text.scored_bytes,
        "config": args.config,
        "nanogpt_flags": nanogpt.FLAGS,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "commit": git_commit(),
        "nanogpt": theirs,
        "ours": ours,
        "target_bits_per_byte": target,
        "reached_s": reached,
        "reached_share": statistics.median(found) / their_s if len(found) == len(ours) else None,
        "ngrams": count_ngrams(text, tokenizer.encode_array, tokenizer.vocab_size),
    }


def time_to_reach(curve: list[tuple[float, float]], target: float) -> float | None:
    """Return the time in seconds of the first evaluation at or below the target, or None.

    >>> time_to_reach([(1.0, 3.0), (2.0, 2.5), (3.0, 2.4)], 2.5), time_to_reach([(1.0, 3.0)], 2.5)
    (2.0, None)
    """
    return next((seconds for seconds, bits in curve if bits <= target), None)


def count_ngrams(
    text: Text, encode: Callable[[str], np.ndarray], vocab_size: int
) -> dict[str, float]:
    """Return the bits per byte of n-gram models, of our tokens and of characters, by label."""
    tokens = ngram_bits(encode(text.train), encode(text.val), vocab_size, NGRAMS)
    label = f"-grams of tokens (vocabulary {vocab_size})"
    bits = {f"{n}{label}": value for n, value in tokens.items()}
    train, val = (nanogpt.character_ids(text.whole, part) for part in (text.train, text.val))
    characters = ngram_bits(train, val, len(set(text.whole)), range(1, CHARACTER_ORDER + 1))
    order = max(characters)  # a lower one if a long sequence does not fit into 64 bits
    bits[f"{order}-grams of characters"] = characters[order]
    return {name: value / text.scored_bytes for name, value in bits.items()}


def show_race(record: dict[str, Any]) -> str:
    """Return the figures of `bench race` as text."""

    def row(name: str, runs: list[dict[str, Any]], key: str = "bits_per_byte") -> list[str]:
        bits = [one[key] for one in runs]
        seconds = Spread.of([one["seconds"] for one in runs])
        timed = f"{seconds:.1f}" if key == "bits_per_byte" else ""
        mean = f"{statistics.mean(bits):.4f}"
        return [name, timed, f"{Spread.of(bits):.4f}", mean, f"{runs[0]['parameters']:,}"]

    theirs, ours = record["nanogpt"], record["ours"]
    rows = [
        row("nanoGPT, its recipe for a CPU", theirs),
        row(f"ours, {record['config']}", ours),
        row("  the same, blocks disabled after training", ours, "zeroed_bits_per_byte"),
    ]
    rows += [[f"counted {n}", "", f"{b:.4f}", "", ""] for n, b in record["ngrams"].items()]
    head = ["", "seconds", "bits per byte", "mean", "parameters"]
    found, target = record["reached_s"], record["target_bits_per_byte"]
    if record["reached_share"] is None:
        line = f"ours did not reach nanoGPT's {target:.4f} bits per byte in every run"
    else:
        line = (
            f"ours reached nanoGPT's {target:.4f} bits per byte after {Spread.of(found):.1f} s, "
            f"{record['reached_share']:.0%} of nanoGPT's time"
        )
    note = f"median of {plural(len(ours), 'run')} in turns (low to high), whole processes, torch "
    note += f"{record['torch']}, {record['threads']} threads; {record['scored_bytes']:,} bytes of "
    return "\n".join([table(head, rows), line, note + f"{record['corpus']} scored"])
