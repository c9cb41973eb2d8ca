"""Samples text from a run: `python sample.py --run runs/tiny --prompt "Once" --temp 0.8`.

The text goes to stdout as it is drawn, speed and warnings to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before the imports that take long
    from utils.signals import exit_silently_on_sigint

    exit_silently_on_sigint()

from data.documents import split_documents, unescape
from model.config import ModelConfig
from model.gpt import TinyGPT
from model.load import load_model
from model.sampling.flags import add_sampling_flags, sampling_params
from model.sampling.generate import InferenceEngine, generate
from model.sampling.sampler import SamplingParams, sample_seeds
from model.sampling.stream import Sample, ThroughputMeter, emit_in_order, has_ended
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT
from utils.cli import Parser, nonempty_text, positive_int
from utils.device import pick_device
from utils.errors import UserError, run_cli
from utils.files import decode_utf8, read_bytes, read_stdin
from utils.output import json_line, log
from utils.repl import run_repl
from utils.run import checkpoint
from utils.run.folder import DEFAULT_RUN, RunFolder

MAX_BATCH = 64  # samples side by side
MAX_CACHE_BYTES = 1 << 30  # for the keys and values of all of them


@dataclass
class LoadedRun:
    """A trained model with its tokenizer and the checkpoint both came from."""

    model: TinyGPT
    tokenizer: BPETokenizer
    state: dict[str, Any]
    path: Path

    @cached_property
    def engine(self) -> InferenceEngine:
        """The model made ready for sampling; it does not follow if the model is trained further."""
        return InferenceEngine(self.model)


def load_run(run_dir: str | Path, which: str = "best", device: str = "auto") -> LoadedRun:
    """Loads best.pt or last.pt of a run and the tokenizer beside it; also of one in training.

    Raises:
        UserError: no run, no checkpoint yet, a damaged one, or one of another tokenizer.
    """
    run = RunFolder(run_dir)
    run.check_has_run()
    path = run.path / f"{which}.pt"
    if not path.exists():
        raise UserError(f"{path}: no checkpoint yet; wait for the run's first evaluation")
    other = "last" if which == "best" else "best"
    state = checkpoint.load(path, hint=f"try --checkpoint {other}")
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
    return LoadedRun(model, tokenizer, state, path)


def find_token(tokenizer: BPETokenizer, text: str) -> int:
    """The id of a special token, or of any text that is one token.

    >>> find_token(BPETokenizer([(97, 98)]), "ab"), find_token(BPETokenizer([]), "<|endoftext|>")
    (256, 256)

    Raises:
        UserError: the text is several tokens, or none.
    """
    if text in tokenizer.special_ids:
        return tokenizer.special_ids[text]
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        known = ", ".join(tokenizer.special_tokens)
        raise UserError(f"{text!r} is {len(ids)} tokens; name one that is one, such as {known}")
    return ids[0]


@dataclass(frozen=True)
class SampleRequest:
    """What is wanted of every prompt."""

    n_samples: int
    seed: int
    max_new_tokens: int
    params: SamplingParams
    stop_id: int | None
    stops: tuple[str, ...]
    as_json: bool
    compiled: bool


def encode_prompt(loaded: LoadedRun, prompt: str) -> list[int]:
    """The prompt as ids behind an end-of-text token, cut to its end if the context is shorter."""
    try:
        ids = [loaded.tokenizer.eot_id, *loaded.tokenizer.encode(prompt)]
    except UserError as error:
        raise UserError(f"--prompt: {error}") from None
    room = loaded.model.config.block_size
    if len(ids) > room:
        log(f"warning: the prompt holds {len(ids) - 1} tokens, only its last {room} are read")
    return ids[-room:]


def max_rows(config: ModelConfig) -> int:
    """Samples that are drawn side by side: as many as fit the memory, and not above MAX_BATCH."""
    row_bytes = 2 * config.n_layer * config.block_size * config.n_embd * 4  # fp32
    return max(1, min(MAX_BATCH, MAX_CACHE_BYTES // row_bytes))


def sample_texts(
    loaded: LoadedRun,
    prompts: Sequence[str],
    request: SampleRequest,
    pace: ThroughputMeter,
    first: int = 0,
) -> Iterator[tuple[Sample, str]]:
    """Each sample of each prompt in turn, as `emit_in_order` tells it.

    Sample i of a prompt has the seed of place `first` + i, whichever prompts stand beside it.
    """
    seeds = sample_seeds(request.seed, first + request.n_samples)[first:]
    encoded = [encode_prompt(loaded, prompt) for prompt in prompts]
    rows = [(prompt, i) for prompt in range(len(prompts)) for i in range(request.n_samples)]
    size = max_rows(loaded.model.config)
    for part in (rows[start : start + size] for start in range(0, len(rows), size)):
        samples = [
            Sample(
                loaded.tokenizer.stream_decoder(),
                prompts[prompt],
                i,
                request.stop_id,
                request.stops,
            )
            for prompt, i in part
        ]
        steps = generate(
            loaded.model,
            [encoded[prompt] for prompt, _ in part],
            seeds=[seeds[i] for _, i in part],
            max_new_tokens=request.max_new_tokens,
            params=request.params,
            stop_id=request.stop_id,
            is_finished=partial(has_ended, samples),
            engine=loaded.engine,
            compiled=request.compiled,
        )
        yield from emit_in_order(samples, pace.watch(steps))


def write_samples(
    loaded: LoadedRun, prompts: Sequence[str], request: SampleRequest, first: int = 0
) -> None:
    """Writes each sample to stdout as it is drawn, one after the other, or a JSON line of each."""
    pace, current = ThroughputMeter(loaded.engine.compile_stats), None
    try:
        for sample, piece in sample_texts(loaded, prompts, request, pace, first):
            if request.as_json:
                sys.stdout.write(json_line(sample.record()) + "\n" if sample.ended else "")
            else:
                if sample is not current:
                    sys.stdout.write(("\n" if current else "") + sample.prompt)
                    current = sample
                sys.stdout.write(piece + ("\n" if sample.ended else ""))
            sys.stdout.flush()
    except KeyboardInterrupt:
        if current and not current.ended:
            sys.stdout.write("\n")
        raise
    finally:
        log(str(pace))


def add_arguments(parser: Parser) -> None:
    """Every flag of the command."""
    add = parser.add_argument
    add("--run", default=DEFAULT_RUN, help="run folder (default: %(default)s)")
    add("--checkpoint", choices=("best", "last"), default="best", help="default: %(default)s")
    add(
        "--prompt",
        action="append",
        help="how the text begins; empty (the default) starts a document; may be given repeatedly",
    )
    add("--prompt-file", metavar="FILE", help="a prompt on each line; - is stdin")
    add(
        "--prompt-sep",
        type=nonempty_text,
        metavar="TEXT",
        help=r"what parts the prompts of the file: blank-line, or a text in which \n is a newline "
        "(default: the end of a line)",
    )
    add("--interactive", action="store_true", help="ask for prompts; an empty one leaves")
    add("--num-samples", type=positive_int, default=1, help="of each prompt (default: %(default)s)")
    add("--steps", type=positive_int, default=300, help="most new tokens (default: %(default)s)")
    add("--seed", type=int, default=1, help="same seed, same text (default: %(default)s)")
    add_sampling_flags(parser)
    add(
        "--stop",
        action="append",
        type=nonempty_text,
        metavar="TEXT",
        help=r"end before this text (\n is a newline); may be given repeatedly",
    )
    add(
        "--stop-token",
        default=END_OF_TEXT,
        metavar="TEXT",
        help="end with this token; empty = none (default: %(default)s)",
    )
    add("--json", action="store_true", help="a JSON line for each sample, with ids and logprobs")
    add("--device", default="auto", help="auto, cpu, cuda, ...")
    add(
        "--compile", action="store_true", help="torch.compile: a long start, for much text on a GPU"
    )


def arguments(argv: Sequence[str] | None) -> Any:
    """Parses and checks the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="sample.py", description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.interactive and (args.prompt is not None or args.prompt_file):
        other = "--prompt-file" if args.prompt_file else "--prompt"
        raise UserError(f"--interactive: asks for prompts itself; leave out {other}")
    if args.prompt_sep is not None and not args.prompt_file:
        raise UserError("--prompt-sep: parts the prompts of --prompt-file, which is not given")
    return args


def read_prompts(args: Any) -> list[str]:
    """The prompts of the command line, then those of the file; an empty one without either.

    Raises:
        UserError: the file can't be read, is not UTF-8, or holds no prompt.
    """
    prompts = list(args.prompt or [])
    if args.prompt_file:
        piped = args.prompt_file == "-"
        name = "standard input" if piped else args.prompt_file
        raw = read_stdin() if piped else read_bytes(name)
        decode_utf8(raw, name, hint="convert it to UTF-8")
        found = split_documents(raw, args.prompt_sep or "\\n")
        if not found:
            raise UserError(f"{name}: no prompt in it")
        prompts += [part.decode() for part in found]
    return prompts or [""]


def main(argv: Sequence[str] | None = None) -> int:
    """Loads the run, says on stderr what it read, writes the samples to stdout."""
    args = arguments(argv)
    params, prompts = sampling_params(args), read_prompts(args)
    loaded = load_run(args.run, args.checkpoint, args.device)
    try:
        stop_id = (
            find_token(loaded.tokenizer, unescape(args.stop_token)) if args.stop_token else None
        )
    except UserError as error:
        raise UserError(f"--stop-token: {error}") from None
    request = SampleRequest(
        n_samples=args.num_samples,
        seed=args.seed,
        max_new_tokens=args.steps,
        params=params,
        stop_id=stop_id,
        stops=tuple(map(unescape, args.stop or ())),
        as_json=args.json,
        compiled=args.compile,
    )
    step, loss = loaded.state["step"], loaded.state["last_val"]
    log(f"{loaded.path}: step {step}, val loss {loss:.4f} nats/token")
    if hasattr(sys.stdout, "reconfigure"):  # any text, whatever the terminal's locale
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if not args.interactive:
        write_samples(loaded, prompts, request)
        return 0
    log("a line is a prompt; an empty one or Ctrl-D leaves, Ctrl-C stops a text")
    turns = iter(range(0, sys.maxsize, request.n_samples))  # no two texts from one seed
    run_repl(lambda line: write_samples(loaded, [line], request, next(turns)))
    return 0


if __name__ == "__main__":
    run_cli(main)
