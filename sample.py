"""Samples text from a run: `python sample.py --run runs/tiny --prompt "Once" --temp 0.8`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.draw import Drawing, sample_seeds
from model.generate import generate
from model.gpt import ModelConfig, TinyGPT
from model.load import load_model
from settings import Config
from tok.bpe import BPETokenizer
from utils import checkpoint
from utils.cli import Parser
from utils.config import flatten, load
from utils.device import pick_device
from utils.errors import UserError, run_cli
from utils.runs import RunFolder

DEFAULT_RUN = "runs/tiny"  # where `make train` leaves the default model


@dataclass
class Loaded:
    """A trained model with its tokenizer and the checkpoint both came from."""

    model: TinyGPT
    tokenizer: BPETokenizer
    state: dict[str, Any]
    path: Path


def load_run(run_dir: str | Path, which: str = "best", device: str = "auto") -> Loaded:
    """Loads best.pt or last.pt of a run and the tokenizer beside it; also of one in training.

    Raises:
        UserError: no run, no checkpoint yet, a damaged one, or one of another tokenizer.
    """
    run = RunFolder(run_dir)
    run.require_run()
    path = run.path / f"{which}.pt"
    if not path.exists():
        raise UserError(f"{path}: no checkpoint yet; wait for the run's first evaluation")
    other = "last" if which == "best" else "best"
    state = checkpoint.load(path, cure=f"try --checkpoint {other}")
    tokenizer = BPETokenizer.load(run.tokenizer)
    if tokenizer.identity != state.get("tokenizer_sha256"):
        raise UserError(
            f"{run.tokenizer}: tokenizer {tokenizer.identity[:12]}, but {path} was trained with "
            f"{str(state.get('tokenizer_sha256'))[:12]}; put the original back"
        )
    place = pick_device(device)
    try:
        model = load_model(state, place)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    require_own_shape(run, path, model.config)
    return Loaded(model, tokenizer, state, path)


def require_own_shape(run: RunFolder, path: Path, found: ModelConfig) -> None:
    """Checks that a checkpoint's model is the one that config.yaml describes.

    Raises:
        UserError: names the first setting that differs.
    """
    config, _ = load(Config, [str(run.config)], {})
    theirs = flatten(found)
    for name, value in flatten(config.model).items():
        if value != theirs[name]:
            raise UserError(
                f"{path}: model.{name} is {theirs[name]}, but {run.config} says {value}; "
                "put the original back"
            )


def encode_prompt(loaded: Loaded, prompt: str) -> list[int]:
    """The prompt as ids behind an end-of-text token, cut to its end if the context is shorter."""
    try:
        ids = [loaded.tokenizer.eot_id, *loaded.tokenizer.encode(prompt)]
    except UserError as error:
        raise UserError(f"--prompt: {error}") from None
    room = loaded.model.config.block_size
    if len(ids) > room:
        say(f"warning: the prompt holds {len(ids) - 1} tokens, only its last {room} are read")
    return ids[-room:]


def until_stop(pieces: Iterator[str], stop: str) -> Iterator[str]:
    """Passes text on up to the first `stop`, holding back what may be its beginning.

    >>> "".join(until_stop(iter(["one t", "w", "o three"]), "two"))
    'one '
    """
    held = ""
    for piece in pieces:
        held += piece
        if stop and stop in held:
            yield held[: held.index(stop)]
            return
        keep = next(
            (n for n in range(min(len(stop) - 1, len(held)), 0, -1) if held.endswith(stop[:n])), 0
        )
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held


def text_of(loaded: Loaded, ids: Iterator[int | None]) -> Iterator[str]:
    """The text of ids as they come, whole characters only; the end-of-text token has none."""
    decoder = loaded.tokenizer.stream_decoder()
    for token in ids:
        if token is not None and token != loaded.tokenizer.eot_id:
            yield decoder.feed(token)
    yield decoder.finish()


def write_samples(
    loaded: Loaded, prompt: str, n_samples: int, stop: str, settings: dict[str, Any]
) -> None:
    """Streams one sample to stdout as it is drawn, or several one after the other."""
    prompts = [encode_prompt(loaded, prompt)] * n_samples
    steps = generate(loaded.model, prompts, stop_id=loaded.tokenizer.eot_id, **settings)
    if n_samples > 1:
        samples = list(zip(*(step.ids for step in steps), strict=True))
    else:
        samples = [(step.ids[0] for step in steps)]
    for number, ids in enumerate(samples):
        sys.stdout.write("\n" if number else "")
        sys.stdout.write(prompt)
        for piece in until_stop(text_of(loaded, iter(ids)), stop):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(line, file=sys.stderr)


def arguments(argv: Sequence[str] | None) -> Any:
    """Parses and checks the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="sample.py", description=__doc__)
    parser.add_argument("--run", default=DEFAULT_RUN, help="run folder (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="default: %(default)s"
    )
    parser.add_argument("--prompt", default="", help="how the text begins; empty starts a document")
    parser.add_argument(
        "--steps", type=int, default=300, help="most new tokens (default: %(default)s)"
    )
    parser.add_argument(
        "--temp", type=float, default=1.0, help="temperature; 0 = the likeliest token"
    )
    parser.add_argument("--top-k", type=int, default=0, help="keep the k likeliest tokens; 0 = all")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="keep the smallest set that reaches p; 1 = all"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="same seed, same text (default: %(default)s)"
    )
    parser.add_argument("--num-samples", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--stop", default="", help="end before this text")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args(argv)
    checks = (
        ("steps", args.steps >= 1, "at least 1"),
        ("temp", 0 <= args.temp < float("inf"), "0 or more"),
        ("top-k", args.top_k >= 0, "0 or more"),
        ("top-p", 0 < args.top_p <= 1, "above 0 and at most 1"),
        ("num-samples", args.num_samples >= 1, "at least 1"),
    )
    for name, holds, words in checks:
        if not holds:
            raise UserError(
                f"--{name}: must be {words}, got {getattr(args, name.replace('-', '_'))}"
            )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Loads the run, says on stderr what it read, writes the samples to stdout."""
    args = arguments(argv)
    loaded = load_run(args.run, args.checkpoint, args.device)
    step, loss = loaded.state["step"], loaded.state["last_val"]
    say(f"{loaded.path}: step {step}, val loss {loss:.4f} nats/token")
    if hasattr(sys.stdout, "reconfigure"):  # any text, whatever the terminal's locale
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    settings = {
        "seeds": sample_seeds(args.seed, args.num_samples),
        "max_new_tokens": args.steps,
        "drawing": Drawing(args.temp, args.top_k, args.top_p),
    }
    write_samples(loaded, args.prompt, args.num_samples, args.stop, settings)
    return 0


if __name__ == "__main__":
    run_cli(main)
