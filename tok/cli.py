"""The command line of the tokenizer: `python -m tok.bpe train|encode|decode|import|export`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tok.cli_encode import print_ids
from tok.encoding.progress import ProgressLine
from tok.errors import TokenizerError
from tok.formats import convert
from tok.patterns import PATTERNS
from tok.text_files import STDIN, expand_folders
from tok.tokenizer import BPETokenizer
from tok.vocabulary import BYTE_ORDERS
from utils.cli import Parser, nonnegative_int
from utils.errors import UserError
from utils.files import check_writable, read_bytes

DEFAULT_TOKENIZER = Path(__file__).with_name("bpe.json")
JSON_LINES = (".jsonl", ".ndjson")
NAMED_FILES = 3  # in a message; a shell pattern may have given thousands

DESCRIPTION = """Byte-level BPE tokenizer.

  python -m tok.bpe train data/tiny.txt --vocab-size 2048 --out tok.json
  python -m tok.bpe encode "Once upon a time" | python -m tok.bpe decode
  python -m tok.bpe encode --file story.txt --tokenizer tok.json > ids.txt
  python -m tok.bpe import tokenizer.json --out tok.json
  python -m tok.bpe export tok.json --to hf --out tokenizer.json

Results go to stdout, figures about them to stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Raises:
        UserError: a mistake of the user; nothing was written.
    """
    arguments = _parser().parse_args(argv)
    commands = {
        "train": train,
        "encode": encode,
        "decode": decode,
        "import": import_vocabulary,
        "export": export,
    }
    commands[arguments.command](arguments)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m tok.bpe", description=DESCRIPTION)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="train|encode|decode|import|export"
    )
    sub = commands.add_parser("train", help="learn a vocabulary from text files and write it")
    sub.add_argument("files", nargs="+", metavar="FILE", help="text files, or folders of them")
    sub.add_argument(
        "--vocab-size",
        type=int,
        required=True,
        metavar="N",
        help="all ids: 256 bytes, merges, specials",
    )
    sub.add_argument("--out", required=True, metavar="JSON", help="the tokenizer file to write")
    sub.add_argument(
        "--byte-order",
        choices=tuple(BYTE_ORDERS),
        default="value",
        help="ids of the 256 bytes, which decide ties: by value (default), or as GPT-2 and "
        "Hugging Face number them",
    )
    sub.add_argument(
        "--pattern",
        choices=tuple(PATTERNS),
        default="gpt2",
        help="how text is cut into pre-tokens (default: gpt2)",
    )
    _add_workers(sub, "processes that count; 0 = one for each core (default)")
    _add_errors(sub)
    sub = commands.add_parser("encode", help="text to ids, separated by blanks")
    sub.add_argument(
        "text", nargs="*", metavar="TEXT", help="a line of ids for each (default: standard input)"
    )
    sub.add_argument(
        "--allow-special", action="store_true", help="special tokens in the text get their ids"
    )
    _add_workers(
        sub,
        "processes for a large text; 0 = one for each core (default), 1 = none but this one",
    )
    _add_errors(sub)
    _add_source(sub)
    sub = commands.add_parser("decode", help="ids to text, or to the very bytes they stand for")
    sub.add_argument("ids", nargs="*", metavar="ID", help="ids (default: standard input)")
    _add_source(sub)
    _add_import(commands)
    _add_export(commands)
    return parser


def _add_import(commands: Any) -> None:
    sub = commands.add_parser("import", help="another project's vocabulary to our file")
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a tokenizer.json, or tiktoken's ranks, or GPT-2's encoder.json and vocab.bpe",
    )
    sub.add_argument("--out", required=True, metavar="JSON", help="the tokenizer file to write")
    sub.add_argument("--pattern", choices=tuple(PATTERNS), help="of tiktoken's ranks (required)")
    sub.add_argument(
        "--special",
        action="append",
        default=[],
        metavar="TEXT[=ID]",
        help="a special token: with its id for tiktoken's ranks, without for GPT-2's files",
    )


def _add_export(commands: Any) -> None:
    sub = commands.add_parser("export", help="our tokenizer file to another project's")
    sub.add_argument("tokenizer", metavar="JSON", help="a tokenizer file of llm-tiny")
    sub.add_argument(
        "--to",
        required=True,
        choices=convert.FORMATS,
        help="hf: a tokenizer.json; tiktoken: a file of ranks; gpt2: encoder.json and vocab.bpe",
    )
    sub.add_argument(
        "--out", required=True, metavar="PATH", help="the file to write (gpt2: the folder)"
    )


def _add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--workers", type=nonnegative_int, default=0, metavar="N", help=what)


def _add_errors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--errors",
        choices=("strict", "bytes"),
        default="strict",
        help="strict: refuse what is not UTF-8 (default); bytes: take any bytes",
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="read a file instead of standard input")
    parser.add_argument("--tokenizer", metavar="JSON", help="default: the committed tok/bpe.json")


def train(arguments: argparse.Namespace) -> None:
    """Learns a tokenizer from files and saves it."""
    start = time.monotonic()
    out = Path(arguments.out)
    check_writable(out, "--out")
    files = expand_folders(arguments.files)
    _check_kinds(files)
    show = ProgressLine("bytes", sum(path.stat().st_size for path in files), enabled=True)
    n_bytes = 0

    def counted(n: int) -> None:
        nonlocal n_bytes
        n_bytes = n
        show(n)

    try:
        tokenizer = BPETokenizer.train_files(
            files,
            vocab_size=arguments.vocab_size,
            byte_order=arguments.byte_order,
            pattern=arguments.pattern,
            errors=arguments.errors,
            workers=arguments.workers,
            on_bytes=counted,
            progress=True,
        )
    except TokenizerError as error:
        named = arguments.files[:NAMED_FILES]
        more = ["..."] if len(arguments.files) > len(named) else []
        raise TokenizerError(f"{', '.join(named + more)}: {error}") from None
    tokenizer.save(out)
    _say(
        f"learned {len(tokenizer.merges):,} merges from {n_bytes:,} bytes in {len(files):,} "
        f"file(s), {time.monotonic() - start:.1f} s; wrote {out} "
        f"(identity {tokenizer.identity[:12]})"
    )


def encode(arguments: argparse.Namespace) -> None:
    """Prints ids: one line for each text."""
    if arguments.text and arguments.file:
        raise UserError("give either text or --file, not both")
    _say(print_ids(_tokenizer(arguments), arguments))


def decode(arguments: argparse.Namespace) -> None:
    """Writes the bytes that ids stand for, and nothing else, unless a person looks on."""
    tokenizer = _tokenizer(arguments)
    if arguments.ids and arguments.file:
        raise UserError("give either ids or --file, not both")
    if arguments.ids:
        words, name = [os.fsencode(word) for word in arguments.ids], "ids"
    else:
        raw, name = _read_input(arguments)
        words = raw.split()
    try:
        decoded = tokenizer.decode_bytes([_parse_id(word) for word in words])
    except TokenizerError as error:
        raise UserError(f"{name}: {error}") from None
    if sys.stdout.isatty():
        decoded += b"\n"
    sys.stdout.buffer.write(decoded)
    sys.stdout.buffer.flush()
    _say(f"{len(words):,} tokens, {len(decoded):,} bytes")


def import_vocabulary(arguments: argparse.Namespace) -> None:
    """Writes our file of another project's vocabulary."""
    out = Path(arguments.out)
    check_writable(out, "--out")
    special: dict[str, int | None] = {}
    for text, token_id in map(convert.parse_special, arguments.special):
        if text in special:
            raise UserError(f"--special {text!r:.40} is given twice")
        special[text] = token_id
    tokenizer = convert.import_tokenizer(
        arguments.files, pattern=arguments.pattern, special=special
    )
    tokenizer.save(out)
    named = ", ".join(f"{text}={token_id}" for text, token_id in tokenizer.special_ids.items())
    _say(
        f"{tokenizer.vocab_size:,} ids: 256 bytes, {len(tokenizer.merges):,} merges, special "
        f"tokens {named or 'none'}; pattern {tokenizer.pattern}; wrote {out} "
        f"(identity {tokenizer.identity[:12]})"
    )


def export(arguments: argparse.Namespace) -> None:
    """Writes another project's file of our tokenizer."""
    out = Path(arguments.out)
    check_writable(out, "--out", "folder" if arguments.to == "gpt2" else "file")
    tokenizer = BPETokenizer.load(arguments.tokenizer)
    try:
        paths = convert.export_tokenizer(tokenizer, arguments.to, out)
    except TokenizerError as error:
        raise TokenizerError(f"{arguments.tokenizer}: {error}") from None
    missing = convert.missing_from_export(tokenizer, arguments.to)
    _say(f"wrote {', '.join(map(str, paths))}" + (f"; not in it: {missing}" if missing else ""))


def _check_kinds(files: Sequence[Path]) -> None:
    """Tells of files that are no plain text by their names: data.readers, above us, knows them.

    Raises:
        UserError: one is packed, and its bytes are noise.
    """
    for path in files:
        if path.suffix.lower() == ".gz":
            raise UserError(f"{path}: packed; unpack it first (gunzip --keep)")
    lines = [path for path in files if path.suffix.lower() in JSON_LINES]
    if lines:
        _say(
            f"warning: {lines[0]}: JSON is learned as it stands, names and braces too; train.py "
            "--data.files learns from the texts in it alone, and leaves tokenizer.json in the run"
        )


def _parse_id(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        shown = word.decode("utf-8", "backslashreplace")
        raise TokenizerError(
            f"{shown!r:.40} is no id; ids are whole numbers between blanks"
        ) from None


def _tokenizer(arguments: argparse.Namespace) -> BPETokenizer:
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


def _say(line: str) -> None:
    print(line, file=sys.stderr)
