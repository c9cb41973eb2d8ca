"""Tokenize text files: `python -m data.prepare FILE... --tokenizer tok.json --out DIR`.

A prepared folder holds train.npy, val.npy, tokenizer.json and meta.json (counts and identities).
The same inputs and settings give the same identity; a folder with that identity is reused.
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.document_source import DocumentSource
from data.documents import BLANK_LINE
from data.prepared_folder import (
    FORMAT,
    SPLITS,
    check_overwrite,
    is_up_to_date,
    locked_atomic_folder,
    read_meta,
    write_meta,
)
from data.stories import story as stories
from data.token_file import TokenFile, token_writer
from data.windows import cut_windows
from tok.encoding.parallel import encode_documents
from tok.errors import TokenizerError
from tok.tokenizer import BPETokenizer
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.files import sha256_file
from utils.output import log, log_if_not_tty, progress_bar

EXAMPLES = (
    "python -m data.prepare data/tiny.txt --doc-sep blank-line --out artifacts/tiny",
    "python -m data.prepare stories.jsonl.gz --json-field story --out artifacts/stories",
)


def prepare(
    config: DataConfig,
    vocab_size: int | None,
    out: Path | None = None,
    block_size: int | None = None,
    tokenizer: BPETokenizer | None = None,
) -> Path:
    """Make the prepared folder that the settings describe, unless it is up to date.

    Args:
        config: the documents, and the tokenizer file if any.
        vocab_size: vocabulary size of the tokenizer to train; a given tokenizer must have it, too.
            None = any size, if a tokenizer is given.
        out: the folder; by default one in config.cache_dir, named by its identity.
        block_size: if given, check that both splits can be cut into windows of that many tokens.
        tokenizer: used instead of the one that config names, if any.

    Returns:
        The prepared folder.

    Raises:
        UserError: the input is not usable; no files are left behind.
    """
    source = DocumentSource(config)
    tokenizer = given_tokenizer(config, vocab_size, tokenizer)
    recipe = {
        "format": FORMAT,
        "corpus": source.recipe(),
        "tokenizer": tokenizer.identity if tokenizer else f"trained to {vocab_size}",
    }
    identity = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    kind = "text" if source.files else "stories"
    folder = out or Path(config.cache_dir) / f"{kind}-{identity[:12]}"
    if is_up_to_date(folder, identity):
        return folder
    if out:
        check_overwrite(out, identity)
    with locked_atomic_folder(folder) as temporary:
        if not is_up_to_date(folder, identity):  # another process may have made it
            if out:  # ... from other settings
                check_overwrite(out, identity)
            if tokenizer is None:
                log_if_not_tty(
                    f"{folder}: training a tokenizer of {vocab_size} tokens on the {kind}"
                )
                tokenizer = train_tokenizer(source, vocab_size)
            meta = {"identity": identity, "recipe": recipe}
            write_prepared_files(temporary, source, tokenizer, meta, block_size)
            if source.files:
                log(source.describe_files())
    return folder


@lru_cache  # the points of a sweep share their text
def measure_text(config: DataConfig) -> tuple[int, float, int | None]:
    """Return the bytes of the text, and the share in characters of three or more bytes.

    The third value is the size of the vocabulary; None if a tokenizer will be trained.

    Raises:
        UserError: a file can't be read.
    """
    if config.dir:
        n_bytes, n_wide = sum(read_meta(Path(config.dir))[split]["bytes"] for split in SPLITS), 0
    else:
        n_bytes, n_wide = DocumentSource(config).count_bytes()
    file = f"{config.dir}/tokenizer.json" if config.dir else config.tokenizer
    return n_bytes, n_wide / n_bytes, BPETokenizer.load(file).vocab_size if file else None


def given_tokenizer(
    config: DataConfig, vocab_size: int | None, tokenizer: BPETokenizer | None
) -> BPETokenizer | None:
    """Return `tokenizer`, or else the one that the settings name; None if one must be trained.

    Raises:
        UserError: the file can't be read, or the tokenizer's vocabulary size is not `vocab_size`.
    """
    if config.tokenizer and not tokenizer:
        tokenizer = BPETokenizer.load(config.tokenizer)
    if tokenizer and vocab_size not in (None, tokenizer.vocab_size):
        origin = config.tokenizer or "the pretrained tokenizer"
        raise UserError(
            f"{origin}: a tokenizer of {tokenizer.vocab_size} tokens, but "
            f"model.vocab_size is {vocab_size}; set --model.vocab_size {tokenizer.vocab_size}"
        )
    return tokenizer


def train_tokenizer(source: DocumentSource, vocab_size: int | None) -> BPETokenizer:
    """Train a tokenizer on the training documents.

    Raises:
        UserError: the vocabulary is too small, or the text has too few pairs for it.
    """
    assert vocab_size is not None, "without a size, a tokenizer must be given"
    texts = source.documents("train")
    try:
        return BPETokenizer.train(texts, vocab_size=vocab_size, progress=True)
    except TokenizerError as error:
        message = str(error).replace("set vocab_size", "set --model.vocab_size")
        raise UserError(f"model.vocab_size: {message}") from None


def write_prepared_files(
    folder: Path,
    source: DocumentSource,
    tokenizer: BPETokenizer,
    meta: dict[str, Any],
    block_size: int | None,
) -> None:
    """Write the files of a prepared folder. `meta` holds the identity and recipe for meta.json."""
    tokenizer.save(folder / "tokenizer.json")
    meta |= {"tokenizer_sha256": tokenizer.identity, "vocab_size": tokenizer.vocab_size}
    meta["end_id"] = tokenizer.eot_id
    config = source.config
    for split in SPLITS:
        path = folder / f"{split}.npy"
        log_if_not_tty(f"encoding the {split} documents")
        meta[split] = write_split(path, source.documents(split), tokenizer, split)
        if block_size:
            with contextlib.closing(TokenFile(path)) as tokens:
                cut_windows(
                    tokens, config.windows, block_size, config.stride, eot_id=tokenizer.eot_id
                )
    if config.val_max_bytes:
        meta["val"]["part_bytes"] = source.val_part_bytes
    meta["sha256"] = {split: sha256_file(folder / f"{split}.npy") for split in SPLITS}
    meta["split"] = source.split
    meta["floor"] = story_floor(source)
    write_meta(folder, meta)


def write_split(
    path: Path, documents: Iterable[bytes], tokenizer: BPETokenizer, label: str, workers: int = 0
) -> dict[str, int]:
    """Encode documents into a token file, each followed by the end-of-text token.

    Args:
        label: of the progress bar.
        workers: number of processes, 0 = one per core; the file does not depend on it.

    Returns:
        The counts of tokens, bytes and documents.
    """
    n_bytes = n_documents = 0

    def counted() -> Iterator[bytes]:
        nonlocal n_bytes, n_documents
        for document in progress_bar(documents, desc=f"{label} documents", unit="", leave=False):
            n_bytes += len(document)
            n_documents += 1
            yield document

    with token_writer(path, tokenizer.vocab_size) as writer:
        for ids in encode_documents(tokenizer, counted(), workers=workers):
            writer.write(ids)
    return {"tokens": writer.n_tokens, "bytes": n_bytes, "documents": n_documents}


def story_floor(source: DocumentSource) -> dict[str, float] | None:
    """Return the entropy floor of the validation split; None if a document is not a story.

    Documents from files are examined only if split at blank lines, as files of stories are.
    """
    if source.files and source.config.doc_sep != BLANK_LINE:
        return None
    floor = stories.floor_if_stories(source.documents("val"))
    return asdict(floor) if floor else None


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a folder and print its counts as JSON."""
    parser = Parser(prog="data.prepare", description=__doc__, examples=EXAMPLES)
    parser.add_argument("files", nargs="+", metavar="FILE", help="text, .json, .gz, or folders")
    bpe_help = "file (default: %(default)s)"
    parser.add_argument("--tokenizer", default="tok/bpe.json", metavar="FILE", help=bpe_help)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="prepared folder to write")
    val_help = "files or folders for validation (default: a part of the others)"
    parser.add_argument("--val-files", nargs="*", metavar="FILE", default=[], help=val_help)
    settings = {field.name: field for field in fields(DataConfig)}
    include_help = settings["include"].metadata["help"]
    parser.add_argument("--include", nargs="+", default=(), metavar="PATTERN", help=include_help)
    for name in ("doc_sep", "json_field", "split", "val_fraction", "val_max_bytes", "errors"):
        default, about = settings[name].default, settings[name].metadata
        shown_default = " (default: %(default)s)" if default != "" else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            choices=about["choices"],
            help=about["help"] + shown_default,
        )
    args = vars(parser.parse_args(argv))
    out = Path(args.pop("out"))
    args |= {name: tuple(args[name]) for name in ("files", "val_files", "include")}
    try:
        folder = prepare(DataConfig(**args), None, out)
    except UserError as error:
        # Errors name settings as train.py spells them (--data.doc_sep); here they are spelled
        # --doc-sep.
        message = re.sub(
            r"--data\.(\w+)", lambda found: "--" + found[1].replace("_", "-"), str(error)
        )
        raise UserError(message) from None
    print(json.dumps({"folder": str(folder), **read_meta(folder)}))
    return 0


if __name__ == "__main__":
    run_cli(main)
