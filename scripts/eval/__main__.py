"""Evaluates a run: `python -m scripts.eval --run runs/tiny [--text FILE] [--coherence 100]`.

The last line of stdout is one JSON object; everything for people goes to stderr. --tokens and
--heat - (colours for a terminal) come before it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as scripts/eval, which leaves the root out
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":  # before the imports that take long
    from utils.signals import end_at_once

    end_at_once()

import torch
from tqdm import tqdm

from data.batches import Batches
from data.prepared_folder import is_made
from data.scoring import (
    TokenScores,
    document_separator,
    prepare_again,
    scoring,
    text_floor,
    token_records,
    val_batches,
    write_text,
)
from data.stories.coherence import Coherence, common_faults, judge, known_documents
from data.token_file import TokenFile
from model.sampling.flags import add_drawing_flags, drawing_of
from model.sampling.generate import generate_ids
from model.sampling.sampler import Drawing
from model.training.evaluate import Evaluation, evaluate
from sample import Loaded, load_run
from scripts.eval.heatmap import heat_picture, heat_text
from scripts.eval.visible_text import cells
from train import Config
from utils.cli import Parser, natural_int
from utils.config.load import load
from utils.device import autocast, pick_amp
from utils.errors import UserError, run_cli
from utils.files import read_stdin
from utils.output import json_line, say
from utils.run.folder import DEFAULT_RUN, RunFolder

STDIN = "-"  # --text - reads it
STDOUT = "-"  # --heat - colours a terminal
SAMPLES_AT_ONCE = 50
FAULTS_SHOWN = 5


def own_folder(run: RunFolder, config: Config, loaded: Loaded) -> Path:
    """The folder with the run's own data, made again where it is gone."""
    folder, identity = Path(run.read_record()["data"]["folder"]), loaded.state["data_identity"]
    if is_made(folder, identity):
        return folder
    say(f"{folder}: gone or changed, the run's data is prepared again")
    tokenizer = loaded.tokenizer if config.train.init_from else None
    return prepare_again(config.data, config.model.vocab_size, folder, identity, tokenizer)


def own_part(run: RunFolder, config: Config, loaded: Loaded) -> tuple[Batches, float | None]:
    """The run's own validation part, and its floor in nats per byte."""
    folder = own_folder(run, config, loaded)
    end_id, block_size = loaded.tokenizer.eot_id, config.model.block_size
    windows, floor, note = scoring(folder, config.data.windows, block_size, end_id)
    if note:
        say(note)
    batches = val_batches(
        folder, config.data, block_size=block_size, end_id=end_id, windows=windows
    )
    return batches, floor["nats_per_byte"] if floor else None


def text_part(
    path: str, field: str, run: RunFolder, config: Config, loaded: Loaded, scratch: Path
) -> tuple[Batches, float | None]:
    """Any text, cut into documents like the run's own, and its floor where it is all stories.

    Stories, and whatever a run reads one document a row, are scored so, if block_size holds the
    longest; else all is read in packed windows, and no floor compares.
    """
    separator = document_separator(Path(run.read_record()["data"]["folder"]), config.data)
    errors, tokenizer = config.data.errors, loaded.tokenizer
    longest = write_text(path, separator, field, errors, tokenizer, scratch)
    floor, windows = text_floor(path, separator, field), config.data.windows
    block_size = config.model.block_size
    if floor is not None:
        windows = "documents"
    if windows == "documents" and longest > block_size:
        say(
            f"{Path(path).name}: a document holds {longest} tokens, more than block_size "
            f"{block_size}: the text is read in packed windows"
        )
        windows, floor = "packed", None
    batches = val_batches(
        scratch,
        config.data,
        block_size=block_size,
        end_id=loaded.tokenizer.eot_id,
        windows=windows,
    )
    return batches, floor


def stdin_part(
    run: RunFolder, config: Config, loaded: Loaded, scratch: Path
) -> tuple[Batches, float | None]:
    """The text of standard input, see `text_part`."""
    path = scratch / "standard input"
    path.write_bytes(read_stdin())
    try:
        return text_part(str(path), config.data.json_field, run, config, loaded, scratch)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def score(
    loaded: Loaded,
    config: Config,
    batches: Batches,
    batch_size: int,
    floor: float | None,
    scores: TokenScores | None,
) -> dict[str, Any]:
    """One pass over the validation windows, as training does it; the figures by name.

    `scores` takes down each token's share.
    """
    device = next(loaded.model.parameters()).device
    n_rows = batches.splits["val"].n_windows
    bar = tqdm(
        batches.eval_batches("val", batch_size),
        total=-(-n_rows // batch_size),
        desc="evaluate",
        disable=None,
        leave=False,
    )
    context = autocast(device, pick_amp(config.train.amp, device))
    byte_lengths_V = torch.tensor(loaded.tokenizer.byte_lengths)
    each = scores.add if scores else None
    result = evaluate(loaded.model, bar, byte_lengths_V, context, each)
    say(describe(result, floor))
    return {
        "nats_per_token": result.nats_per_token,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "nats_per_byte": result.nats_per_byte,
        "tokens": result.tokens,
        "bytes": result.bytes,
        "floor": floor,
        "over_floor": result.nats_per_byte / floor - 1 if floor else None,
    }


def describe(result: Evaluation, floor: float | None) -> str:
    """The figures for people."""
    line = (
        f"{result.nats_per_token:.4f} nats/token, perplexity {result.perplexity:.3f}, "
        f"{result.bits_per_byte:.4f} bits/byte, {result.nats_per_byte:.4f} nats/byte "
        f"over {result.tokens:,} tokens, {result.bytes:,} bytes"
    )
    if floor:
        over = result.nats_per_byte / floor - 1
        line += f"; the floor is {floor:.4f} nats/byte, {over:+.1%} to it"
    return line


def show_tokens(loaded: Loaded, scores: TokenScores, args: Any) -> None:
    """What --tokens and --heat ask for: a JSON line for each token, the text in colours."""
    records = token_records(scores, loaded.tokenizer)
    if args.tokens:
        for record in records:
            print(json_line(record))
    if not args.heat:
        return

    special, raw = set(loaded.tokenizer.special_ids.values()), loaded.tokenizer.token_bytes
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    parts = list(cells((raw[token], nats, token in special) for token, nats in pairs))
    if args.heat == STDOUT:
        sys.stdout.write(heat_text(parts))
        return
    text = {None: "validation part", STDIN: "standard input"}.get(args.text, args.text)
    drawn = heat_picture(parts, Path(args.heat), f"{text}, {loaded.path}")
    say(f"{args.heat}: how much each token surprised the model")
    if drawn < len(parts):
        say(f"{args.heat}: the first {drawn:,} of {len(parts):,} parts; --tokens lists all")


def sample_stories(
    loaded: Loaded, n_samples: int, drawing: Drawing
) -> tuple[list[str], list[bool]]:
    """Texts from end token to end token, and which of them ended.

    Sample i has seed i and at most block_size new tokens.
    """
    end_id, texts, ended = loaded.tokenizer.eot_id, [], []
    with tqdm(total=n_samples, desc="sample stories", disable=None, leave=False) as bar:
        for first in range(0, n_samples, SAMPLES_AT_ONCE):
            seeds = list(range(first, min(first + SAMPLES_AT_ONCE, n_samples)))
            for ids in generate_ids(
                loaded.model,
                [[end_id]] * len(seeds),
                seeds=seeds,
                max_new_tokens=loaded.model.config.block_size,
                drawing=drawing,
                stop_id=end_id,
                weights=loaded.weights,
            ):
                ended.append(ids[-1] == end_id)
                texts.append(loaded.tokenizer.decode(ids[:-1] if ended[-1] else ids))
            bar.update(len(seeds))
    return texts, ended


def measure_coherence(loaded: Loaded, n_samples: int, drawing: Drawing, train: Path) -> Coherence:
    """Samples stories and judges them against the grammar and the training tokens."""
    texts, ended = sample_stories(loaded, n_samples, drawing)
    with contextlib.closing(TokenFile(train)) as tokens:
        known = known_documents(tokens, loaded.tokenizer, texts)
    result = judge(texts, ended, known)
    say(
        f"{n_samples} stories: {result.accepted} coherent, {result.distinct} distinct, "
        f"{result.new} not in the training text, {result.ended} ended"
    )
    for fault in result.faults[:FAULTS_SHOWN]:
        say(f"  sample {fault.sample} goes wrong: {fault.hint}")
    if result.faults:
        say(f"  most often: {', '.join(common_faults(result))}")
    return result


def arguments(argv: Sequence[str] | None) -> Any:
    """Parses and checks the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="scripts.eval", description=__doc__)
    parser.add_argument("--run", default=DEFAULT_RUN, help="run folder (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="default: %(default)s"
    )
    parser.add_argument(
        "--text", help="score this file or folder (- is stdin) instead of the run's validation part"
    )
    parser.add_argument(
        "--json-field",
        default="",
        metavar="NAME",
        help="of --text in JSON lines: where a line holds its document (default: the run's)",
    )
    parser.add_argument(
        "--tokens", action="store_true", help="print each token's log-probability, a JSON line each"
    )
    parser.add_argument(
        "--heat",
        metavar="PICTURE",
        help="draw the text in the colours of its surprises; - prints it to a terminal",
    )
    parser.add_argument(
        "--batch-size", type=natural_int, default=0, help="rows at once (default: as in training)"
    )
    parser.add_argument(
        "--coherence",
        type=natural_int,
        default=0,
        metavar="N",
        help="sample N stories and parse them",
    )
    add_drawing_flags(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args(argv)
    if drawing_of(args) != Drawing() and not args.coherence:
        raise UserError("flags on how to draw need --coherence N; nothing else is sampled here")
    if args.json_field and args.text in (None, STDIN):
        raise UserError("--json-field: it says how a file of --text is read; give both or neither")
    if args.heat == STDOUT and args.tokens:
        raise UserError("--heat -: --tokens goes to stdout too; name a picture, or leave one out")
    if args.heat and args.heat != STDOUT:
        from scripts.eval.heatmap import check_picture  # loads Matplotlib

        check_picture(Path(args.heat))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Loads the run, scores it, and prints one JSON object."""
    args = arguments(argv)
    loaded = load_run(args.run, args.checkpoint, args.device)
    run, state = RunFolder(args.run), loaded.state
    config, _ = load(Config, [str(run.config)], {})
    say(f"{loaded.path}: step {state['step']}, val loss {state['last_val']:.4f} when written")
    with tempfile.TemporaryDirectory() as scratch:
        if args.text == STDIN:
            batches, floor = stdin_part(run, config, loaded, Path(scratch))
        elif args.text:
            field = args.json_field or config.data.json_field
            batches, floor = text_part(args.text, field, run, config, loaded, Path(scratch))
        else:
            batches, floor = own_part(run, config, loaded)
        rows = args.batch_size or config.train.batch_size
        scores = TokenScores(batches, "val", rows) if args.tokens or args.heat else None
        figures = score(loaded, config, batches, rows, floor, scores)
    if scores:
        show_tokens(loaded, scores, args)
    figures |= {"checkpoint": str(loaded.path), "step": state["step"], "text": args.text}
    if args.coherence:
        train = own_folder(run, config, loaded) / "train.npy"
        coherence = measure_coherence(loaded, args.coherence, drawing_of(args), train)
        figures["coherence"] = {"samples": args.coherence, **coherence.shares()}
    print(json_line(figures))
    return 0


if __name__ == "__main__":
    run_cli(main)
