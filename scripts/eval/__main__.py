"""Evaluate a run: `python -m scripts.eval --run runs/tiny [--text FILE] [--coherence 100]`.

The last line of stdout is one JSON object with the results. What `--tokens` and `--heat -` print
comes before that line. Progress and summaries are logged to stderr.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python scripts/eval`
    from utils.signals import exit_silently_on_sigint

    exit_silently_on_sigint()

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model.sampling.flags import add_sampling_flags, sampling_params
from model.sampling.sampler import SamplingParams
from model.training.evaluate import evaluate
from sample import add_run_flags, load_run
from scripts.eval.coherence import measure_coherence
from scripts.eval.eval_sets import STDIN, EvalSet, Run
from scripts.eval.heatmap import coloured_text
from scripts.eval.page import write_page
from scripts.eval.scoring import TokenScores, token_records
from scripts.eval.visible_text import cells
from train import Config
from utils.cli import Parser, nonnegative_int
from utils.config.load import load
from utils.device import autocast, pick_amp
from utils.errors import UserError, run_cli
from utils.files import check_writable
from utils.output import json_line, log, progress_bar
from utils.run import checkpoint
from utils.run.folder import RunFolder

STDOUT = "-"  # value of --heat: print coloured text
EXAMPLES = (
    "python -m scripts.eval --run runs/tiny",
    "python -m scripts.eval --run runs/tiny --text mytext.txt --html page.html",
    "python -m scripts.eval --run runs/tiny --coherence 100 --temperature 0.8",
)
RESULTS = ("nats_per_token", "perplexity", "bits_per_byte", "nats_per_byte", "tokens", "bytes")


def score(
    run: Run, eval_set: EvalSet, batch_size: int, scores: TokenScores | None
) -> dict[str, Any]:
    """Score each window once, as the evaluations of training do; return the results by JSON key.

    Args:
        scores: records the loss of each token, unless it is None.
    """
    loaded = run.loaded
    device = next(loaded.model.parameters()).device
    bar = progress_bar(
        eval_set.batches.eval_batches("val", batch_size),
        total=eval_set.batches.n_eval_batches("val", batch_size),
        desc="evaluate",
        leave=False,
    )
    evaluation = evaluate(
        loaded.model,
        bar,
        torch.tensor(loaded.tokenizer.byte_lengths),
        autocast(device, pick_amp(run.config.train.amp, device)),
        scores.add if scores else None,
    )
    floor = f" (floor {eval_set.floor:.4f})" if eval_set.floor else ""
    tokens = eval_set.batches.splits["val"].tokens
    n_ends = len(tokens.positions_of(loaded.tokenizer.eot_id))
    log(
        f"{evaluation.describe(eval_set.floor)}, perplexity {evaluation.perplexity:.3f}, "
        f"{evaluation.nats_per_byte:.4f} nats/byte{floor} "
        f"over {evaluation.tokens:,} tokens ({n_ends:,} of them end-of-text), "
        f"{evaluation.bytes:,} bytes"
    )
    results = {name: getattr(evaluation, name) for name in RESULTS}
    results |= {"floor": eval_set.floor, "over_floor": evaluation.over_floor(eval_set.floor)}
    return results | {"part_bytes": eval_set.part_bytes or evaluation.bytes}


def coloured_scores(run: Run, scores: TokenScores) -> str:
    """Return the text on colours of its tokens' losses, for a terminal."""
    tokenizer = run.loaded.tokenizer
    special, raw = set(tokenizer.special_ids.values()), tokenizer.token_bytes
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    return coloured_text(cells((raw[token], nats, token in special) for token, nats in pairs))


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="scripts.eval", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add_run_flags(parser)
    about = "score this file or folder (- is stdin) instead of the run's validation part; in both, "
    about += "the end-of-text token after each document is scored too"
    add("--text", metavar="PATH", help=about)
    about = "field with the document, if --text is JSON (default: the run's; '' reads plain text)"
    add("--json-field", metavar="NAME", help=about)
    about = "which files to read if --text is a folder (default: the run's patterns, or all files)"
    add("--include", nargs="+", default=(), metavar="PATTERN", help=about)
    about = "print a JSON line for each token, with its log-probability"
    add("--tokens", action="store_true", help=about)
    about = "page to write, such as page.html: the text, coloured by its losses; for each token, "
    about += "the most likely ones and the attention weights; it needs no network"
    add("--html", metavar="FILE", help=about)
    about = "`-` prints the text, coloured by its losses, in a terminal; --html writes a page"
    add("--heat", metavar="-", help=about)
    about = "windows in a forward pass (default: the run's train.batch_size)"
    add("--batch-size", type=nonnegative_int, default=0, help=about)
    about = "sample this many stories and count those that the story grammar accepts"
    add("--coherence", type=nonnegative_int, default=0, help=about)
    add_sampling_flags(parser)
    args = parser.parse_args(argv)
    if sampling_params(args) != SamplingParams() and not args.coherence:
        raise UserError("sampling flags need --coherence N; nothing else is sampled here")
    if args.include and args.text in (None, STDIN):
        raise UserError("--include: needs --text with a folder; drop it, or name the folder")
    if args.json_field is not None and args.text in (None, STDIN):
        raise UserError(
            "--json-field: needs --text with a file or folder, not stdin; drop it, or name the file"
        )
    if args.heat not in (None, STDOUT):
        raise UserError(
            f"--heat {args.heat}: pictures are not written any more; use --html page.html"
        )
    if args.heat and args.tokens:
        raise UserError(
            "--heat -: --tokens prints to stdout too; drop one, or use --html page.html"
        )
    if args.html is not None:
        if not args.html.lower().endswith((".html", ".htm")):
            raise UserError(f"--html {args.html}: a page is a file such as page.html; name one")
        check_writable(args.html, "--html")
        if Path(args.html).resolve() == Path(args.text or ".").resolve():
            raise UserError(f"--html {args.html}: this is the --text; name another file")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Load the run, score it, and print one JSON object."""
    args = arguments(argv)
    loaded, folder = load_run(args.run, args.checkpoint, args.device), RunFolder(args.run)
    run = Run(folder, load(Config, [str(folder.config)], {})[0], loaded)
    step, rows = loaded.state["step"], args.batch_size or run.config.train.batch_size
    log(f"{loaded.path}: {checkpoint.describe(loaded.state)} when written")
    with tempfile.TemporaryDirectory() as scratch:
        if args.text is None:
            eval_set = run.validation_set()
        else:
            eval_set = run.text_set(args.text, args.json_field, Path(scratch), args.include)
        scores = TokenScores(eval_set.batches, "val", rows) if args.tokens or args.heat else None
        results = score(run, eval_set, rows, scores)
        if args.html:
            write_page(run, eval_set, Path(args.html))
    if scores and args.tokens:
        for record in token_records(scores, loaded.tokenizer):
            print(json_line(record))
    if scores and args.heat:
        sys.stdout.write(coloured_scores(run, scores))
    results |= {"checkpoint": str(loaded.path), "step": step, "text": args.text}
    if args.coherence:
        train = run.data_folder() / "train.npy"
        params = sampling_params(args)
        results["coherence"] = measure_coherence(loaded, args.coherence, params, train)
    print(json_line(results))
    return 0


if __name__ == "__main__":
    run_cli(main)
