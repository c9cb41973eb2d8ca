"""Between our tokenizer file and other projects': `python -m tok.bpe import` and `export`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tok.errors import TokenizerError
from tok.formats.gpt2 import read_gpt2, write_gpt2
from tok.formats.huggingface import read_huggingface, write_huggingface
from tok.formats.tiktoken import read_tiktoken, write_tiktoken
from tok.tokenizer import BPETokenizer
from tok.tokenizer_file import FORMAT, no_duplicates
from tok.vocabulary import END_OF_TEXT
from utils.errors import UserError
from utils.files import decode_utf8, json_bytes, read_bytes, write_atomic

FORMATS = ("hf", "tiktoken", "gpt2")


def import_tokenizer(
    paths: Sequence[str | Path],
    *,
    pattern: str | None = None,
    special: Mapping[str, int | None] | None = None,
) -> BPETokenizer:
    """Reads another project's vocabulary; what kind of file it is, is seen from its content.

    Args:
        paths: a tokenizer.json, or a file of tiktoken's ranks, or GPT-2's two files.
        pattern: the split pattern, which tiktoken's file does not hold (the others do).
        special: special tokens that the file does not hold or mark -> id (None: as in the file).

    Raises:
        UserError: a file can't be read.
        TokenizerError: names the file and what in it this package can't represent.
    """
    raws = [read_bytes(path) for path in paths]
    name = ", ".join(map(str, paths))
    try:
        return BPETokenizer(**_arguments(raws, pattern, dict(special or {})))
    except UserError as error:
        raise TokenizerError(f"{name}: {error}") from None


def export_tokenizer(tokenizer: BPETokenizer, kind: str, out: str | Path) -> list[Path]:
    """Writes a tokenizer for another project; returns the files written.

    Args:
        kind: "hf" (a tokenizer.json), "tiktoken" (a file of ranks) or "gpt2" (a folder, made if it
            is not there, with encoder.json and vocab.bpe).

    Raises:
        TokenizerError: the format can't represent it; nothing was written.
        OSError: a file can't be written.
    """
    out = Path(out)
    if kind not in FORMATS:
        raise TokenizerError(f"unknown format {kind!r}; known: {', '.join(FORMATS)}")
    if kind == "gpt2":
        contents = {out / name: raw for name, raw in write_gpt2(tokenizer).items()}
        out.mkdir(parents=True, exist_ok=True)
    else:
        write = write_huggingface if kind == "hf" else write_tiktoken
        contents = {out: write(tokenizer)}
    for path, raw in contents.items():
        write_atomic(path, raw)
    return list(contents)


def read_folder_tokenizer(folder: Path, vocab_size: int) -> BPETokenizer:
    """Read the tokenizer of a Hugging Face folder: tokenizer.json, or GPT-2's two files.

    Args:
        vocab_size: tokens of the model in the folder.

    Raises:
        UserError: there is none, one whose ids this package would not give, or one of another size.
    """
    whole, parts = folder / "tokenizer.json", [folder / "vocab.json", folder / "merges.txt"]
    if not whole.exists() and not all(path.exists() for path in parts):
        raise UserError(f"{folder}: no tokenizer.json, and no vocab.json with merges.txt")
    tokenizer = import_tokenizer([whole] if whole.exists() else parts)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{folder}: the model has {vocab_size} tokens, the tokenizer {tokenizer.vocab_size}; "
            "cut or fill the embeddings to one size first"
        )
    return tokenizer


def folder_tokenizer_files(tokenizer: BPETokenizer, max_length: int) -> dict[str, bytes]:
    """Name -> content of the files that transformers' AutoTokenizer loads.

    Args:
        max_length: tokens that the model can read.

    Raises:
        TokenizerError: tokenizer.json can't hold the tokenizer.
    """
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    settings = {
        # Without a class one is chosen by model_type, and some of those change ids.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        **names,
    }
    return {
        "tokenizer.json": write_huggingface(tokenizer),
        "tokenizer_config.json": json_bytes(settings),
        "special_tokens_map.json": json_bytes(names),
    }


def _arguments(
    raws: list[bytes], pattern: str | None, special: dict[str, int | None]
) -> dict[str, Any]:
    parsed = [_parse_json(raw) for raw in raws]
    objects = [one for one in parsed if one is not None]
    if len(raws) == 2 and len(objects) == 1:
        _refuse(pattern, special, with_ids=True)
        merges = decode_utf8(raws[parsed.index(None)], "the merges", hint="give vocab.bpe")
        return read_gpt2(objects[0], merges, list(special))
    if len(raws) != 1:
        raise TokenizerError("give one file, or GPT-2's two: encoder.json and vocab.bpe")
    if objects:
        if objects[0].get("format") == FORMAT:
            raise TokenizerError("this is a tokenizer of llm-tiny already: nothing to import")
        if "model" not in objects[0]:
            raise TokenizerError(
                "no tokenizer.json (no model in it); of GPT-2's encoder.json, give vocab.bpe too"
            )
        _refuse(pattern, special, with_ids=False)
        return read_huggingface(objects[0])
    return _tiktoken_arguments(raws[0], pattern, special)


def _tiktoken_arguments(
    raw: bytes, pattern: str | None, special: dict[str, int | None]
) -> dict[str, Any]:
    special_ids: dict[str, int] = {}
    for token, token_id in special.items():
        if token_id is None:
            raise TokenizerError(f"--special {token!r:.40} needs its id: --special TEXT=ID")
        special_ids[token] = token_id
    found = read_tiktoken(raw, special_ids)
    if pattern is None:  # a wrong guess would give other ids without a word
        raise TokenizerError(
            "a file of ranks does not name its split pattern: add --pattern gpt2 "
            "(GPT-2, r50k, p50k), or another that python -m tok.bpe import --help lists"
        )
    return found | {"pattern": pattern}


def _refuse(pattern: str | None, special: Mapping[str, int | None], *, with_ids: bool) -> None:
    """Settings that this kind of file decides itself are not silently ignored."""
    if pattern is not None:
        raise TokenizerError("--pattern is for tiktoken's ranks; this kind of file has its own")
    if special and not with_ids:
        raise TokenizerError("--special is not for a tokenizer.json, which lists its own")
    if any(token_id is not None for token_id in special.values()):
        raise TokenizerError("--special TEXT=ID: encoder.json has the ids; give --special TEXT")


def _parse_json(raw: bytes) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is none."""
    if not raw.lstrip().startswith(b"{"):
        return None
    try:
        return json.loads(raw, object_pairs_hook=no_duplicates)
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not valid JSON: {error}") from None


def missing_from_export(tokenizer: BPETokenizer, kind: str) -> str:
    """What an exported file does not say, and its reader must be told; "" if it says all."""
    special = ", ".join(f"{token}={i}" for token, i in tokenizer.special_ids.items())
    if kind == "tiktoken":
        return f"pattern {tokenizer.pattern}; special tokens {special or 'none'}"
    return f"which tokens are special: {special}" if kind == "gpt2" and special else ""


def parse_special(word: str) -> tuple[str, int | None]:
    """`TEXT=ID` or `TEXT` of the command line.

    >>> parse_special("<|endoftext|>=50256"), parse_special("<a=b>")
    (('<|endoftext|>', 50256), ('<a=b>', None))
    """
    text, equals, digits = word.rpartition("=")
    if equals and digits.isascii() and digits.isdigit():
        return text, int(digits)
    if not word:
        raise UserError("--special: a special token can't be empty")
    return word, None
