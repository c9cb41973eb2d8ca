"""Evaluate a run: `python -m scripts.eval --run runs/tiny [--text FILE] [--coherence 100]`.

The last line of stdout is one JSON object with the results. What `--tokens` and `--heat -` print
comes before that line. Progress and summaries are logged to stderr.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python scripts/eval`
    from utils.signals import before_slow_imports

    before_slow_imports()

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.sampling.flags import add_sampling_flags, sampling_params
from model.sampling.sampler import SamplingParams
from sample import add_run_flags, load_run
from scripts.eval import pairs, where
from scripts.eval.coherence import measure_coherence
from scripts.eval.eval_sets import STDIN, EvalSet, Run
from scripts.eval.heatmap import coloured_text
from scripts.eval.page import write_page
from scripts.eval.scoring import Ensemble, TokenScores, evaluate_run, token_records
from scripts.eval.visible_text import cells
from train import Config
from utils.cli import Parser, checked, nonnegative_int
from utils.config.load import load
from utils.errors import UserError, run_cli
from utils.files import check_writable
from utils.output import json_line, log, progress_bar
from utils.run import checkpoint
from utils.run.figure import check_picture
from utils.run.folder import DEFAULT_RUN, RunFolder

STDOUT = "-"  # value of --heat: print coloured text
EXAMPLES = (
    "python -m scripts.eval --run runs/tiny",
    "python -m scripts.eval --run runs/tiny --text mytext.txt --html page.html",
    "python -m scripts.eval --run runs/tiny --coherence 100 --temperature 0.8",
    "python -m scripts.eval --run runs/tiny --where --pairs 1000",
)
RESULTS = ("nats_per_token", "perplexity", "bits_per_byte", "nats_per_byte", "tokens", "bytes")


def score(
    run: Run, eval_set: EvalSet, batch_size: int, scores: TokenScores | None
) -> dict[str, Any]:
    """Score each window once, as the evaluations of training do; return the results by JSON key.

    Args:
        scores: records the loss of each token, unless it is None.
    """
    bar = progress_bar(
        eval_set.batches.eval_batches("val", batch_size),
        total=eval_set.batches.n_eval_batches("val", batch_size),
        desc="evaluate",
        leave=False,
    )
    evaluation = evaluate_run(run, bar, scores.add if scores else None)
    floor = f" (floor {eval_set.floor:.4f})" if eval_set.floor else ""
    tokens = eval_set.batches.splits["val"].tokens
    n_ends = len(tokens.positions_of(run.loaded.tokenizer.eot_id))
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


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="scripts.eval", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    about = f"run folder (default: {DEFAULT_RUN}); repeat it to evaluate the average of several "
    about += "runs' probabilities"
    add_run_flags(parser, action="append", default=None, help=about)
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
    about = "for stories: split the loss over the floor by kind of choice and by distance to what "
    about += "it depends on, and plot it into FILE (default: where.png in the run folder; with "
    about += "--text new.txt, where-new.png; for 2 runs, where-2-runs.png in the folder of the "
    about += "first)"
    add("--where", nargs="?", const="", metavar="FILE", help=about)
    about = "windows in a forward pass (default: the run's train.batch_size)"
    add("--batch-size", type=nonnegative_int, default=0, help=about)
    about = "sample this many stories and count those that the story grammar accepts"
    add("--coherence", type=nonnegative_int, default=0, help=about)
    about = "make this many pairs of a new story and a copy with a wrong name, pronoun, thing, "
    about += "place or promise, and count those in which the model prefers the story"
    few = checked(int, f"from 0 to {pairs.MAX_PAIRS:,}", lambda n: 0 <= n <= pairs.MAX_PAIRS)
    add("--pairs", type=few, default=0, help=about)
    add_sampling_flags(parser)
    return parser


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    args = make_parser().parse_args(argv)
    args.run = args.run or [DEFAULT_RUN]
    if args.run[1:] and (args.html or args.coherence):
        raise UserError("--html and --coherence look at one run; drop them, or give one --run")
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


def open_runs(args: Any) -> list[Run]:
    """Load the runs.

    Raises:
        UserError: a run can't be loaded, or differs from the first in what they must share.
    """
    runs: list[Run] = []
    shared: list[dict[str, Any]] = []
    for name in args.run:
        loaded, folder = load_run(name, args.checkpoint, args.device), RunFolder(name)
        runs.append(Run(folder, load(Config, [str(folder.config)], {})[0], loaded))
        log(f"{loaded.path}: {checkpoint.describe(loaded.state)} when written")
        text = args.text or loaded.state["data_identity"]
        shared.append({"tokenizer": loaded.tokenizer.identity, "validation text": text})
        shared[-1]["model.block_size"] = loaded.model.config.block_size
        for what in shared[0]:
            if shared[-1][what] != shared[0][what]:
                problem = f"another {what} than {args.run[0]}, so there is no average"
                raise UserError(f"--run {name}: {problem}; name runs that share it")
    return runs


def average(runs: list[Run]) -> Run:
    """Return the run, or an ensemble of several, which has the settings of the first one."""
    if len(runs) == 1:
        return runs[0]
    model: Any = Ensemble([run.loaded.model for run in runs])
    return replace(runs[0], loaded=replace(runs[0].loaded, model=model))


def main(argv: Sequence[str] | None = None) -> int:
    """Load the run, score it, and print one JSON object."""
    args = arguments(argv)
    runs = open_runs(args)
    run = average(runs)
    loaded, rows = run.loaded, args.batch_size or run.config.train.batch_size
    if args.where is not None:
        text = "stdin" if args.text == STDIN else args.text and Path(args.text).resolve().stem
        parts = ["where", *[text] * bool(text), *[f"{len(runs)}-runs"] * bool(runs[1:])]
        args.where = Path(args.where or run.folder.path / f"{'-'.join(parts)}.png")
        check_picture(args.where, "--where")
    with tempfile.TemporaryDirectory() as scratch:
        if args.text is None:
            eval_set = run.validation_set()
        else:
            eval_set = run.text_set(args.text, args.json_field, Path(scratch), args.include)
        if eval_set.floor is None and (args.where or args.pairs):
            flag = "--where" if args.where else "--pairs"
            text = eval_set.name if args.text else f"the {eval_set.name}"
            problem = f"{flag}: no entropy floor is known for {text}"
            raise UserError(f"{problem}; it needs stories, each of at most block_size tokens")
        wanted = args.tokens or args.heat or args.where
        scores = TokenScores(eval_set.batches, "val", rows) if wanted else None
        results = score(run, eval_set, rows, scores)
        if args.html:
            write_page(run, eval_set, Path(args.html))
    if scores and args.tokens:
        for record in token_records(scores, loaded.tokenizer):
            print(json_line(record))
    if scores and args.heat:
        sys.stdout.write(coloured_scores(run, scores))
    paths = [str(one.loaded.path) for one in runs]
    steps = [one.loaded.state["step"] for one in runs]
    results |= {"runs": args.run, "checkpoints": paths, "steps": steps, "text": args.text}
    if not runs[1:]:
        results |= {"checkpoint": paths[0], "step": steps[0]}
    if scores and args.where:
        results["where"] = where.breakdown(scores, loaded.tokenizer)
        log(where.describe(results["where"]))
        where.plot_where(results["where"], args.where)
    if args.pairs:
        results["pairs"] = pairs.measure_pairs(run, args.pairs)
    if args.coherence:
        train = run.data_folder() / "train.npy"
        params = sampling_params(args)
        results["coherence"] = measure_coherence(loaded, args.coherence, params, train)
    print(json_line(results))
    return 0


if __name__ == "__main__":
    run_cli(main)
