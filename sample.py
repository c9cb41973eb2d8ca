"""Sample text from a run.

The text is written to stdout as it is generated; speed and warnings go to stderr.
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

from data.documents import stream_documents, unescape
from model.config import ModelConfig
from model.flops import kv_cache_bytes
from model.gpt import TinyGPT
from model.load import load_model
from model.sampling.flags import add_sampling_flags, sampling_params
from model.sampling.generate import InferenceEngine, generate
from model.sampling.sampler import SamplingParams, sample_seeds
from model.sampling.stream import Sample, ThroughputMeter, emit_in_order
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT
from utils.cli import Parser, nonempty_text, positive_int, read_stdin
from utils.device import limit_threads, pick_device, use_huge_pages
from utils.errors import UserError, errors_at, run_cli
from utils.files import decode_utf8, read_bytes, write_atomic
from utils.output import json_line, log
from utils.repl import run_repl
from utils.run import checkpoint
from utils.run.folder import DEFAULT_RUN, RunFolder
from utils.suggest import shell_quote

MAX_PROMPTS = 100_000  # in a file; each takes 300 bytes of memory or more
MAX_BATCH = 64  # samples generated together
MAX_CACHE_BYTES = 1 << 30  # for the keys and values of a batch
EXAMPLES = (
    'python sample.py --run runs/tiny --prompt "Once" --temperature 0.8',
    "python sample.py --run runs/tiny --num-samples 5 --json",
    "python sample.py --interactive  # asks for prompts",
)


@dataclass
class LoadedRun:
    """A trained model, its tokenizer, and the content (`state`) and path of its checkpoint."""

    model: TinyGPT
    tokenizer: BPETokenizer
    state: dict[str, Any]
    path: Path

    @cached_property
    def engine(self) -> InferenceEngine:
        """The model prepared for sampling, once; its weights must not change after that."""
        return InferenceEngine(self.model)

    def encode(self, text: str) -> torch.Tensor:
        """Return the ids of `encode_prompt` as a tensor (1, T), on the model's device."""
        return torch.tensor([encode_prompt(self, text)], device=self.model.head_weight.device)

    def sample(self, prompt: str = "", steps: int = 300, seed: int = 1, **params: Any) -> str:
        """Return the prompt and its continuation: the text that sample.py prints for these flags.

        The weights may have changed since the last call.

        Args:
            params: fields of `SamplingParams`, such as temperature=0.8.
        """
        request = SampleRequest(1, seed, steps, SamplingParams(**params), self.tokenizer.eot_id)
        # A copy of the run, because its engine, if there is one, may hold earlier weights.
        texts = sample_texts(replace(self), [prompt], request, ThroughputMeter())
        return prompt + "".join(text for _, text in texts)


def load_run(run_dir: str | Path, which: str = "best", device: str = "auto") -> LoadedRun:
    """Load best.pt or last.pt of a run with its tokenizer. The run may be in training.

    Args:
        which: "best" or "last".

    Raises:
        UserError: there is no run or no checkpoint yet, or the checkpoint is damaged or belongs to
            another tokenizer.
    """
    run = RunFolder(run_dir)
    run.check_has_run()
    path = run.path / f"{which}.pt"
    if not path.exists():
        instead = ", or use --checkpoint last" if which == "best" and run.last.exists() else ""
        again = f"python train.py --run_dir {shell_quote(run.path)} --resume"
        raise UserError(
            f"{path}: no checkpoint yet; the run's first evaluation after step 0 writes it: if the "
            f"run was stopped, run `{again}`{instead}"
        )
    other = "last" if which == "best" else "best"
    state = checkpoint.load(path, hint=f"try --checkpoint {other}", required=checkpoint.SCHEMA)
    tokenizer = BPETokenizer.load(run.tokenizer)
    if tokenizer.identity != state.get("tokenizer_sha256"):
        raise UserError(
            f"{run.tokenizer}: tokenizer {tokenizer.identity[:12]}, but {path} was trained with "
            f"{str(state.get('tokenizer_sha256'))[:12]}; put the original back"
        )
    target = pick_device(device)
    limit_threads()
    with errors_at(path, f"try --checkpoint {other}"):
        model = load_model(state, target)
    return LoadedRun(model, tokenizer, state, path)


def save_run(loaded: LoadedRun, run_dir: str | Path) -> None:
    """Write the model as it is now to a new run folder, for `load_run` and all commands.

    Settings, run.json and tokenizer are those of the run it was loaded from; logs are not copied.

    Raises:
        UserError: the folder holds a run or can't be written, the run it was loaded from is
            missing, or the model does not have the modules and shapes of its config.
    """
    settings = asdict(loaded.model.config)
    config = loaded.state["config"] | {"model": settings, "run_dir": str(run_dir)}
    state = loaded.state | {"config": config, "model": loaded.model.state_dict(), "logs": {}}
    if checkpoint.digest(state["model"]) != checkpoint.digest(loaded.state["model"]):
        state |= {"val_step": None, "best_val": float("inf")}  # these weights were not evaluated
    load_model(state)
    record = RunFolder(loaded.path.parent).read_record()
    with contextlib.closing(RunFolder(run_dir)) as run:
        run.check_has_no_run()
        run.lock()
        write_atomic(run.config, yaml.safe_dump(config, sort_keys=False).encode())
        loaded.tokenizer.save(run.tokenizer)
        checkpoint.save(run.best, checkpoint.save(run.last, state))
        run.write_record(record)


def find_token(tokenizer: BPETokenizer, text: str) -> int:
    """Return the id of a special token, or of any text that is one token.

    >>> find_token(BPETokenizer([(97, 98)]), "ab"), find_token(BPETokenizer([]), "<|endoftext|>")
    (256, 256)

    Raises:
        UserError: the text is not exactly one token.
    """
    if text in tokenizer.special_ids:
        return tokenizer.special_ids[text]
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        examples = ", ".join(tokenizer.special_tokens)
        raise UserError(f"{text!r} is {len(ids)} tokens; name a single token, such as {examples}")
    return ids[0]


@dataclass(frozen=True)
class SampleRequest:
    """What to sample for each prompt, and how to write it."""

    n_samples: int  # of each prompt
    seed: int
    max_new_tokens: int  # of each sample
    params: SamplingParams
    stop_id: int | None  # a sample ends after this token; None = at no token
    stops: tuple[str, ...] = ()  # a sample ends before these strings
    as_json: bool = False
    compiled: bool = False  # generate with torch.compile


def encode_prompt(loaded: LoadedRun, prompt: str) -> list[int]:
    """Return end-of-text and the ids of a prompt, cut to the last block_size ids."""
    with errors_at("the prompt"):  # of a flag, a file or the terminal
        ids_T = loaded.tokenizer.encode_array(prompt)  # a list takes much more memory
    block_size = loaded.model.config.block_size
    if len(ids_T) > block_size:
        log(f"warning: the prompt has {len(ids_T)} tokens, only its last {block_size} are read")
    return [loaded.tokenizer.eot_id, *ids_T[-block_size:].tolist()][-block_size:]


def batch_size_for(config: ModelConfig) -> int:
    """Return the batch size: as many samples as fit into MAX_CACHE_BYTES, at most MAX_BATCH."""
    return max(1, min(MAX_BATCH, MAX_CACHE_BYTES // kv_cache_bytes(config)))


def sample_texts(
    loaded: LoadedRun,
    prompts: Sequence[str],
    request: SampleRequest,
    meter: ThroughputMeter,
    first_seed: int = 0,
) -> Iterator[tuple[Sample, str]]:
    """Generate all samples of all prompts; yield (sample, new text) as `emit_in_order` does.

    Sample i of every prompt gets seed number `first_seed` + i of `sample_seeds`.
    """
    seeds = sample_seeds(request.seed, first_seed + request.n_samples)[first_seed:]
    encoded = [encode_prompt(loaded, prompt) for prompt in prompts]
    pairs = [(p, i) for p in range(len(prompts)) for i in range(request.n_samples)]
    size = batch_size_for(loaded.model.config)
    for batch in (pairs[start : start + size] for start in range(0, len(pairs), size)):
        samples = [
            Sample(loaded.tokenizer.stream_decoder(), prompts[p], i, request.stop_id, request.stops)
            for p, i in batch
        ]
        steps = generate(
            loaded.model,
            [encoded[p] for p, _ in batch],
            seeds=[seeds[i] for _, i in batch],
            max_new_tokens=request.max_new_tokens,
            params=request.params,
            stop_id=request.stop_id,
            is_finished=lambda i: bool(samples[i].finish_reason),  # noqa: B023 (of this batch)
            engine=loaded.engine,
            compiled=request.compiled,
        )
        yield from emit_in_order(samples, meter.watch(steps))


def write_samples(
    loaded: LoadedRun, prompts: Sequence[str], request: SampleRequest, first_seed: int = 0
) -> None:
    """Stream the samples to stdout one after the other, or write a JSON line for each."""
    meter, current = ThroughputMeter(loaded.engine.compile_stats), None
    try:
        for sample, piece in sample_texts(loaded, prompts, request, meter, first_seed):
            if request.as_json:
                sys.stdout.write(json_line(sample.to_json()) + "\n" if sample.finish_reason else "")
            else:
                if sample is not current:
                    sys.stdout.write(("\n" if current else "") + sample.prompt)
                    current = sample
                sys.stdout.write(piece + ("\n" if sample.finish_reason else ""))
            sys.stdout.flush()
    except KeyboardInterrupt:
        if current and not current.finish_reason:
            sys.stdout.write("\n")
        raise
    finally:
        log(str(meter))


def add_run_flags(parser: Parser, with_device: bool = True, **run: Any) -> None:
    """Add the flags for the arguments of `load_run`, shared by all commands that load a run.

    Args:
        run: options of --run that differ from those of most commands.
    """
    add, default = parser.add_argument, "(default: %(default)s)"
    run = {"metavar": "FOLDER", "default": DEFAULT_RUN, "help": f"run folder {default}"} | run
    add("--run", **run)
    about = f"best = lowest validation loss, last = newest {default}"
    add("--checkpoint", choices=("best", "last"), default="best", help=about)
    if with_device:
        add("--device", metavar="DEVICE", default="auto", help=f"auto, cpu, cuda, ... {default}")


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="sample.py", description=__doc__, examples=EXAMPLES)
    add, default = parser.add_argument, "(default: %(default)s)"
    add_run_flags(parser)
    about = "start of the text; repeatable (default: empty, which starts a document)"
    add("--prompt", action="append", metavar="TEXT", help=about)
    add("--prompt-file", metavar="FILE", help="file of prompts, one per line; - is stdin")
    about = r"separator in --prompt-file: a text, or the word blank-line (default: \n, a newline)"
    add("--prompt-sep", type=nonempty_text, metavar="TEXT", help=about)
    add("--interactive", action="store_true", help="ask for prompts; an empty one quits")
    add("--num-samples", type=positive_int, default=1, help=f"samples for each prompt {default}")
    add("--steps", type=positive_int, default=300, help=f"maximum number of new tokens {default}")
    add("--seed", type=int, default=1, help=f"random seed; equal seeds give equal texts {default}")
    add_sampling_flags(parser)
    about = r"stop string: the sample ends before it (\n is a newline); repeatable"
    add("--stop", action="append", type=nonempty_text, metavar="TEXT", help=about)
    about = f"the sample ends at this token; empty = at no token {default}"
    add("--stop-token", default=END_OF_TEXT, metavar="TEXT", help=about)
    add("--json", action="store_true", help="write JSON lines with token ids and log-probabilities")
    add("--compile", action="store_true", help="use torch.compile: slow to start, faster on a GPU")
    args = parser.parse_args(argv)
    if args.interactive and (args.prompt is not None or args.prompt_file):
        other = "--prompt-file" if args.prompt_file else "--prompt"
        raise UserError(f"--interactive: reads prompts from the terminal; leave out {other}")
    if args.prompt_sep is not None and not args.prompt_file:
        raise UserError("--prompt-sep: separates the prompts of --prompt-file; name the file")
    return args


def read_prompts(args: Any) -> list[str]:
    """Return the prompts of the command line, then those of the file; one empty prompt if none.

    Raises:
        UserError: the file can't be read, is not UTF-8, or holds no prompt.
    """
    prompts = list(args.prompt or [])
    if args.prompt_file:
        piped = args.prompt_file == "-"
        name = "standard input" if piped else args.prompt_file
        raw = read_stdin() if piped else read_bytes(name)
        decode_utf8(raw, name, hint="convert it to UTF-8")  # only a check
        documents = stream_documents(io.BytesIO(raw), args.prompt_sep or "\\n")  # unescapes it
        found = list(islice(documents, MAX_PROMPTS + 1))
        if not found:
            raise UserError(f"{name}: no prompt in it; write one per line")
        if len(found) > MAX_PROMPTS:
            raise UserError(f"{name}: more than {MAX_PROMPTS:,} prompts; split the file")
        prompts += [part.decode() for part in found]
    return prompts or [""]


def main(argv: Sequence[str] | None = None) -> int:
    """Load the run, log on stderr what was read, and write the samples to stdout."""
    args = arguments(argv)
    params, prompts = sampling_params(args), read_prompts(args)
    use_huge_pages()
    loaded = load_run(args.run, args.checkpoint, args.device)
    with errors_at("--stop-token"):
        stop = unescape(args.stop_token)
        stop_id = find_token(loaded.tokenizer, stop) if stop else None
    stops = tuple(map(unescape, args.stop or ()))
    request = SampleRequest(
        args.num_samples, args.seed, args.steps, params, stop_id, stops, args.json, args.compile
    )
    log(f"{loaded.path}: {checkpoint.describe(loaded.state)}")
    if hasattr(sys.stdout, "reconfigure"):  # UTF-8, and no line end becomes \r\n on Windows
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if not args.interactive:
        write_samples(loaded, prompts, request)
        return 0
    log("each line is a prompt; an empty line or Ctrl-D quits, Ctrl-C stops the sample")
    first_seeds = iter(range(0, sys.maxsize, request.n_samples))  # no seed is used twice
    run_repl(lambda line: write_samples(loaded, [line], request, next(first_seeds)))
    return 0


if __name__ == "__main__":
    run_cli(main)
