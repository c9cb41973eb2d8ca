"""Command line of the tokenizer: `python -m tok.bpe train|encode|decode|import|export`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tok.cli_encode import print_ids
from tok.encoding.progress import ProgressLine
from tok.errors import TokenizerError
from tok.formats import convert
from tok.patterns import PATTERNS
from tok.text_files import (
    STDIN,
    check_include,
    check_plain_text,
    describe_folders,
    expand_folders,
    suggest_include,
)
from tok.tokenizer import BPETokenizer
from tok.vocabulary import BYTE_ORDERS
from utils.cli import Parser, nonnegative_int
from utils.errors import UserError, brief, errors_at
from utils.files import check_writable, read_bytes

DEFAULT_TOKENIZER = Path(__file__).with_name("bpe.json")
MAX_NAMED_FILES = 3  # in a message; a shell pattern can expand to thousands

DESCRIPTION = """Byte-level BPE tokenizer: train it, encode text, decode ids, convert vocabularies.
Results go to stdout; counts and timings go to stderr."""
_RUN = "python -m tok.bpe"
EXAMPLES = {
    "train": [
        f"{_RUN} train data/tiny.txt --vocab-size 2048 --out tok.json",
        f"{_RUN} train texts/ --vocab-size 32768 --pattern cl100k --out tok.json",
    ],
    "encode": [
        f'{_RUN} encode "Once upon a time" | {_RUN} decode',
        f"{_RUN} encode --file story.txt --tokenizer tok.json > ids.txt",
    ],
    "decode": [
        f"{_RUN} decode 72 105",
        f"{_RUN} decode --file ids.txt --tokenizer tok.json > story.txt",
    ],
    "import": [
        f"{_RUN} import tokenizer.json --out tok.json",
        f'{_RUN} import r50k.tiktoken --pattern gpt2 --special "<|endoftext|>=50256" --out t.json',
    ],
    "export": [
        f"{_RUN} export tok.json --to hf --out tokenizer.json",
        f"{_RUN} export tok.json --to gpt2 --out gpt2/",
    ],
}


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
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="train|encode|decode|import|export"
    )
    _add_train(commands)
    _add_encode(commands)
    _add_decode(commands)
    _add_import(commands)
    _add_export(commands)
    return parser


def _add_command(commands: Any, name: str, run: Callable[..., None], text: str) -> Parser:
    description = f"{text[0].upper()}{text[1:]}."
    sub = commands.add_parser(name, help=text, description=description, examples=EXAMPLES[name])
    sub.set_defaults(run=run)
    return sub


def _add_train(commands: Any) -> None:
    sub = _add_command(
        commands, "train", train, "learn a vocabulary from text files and write a tokenizer file"
    )
    sub.add_argument("files", nargs="+", metavar="FILE", help="text files, or folders of them")
    about = "patterns of the files to read in folders, such as '*.md' (default: all files)"
    sub.add_argument("--include", nargs="+", default=(), metavar="PATTERN", help=about)
    about = "number of ids: 256 bytes, merges and special tokens"
    sub.add_argument("--vocab-size", type=int, required=True, help=about)
    sub.add_argument("--out", required=True, metavar="FILE", help="tokenizer file to write")
    about = "order of the ids of the 256 bytes, which decides between equally frequent pairs: by "
    about += "value (default), or as in GPT-2 and Hugging Face"
    sub.add_argument("--byte-order", choices=tuple(BYTE_ORDERS), default="value", help=about)
    about = "how text is split into pre-tokens (default: gpt2)"
    sub.add_argument("--pattern", choices=tuple(PATTERNS), default="gpt2", help=about)
    _add_workers(sub, "processes that count pre-tokens; 0 = one per core (default)")
    _add_errors(sub)


def _add_encode(commands: Any) -> None:
    sub = _add_command(commands, "encode", encode, "convert text to ids, separated by blanks")
    about = "texts, one line of ids for each (default: standard input)"
    sub.add_argument("text", nargs="*", metavar="TEXT", help=about)
    about = "encode special tokens in the text as their ids (default: as plain text)"
    sub.add_argument("--allow-special", action="store_true", help=about)
    _add_workers(
        sub, "processes for a large text; 0 = one per core (default), 1 = no other process"
    )
    _add_errors(sub)
    _add_source(sub)


def _add_decode(commands: Any) -> None:
    sub = _add_command(commands, "decode", decode, "convert ids to text, byte for byte")
    sub.add_argument("ids", nargs="*", metavar="INT", help="ids (default: standard input)")
    _add_source(sub)


def _add_import(commands: Any) -> None:
    sub = _add_command(
        commands,
        "import",
        import_vocabulary,
        "convert another project's vocabulary to a tokenizer file",
    )
    about = "a tokenizer.json, a tiktoken file of ranks, or GPT-2's encoder.json and vocab.bpe"
    sub.add_argument("files", nargs="+", metavar="FILE", help=about)
    sub.add_argument("--out", required=True, metavar="FILE", help="tokenizer file to write")
    sub.add_argument(
        "--pattern", choices=tuple(PATTERNS), help="split pattern; required for tiktoken's ranks"
    )
    about = "a special token: with its id for tiktoken's ranks, without for GPT-2's files"
    sub.add_argument("--special", action="append", default=[], metavar="TEXT[=ID]", help=about)


def _add_export(commands: Any) -> None:
    sub = _add_command(
        commands, "export", export, "convert a tokenizer file to another project's format"
    )
    sub.add_argument("tokenizer", metavar="FILE", help="a tokenizer file of llm-tiny")
    about = "hf: a tokenizer.json; tiktoken: a file of ranks; gpt2: encoder.json and vocab.bpe"
    sub.add_argument("--to", required=True, choices=convert.FORMATS, help=about)
    sub.add_argument(
        "--out", required=True, metavar="PATH", help="file to write (for gpt2: folder)"
    )


def _add_workers(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--workers", type=nonnegative_int, default=0, help=text)


def _add_errors(parser: argparse.ArgumentParser) -> None:
    about = "strict: reject text that is not UTF-8 (default); bytes: accept any bytes"
    parser.add_argument("--errors", choices=("strict", "bytes"), default="strict", help=about)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="read a file instead of standard input")
    parser.add_argument(
        "--tokenizer", metavar="FILE", help="tokenizer file (default: tok/bpe.json)"
    )


def train(arguments: argparse.Namespace) -> None:
    """Learn a tokenizer from files and save it."""
    start = time.monotonic()
    out = Path(arguments.out)
    check_writable(out, "--out")
    check_include(arguments.files, arguments.include, "--include")
    files = expand_folders(arguments.files, include=arguments.include)
    with suggest_include(files, arguments.files, "--include"):
        if warning := check_plain_text(files):
            _log(warning)
    if line := describe_folders(files, arguments.files, arguments.include):
        _log(line)
    show = ProgressLine("bytes", sum(path.stat().st_size for path in files), enabled=True)
    n_bytes = 0

    def on_bytes(n: int) -> None:
        nonlocal n_bytes
        n_bytes = n
        show(n)

    try:
        with suggest_include(files, arguments.files, "--include"):
            tokenizer = BPETokenizer.train_files(
                files,
                vocab_size=arguments.vocab_size,
                byte_order=arguments.byte_order,
                pattern=arguments.pattern,
                errors=arguments.errors,
                workers=arguments.workers,
                on_bytes=on_bytes,
                progress=True,
            )
    except TokenizerError as error:
        named = arguments.files[:MAX_NAMED_FILES]
        more = ["..."] if len(arguments.files) > len(named) else []
        message = str(error).replace("set vocab_size", "set --vocab-size")
        raise TokenizerError(f"{', '.join(named + more)}: {message}") from None
    finally:
        show.close()
    tokenizer.save(out)
    _log(
        f"learned {len(tokenizer.merges):,} merges from {n_bytes:,} bytes in {len(files):,} "
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
        raw, name = _read_input(arguments)
        words = raw.split()
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


def _read_input(arguments: argparse.Namespace) -> tuple[bytes, str]:
    if arguments.file:
        return read_bytes(arguments.file), arguments.file
    return sys.stdin.buffer.read(), STDIN


def _log(line: str) -> None:
    print(line, file=sys.stderr)
