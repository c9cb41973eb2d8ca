"""Measure the speed of training a tokenizer and of encoding, for ours and for other projects.

Every training runs in a separate process, on all cores. Encoding runs on one core, with a new
tokenizer for every call. The contestants run in turns. A ratio compares runs of the same turn and
is above 1 if ours is faster. CPU time is reported as well as wall-clock time, because other
programs on the machine affect it far less.
"""

import argparse
import hashlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.bench.process import ALL_CORES, ONE_CORE, Figures, Job, run_job
from scripts.bench.timing import ratios, summary
from scripts.bench.tokenizer.corpus import MAX_CORPUS_BYTES, python_corpus
from scripts.bench.tokenizer.peers import (
    ENCODING_PEERS,
    PEERS,
    TRAINED_BY_LINE,
    TRAINED_BYTE_ORDER,
    TRAINERS,
    installed_peers,
    write_quicktok,
)
from scripts.bench.tokenizer.tables import show_tokenizer
from tok.errors import TokenizerError
from tok.formats.convert import export_tokenizer, import_tokenizer
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer
from tok.vocabulary import count_merges
from utils.cli import positive_float, positive_int
from utils.errors import UserError
from utils.files import decode_utf8, read_bytes
from utils.output import progress_bar
from utils.processes import available_cores

WORKER = "scripts.bench.tokenizer.worker"
MEGABYTE = 1_000_000
# Calls that return an array are compared with encode_array, calls that return lists with encode.
ARRAYS = {"tiktoken encode_to_numpy", "quicktok encode_batch", "gigatoken encode array"}
HELP = "speed of training a tokenizer and of encoding"
EXAMPLES = (
    "python -m scripts.bench tokenizer --corpus data/tiny.txt --vocab-size 1024 --peers",
    "python -m scripts.bench tokenizer --corpus FILE --ranks gpt2_r50k.tiktoken --peers",
)


def add_command(commands: Any) -> None:
    """Add the command `tokenizer` and its arguments."""
    parser = commands.add_parser("tokenizer", help=HELP, description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    about = "text file; python: source and docs of the installed packages, at most 100 MB"
    add("--corpus", required=True, metavar="FILE|python", help=about)
    add("--vocab-size", type=int, help="time the training of a vocabulary of this many tokens")
    add("--peers", action="store_true", help="also time installed libraries of other projects")
    about = "encode with the tokens of this tiktoken file (default: with those trained here)"
    add("--ranks", metavar="FILE", help=about)
    about = "split pattern for --ranks (default: gpt2; quicktok supports only cl100k)"
    add("--pattern", choices=tuple(PATTERNS), help=about)
    add("--runs", type=positive_int, default=3, help="timed calls of each contestant (default: 3)")
    about = "encode the first MB megabytes of the corpus (default: 1 10)"
    add("--sizes-mb", type=positive_float, nargs="+", default=[1.0, 10.0], metavar="MB", help=about)
    parser.set_defaults(measure=bench_tokenizer, show=show_tokenizer)


def bench_tokenizer(args: argparse.Namespace) -> dict[str, Any]:
    """Time training and encoding; return all figures.

    Raises:
        UserError: a setting is wrong, or a file can't be read.
    """
    check_settings(args)
    path = python_corpus() if args.corpus == "python" else Path(args.corpus)
    raw = read_bytes(path)
    if not raw:
        raise UserError(f"{path}: the corpus is empty; name another")
    decode_utf8(raw, path, hint="the other libraries accept UTF-8 only")
    peers = installed_peers() if args.peers else []
    record: dict[str, Any] = {
        "corpus": {
            "name": args.corpus,
            "path": str(path),
            "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
            # The python corpus is cut at a character, so it may be up to 3 bytes shorter.
            "complete": args.corpus != "python" or len(raw) > MAX_CORPUS_BYTES - 4,
        },
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "cores": available_cores(),
        "runs": args.runs,
        "versions": {name: importlib.metadata.version(PEERS[name]) for name in peers},
        "missing": [PEERS[name] for name in PEERS if args.peers and name not in peers],
    }
    with tempfile.TemporaryDirectory() as scratch:
        trained = Path(scratch) / "trained.json"
        if args.vocab_size is not None:
            record["vocab_size"] = args.vocab_size
            record["train"] = bench_training(path, args.vocab_size, peers, args.runs, trained)
        if args.ranks:
            tokenizer = import_tokenizer([args.ranks], pattern=args.pattern or "gpt2")
        else:
            tokenizer = BPETokenizer.load(trained)
        sizes = [round(mb * MEGABYTE) for mb in args.sizes_mb]
        record["encode"] = bench_encoding(
            path, tokenizer, peers, args.runs, [size for size in sizes if size <= len(raw)]
        )
        record["encode"]["vocabulary"] = args.ranks or f"trained here, {args.vocab_size}"
        record["encode"]["too_large"] = [size for size in sizes if size > len(raw)]
    return record


def check_settings(args: argparse.Namespace) -> None:
    """Check the combination of flags before anything is timed.

    Raises:
        UserError: names the flag that is missing or has no effect.
    """
    if args.vocab_size is None and not args.ranks:
        raise UserError("give --vocab-size (to train), or --ranks FILE (to encode), or both")
    if args.pattern and not args.ranks:
        raise UserError("--pattern needs --ranks; training uses GPT-2's pattern")
    if args.vocab_size is not None:
        try:
            count_merges(args.vocab_size, 0)
        except TokenizerError as error:
            raise UserError(f"--vocab-size: {error}") from None


def bench_training(
    path: Path, vocab_size: int, peers: Sequence[str], runs: int, out: Path
) -> list[dict[str, Any]]:
    """Return time, memory and ratio of each trainer; save our trained tokenizer to `out`.

    Raises:
        UserError: our own training failed.
    """
    job = {"what": "train", "corpus": str(path.resolve()), "vocab_size": vocab_size}
    contestants = ["ours", *(name for name in TRAINERS if name in peers)]
    # Untimed references: our merges for each variant (byte order, by line or not) that occurs.
    expected = {}
    for order, by_line in sorted({training_variant(name) for name in contestants}):
        variant = {"byte_order": order, "by_line": by_line}
        save = {"save": str(out)} if (order, by_line) == training_variant("ours") else {}
        reference = train_once({**job, "name": "ours", **variant, **save})
        if "error" in reference:
            # The error is the last line of a traceback, `SomeError: reason`.
            message = reference["error"].partition("Error: ")[2]
            raise UserError(f"{path}: {message.replace('set vocab_size', 'set --vocab-size')}")
        expected[order, by_line] = reference["tokens"]
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    with progress_bar(total=runs * len(contestants), desc="train", leave=False) as bar:
        for _ in range(runs):
            for name in contestants:
                turns[name].append(train_once({**job, "name": name}))
                bar.update()
    return [
        training_row(name, turns[name], turns["ours"], expected[training_variant(name)])
        for name in contestants
    ]


def train_once(job: Job) -> Figures:
    """Return the figures of one training in a separate process, on all cores."""
    return run_job(job, ALL_CORES, WORKER, measure_memory=True)


def training_variant(name: str) -> tuple[str, bool]:
    """Return a trainer's byte order, and True if it treats every line as a separate text.

    >>> training_variant("ours"), training_variant("gigabpe")
    (('value', False), ('gpt2', True))
    """
    return TRAINED_BYTE_ORDER.get(name, "value"), name in TRAINED_BY_LINE


def training_row(
    name: str, turns: list[dict[str, Any]], ours: list[dict[str, Any]], tokens: str
) -> dict[str, Any]:
    """Return the figures of one trainer over all its turns. `tokens` is the expected digest."""
    errors = [turn["error"] for turn in [*turns, *ours] if "error" in turn]
    if errors:
        return {"who": name, "error": errors[0]}
    row: dict[str, Any] = {"who": name}
    for key, ratio_key in (("seconds", "ratio"), ("cpu_s", "cpu_ratio")):
        taken = [turn[key] for turn in turns]
        row[key] = summary(taken)
        row[ratio_key] = ratios(taken, [turn[key] for turn in ours])
    return row | {
        "peak_bytes": max(turn["peak_bytes"] for turn in turns),
        "equal": all(turn["tokens"] == tokens for turn in turns),
    }


def bench_encoding(
    path: Path, tokenizer: BPETokenizer, peers: Sequence[str], runs: int, sizes: Sequence[int]
) -> dict[str, Any]:
    """Return the speed of encoding texts and prompts and of loading the vocabulary, on one core."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = {kind: str(folder / kind) for kind in ("ours", "hf", "tiktoken", "quicktok")}
        tokenizer.save(files["ours"])
        export_tokenizer(tokenizer, "hf", files["hf"])
        export_tokenizer(tokenizer, "tiktoken", files["tiktoken"])
        if "quicktok" in peers:
            write_quicktok(tokenizer, Path(files["quicktok"]))
        job = {
            "what": "encode",
            "corpus": str(path.resolve()),
            "files": files,
            "pattern": tokenizer.pattern,
            "names": ["ours", *(name for name in ENCODING_PEERS if name in peers)],
            "sizes": list(sizes),
            "runs": runs,
        }
        figures = run_job(job, ONE_CORE, WORKER)
    if "error" in figures:
        raise UserError(f"encoding: {figures['error']}")
    return {
        "ids": tokenizer.vocab_size,
        "pattern": tokenizer.pattern,
        "texts": [text_rows(text) for text in figures["texts"]],
        "prompt_us": comparison_rows(figures["prompt_us"]),
        "load_s": comparison_rows(figures["load_s"]),
        "load_cpu_s": comparison_rows(figures["load_cpu_s"]),
    }


def text_rows(text: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one text: MB/s of each call, and the ratio to our comparable call."""
    rows = []
    for name, call in text["calls"].items():
        ours = text["calls"]["ours encode_array" if name in ARRAYS else "ours encode"]
        megabytes = text["bytes"] / MEGABYTE
        row = {"who": name, "equal": call["equal"]}
        row["mb_per_s"] = summary([megabytes / one for one in call["seconds"]])
        row["cpu_mb_per_s"] = summary([megabytes / (one or 1e-9) for one in call["cpu_s"]])
        if not name.startswith("ours "):
            row["ratio"] = ratios(call["seconds"], ours["seconds"])
            row["cpu_ratio"] = ratios(call["cpu_s"], ours["cpu_s"])
        rows.append(row)
    return {"bytes": text["bytes"], "tokens": text["tokens"], "rows": rows}


def comparison_rows(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each library: the spread of its times, and the ratio to ours."""
    return [
        {"who": name, "value": summary(taken), "ratio": ratios(taken, times["ours"])}
        for name, taken in times.items()
    ]
