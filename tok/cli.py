"""Command line of the tokenizer: `python -m tok.bpe train|encode|decode|import|export`."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tok import text_files
from tok.cli_encode import print_ids
from tok.encoding.progress import ProgressLine
from tok.errors import TokenizerError
from tok.formats import convert
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer
from tok.vocabulary import BYTE_ORDERS
from utils.cli import Parser, nonnegative_int
from utils.errors import UserError, brief, errors_at
from utils.files import check_writable, read_bytes

DEFAULT_TOKENIZER = Path(__file__).with_name("bpe.json")
TRAINING_OPTIONS = ("vocab_size", "byte_order", "pattern", "errors", "workers")
Add = Callable[..., Any]  # a parser's add_argument
MAX_NAMED_FILES = 3  # in a message; a shell pattern can expand to thousands

DESCRIPTION = """Byte-level BPE tokenizer: train it, encode text, decode ids, convert vocabularies.
Results go to stdout; counts and timings go to stderr."""
_RUN = "python -m tok.bpe"
EXAMPLES = json.loads(Path(__file__).with_name("cli_examples.json").read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    Raises:
        UserError: the user made a mistake; nothing was written.
    """
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)
    return 0


def _parser() -> Parser:
    examples = [EXAMPLES[name][0] for name in ("train", "encode", "export")]
    parser = Parser(prog=_RUN, description=DESCRIPTION, examples=examples)
    commands: Any = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, (run, text, add_arguments) in COMMANDS.items():
        about = f"{text[0].upper()}{text[1:]}."
        sub = commands.add_parser(name, help=text, description=about, examples=EXAMPLES[name])
        sub.set_defaults(run=run)
        add_arguments(sub.add_argument)
    return parser


def _add_train(add: Add) -> None:
    add("files", nargs="+", metavar="FILE", help="text files, or folders of them")
    about = "patterns of the files to read in folders, such as '*.md' (default: all files)"
    add("--include", nargs="+", default=(), metavar="PATTERN", help=about)
    about = "number of ids: 256 bytes, merges and special tokens"
    add("--vocab-size", type=int, required=True, help=about)
    add("--out", required=True, metavar="FILE", help="tokenizer file to write")
    about = "order of the ids of the 256 bytes, which decides between equally frequent pairs: by "
    about += "value (default), or as in GPT-2 and Hugging Face"
    add("--byte-order", choices=tuple(BYTE_ORDERS), default="value", help=about)
    about = "how text is split into pre-tokens (default: gpt2)"
    add("--pattern", choices=tuple(PATTERNS), default="gpt2", help=about)
    _add_workers(add, "processes that count pre-tokens; 0 = one per core (default)")


def _add_encode(add: Add) -> None:
    about = "texts, one line of ids for each (default: standard input)"
    add("text", nargs="*", metavar="TEXT", help=about)
    about = "encode special tokens in the text as their ids (default: as plain text)"
    add("--allow-special", action="store_true", help=about)
    _add_workers(
        add, "processes for a large text; 0 = one per core (default), 1 = no other process"
    )
    _add_source(add)


def _add_decode(add: Add) -> None:
    add("ids", nargs="*", metavar="INT", help="ids (default: standard input)")
    _add_source(add)


def _add_import(add: Add) -> None:
    about = "a tokenizer.json, a tiktoken file of ranks, or GPT-2's encoder.json and vocab.bpe"
    add("files", nargs="+", metavar="FILE", help=about)
    add("--out", required=True, metavar="FILE", help="tokenizer file to write")
    about = "split pattern; required for tiktoken's ranks"
    add("--pattern", choices=tuple(PATTERNS), help=about)
    about = "a special token: with its id for tiktoken's ranks, without for GPT-2's files"
    add("--special", action="append", default=[], metavar="TEXT[=ID]", help=about)


def _add_export(add: Add) -> None:
    add("tokenizer", metavar="FILE", help="a tokenizer file of llm-tiny")
    about = "hf: a tokenizer.json; tiktoken: a file of ranks; gpt2: encoder.json and vocab.bpe"
    add("--to", required=True, choices=convert.FORMATS, help=about)
    add("--out", required=True, metavar="PATH", help="file to write (for gpt2: folder)")


def _add_workers(add: Add, text: str) -> None:
    """Add the flags of the commands that read text."""
    add("--workers", type=nonnegative_int, default=0, help=text)
    about = "strict: reject text that is not UTF-8 (default); bytes: accept any bytes"
    add("--errors", choices=("strict", "bytes"), default="strict", help=about)


def _add_source(add: Add) -> None:
    add("--file", metavar="FILE", help="read a file instead of standard input")
    add("--tokenizer", metavar="FILE", help="tokenizer file (default: tok/bpe.json)")


def train(arguments: argparse.Namespace) -> None:
    """Learn a tokenizer from files and save it."""
    start = time.monotonic()
    out = Path(arguments.out)
    check_writable(out, "--out")
    text_files.check_include(arguments.files, arguments.include, "--include")
    files = text_files.expand_folders(arguments.files, include=arguments.include)
    with text_files.suggest_include(files, arguments.files, "--include"):
        if warning := text_files.check_plain_text(files):
            _log(warning)
    if line := text_files.describe_folders(files, arguments.files, arguments.include):
        _log(line)
    show = ProgressLine("bytes", sum(path.stat().st_size for path in files), enabled=True)
    try:
        with text_files.suggest_include(files, arguments.files, "--include"):
            options = {name: getattr(arguments, name) for name in TRAINING_OPTIONS}
            tokenizer = BPETokenizer.train_files(files, on_bytes=show, progress=True, **options)
    except TokenizerError as error:
        named = arguments.files[:MAX_NAMED_FILES]
        more = ["..."] if len(arguments.files) > len(named) else []
        message = str(error).replace("set vocab_size", "set --vocab-size")
        raise TokenizerError(f"{', '.join(named + more)}: {message}") from None
    finally:
        show.close()
    tokenizer.save(out)
    _log(
        f"learned {len(tokenizer.merges):,} merges from {show.done:,} bytes in {len(files):,} "
        f"file(s), {time.monotonic() - start:.1f} s; wrote {out} "
        f"(identity {tokenizer.identity[:12]})"
    )


def encode(arguments: argparse.Namespace) -> None:
    """Print ids, one line per text."""
    if arguments.text and arguments.file:
        raise UserError("give either text or --file, not both")
    _log(print_ids(_load_tokenizer(arguments), arguments))


def decode(arguments: argparse.Namespace) -> None:
    """Write the bytes of ids to stdout; a newline follows only if stdout is a terminal."""
    tokenizer = _load_tokenizer(arguments)
    if arguments.ids and arguments.file:
        raise UserError("give either ids or --file, not both")
    if arguments.ids:
        words, name = [os.fsencode(word) for word in arguments.ids], "ids"
    else:
        raw = read_bytes(arguments.file) if arguments.file else sys.stdin.buffer.read()
        words, name = raw.split(), arguments.file or text_files.STDIN
    with errors_at(name):
        decoded = tokenizer.decode_bytes([_parse_id(word) for word in words])
    if sys.stdout.isatty():
        decoded += b"\n"
    sys.stdout.buffer.write(decoded)
    sys.stdout.buffer.flush()
    _log(f"{len(words):,} tokens, {len(decoded):,} bytes")


def import_vocabulary(arguments: argparse.Namespace) -> None:
    """Convert another project's vocabulary to a tokenizer file."""
    out = Path(arguments.out)
    check_writable(out, "--out")
    special: dict[str, int | None] = {}
    for text, token_id in map(convert.parse_special, arguments.special):
        if text in special:
            raise UserError(f"--special {brief(text)} is given twice; give it once")
        special[text] = token_id
    tokenizer = convert.import_tokenizer(
        arguments.files, pattern=arguments.pattern, special=special
    )
    tokenizer.save(out)
    named = ", ".join(f"{text}={token_id}" for text, token_id in tokenizer.special_ids.items())
    _log(
        f"{tokenizer.vocab_size:,} ids: 256 bytes, {len(tokenizer.merges):,} merges, special "
        f"tokens {named or 'none'}; pattern {tokenizer.pattern}; wrote {out} "
        f"(identity {tokenizer.identity[:12]})"
    )


def export(arguments: argparse.Namespace) -> None:
    """Convert a tokenizer file to another project's format."""
    out = Path(arguments.out)
    check_writable(out, "--out", "folder" if arguments.to == "gpt2" else "file")
    tokenizer = BPETokenizer.load(arguments.tokenizer)
    with errors_at(arguments.tokenizer, "name another format with --to", TokenizerError):
        paths = convert.export_tokenizer(tokenizer, arguments.to, out)
    missing = convert.missing_from_export(tokenizer, arguments.to)
    _log(f"wrote {', '.join(map(str, paths))}" + (f"; not in it: {missing}" if missing else ""))


def _parse_id(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        shown = word.decode("utf-8", "backslashreplace")
        raise TokenizerError(
            f"{brief(shown)} is not an id; ids are whole numbers separated by blanks"
        ) from None


def _load_tokenizer(arguments: argparse.Namespace) -> BPETokenizer:
    path = Path(arguments.tokenizer or DEFAULT_TOKENIZER)
    if arguments.tokenizer is None and not path.exists():
        raise UserError(
            f"{path}: the default tokenizer is missing; name one with --tokenizer, or make it: "
            "python -m tok.bpe train data/tiny.txt --vocab-size 2048 --out tok/bpe.json"
        )
    return BPETokenizer.load(path)


def _log(line: str) -> None:
    print(line, file=sys.stderr)


# Name -> the function that runs the command, its help text, the function that adds its arguments.
COMMANDS = {
    "train": (train, "learn a vocabulary from text files and write a tokenizer file", _add_train),
    "encode": (encode, "convert text to ids, separated by blanks", _add_encode),
    "decode": (decode, "convert ids to text, byte for byte", _add_decode),
    "import": (
        import_vocabulary,
        "convert another project's vocabulary to a tokenizer file",
        _add_import,
    ),
    "export": (export, "convert a tokenizer file to another project's format", _add_export),
}
