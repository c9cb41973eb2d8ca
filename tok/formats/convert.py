"""Convert between our tokenizer file and those of other projects (commands import and export)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tok.errors import TokenizerError
from tok.formats.gpt2 import read_gpt2, write_gpt2
from tok.formats.huggingface import read_huggingface, write_huggingface
from tok.formats.tiktoken import read_tiktoken, write_tiktoken
from tok.tokenizer import BPETokenizer
from tok.tokenizer_file import FORMAT, parse_json
from utils.errors import UserError, errors_at
from utils.files import decode_utf8, read_bytes, write_all_atomic

FORMATS = ("hf", "tiktoken", "gpt2")


def import_tokenizer(
    paths: Sequence[str | Path],
    *,
    pattern: str | None = None,
    special: Mapping[str, int | None] | None = None,
) -> BPETokenizer:
    """Read another project's vocabulary. The format is detected from the content.

    Args:
        paths: a tokenizer.json, a tiktoken file of ranks, or GPT-2's two files.
        pattern: the split pattern, for a tiktoken file, which does not contain it.
        special: special token -> id, for tokens that the file does not contain or mark; None = the
            id in the file.

    Raises:
        UserError: a file can't be read.
        TokenizerError: this package can't represent the vocabulary; the message names the file and
            the reason.
    """
    raws = [read_bytes(path) for path in paths]
    with errors_at(", ".join(map(str, paths)), "use another file", TokenizerError):
        return BPETokenizer(**_tokenizer_kwargs(raws, pattern, dict(special or {})))


def export_tokenizer(tokenizer: BPETokenizer, kind: str, out: str | Path) -> list[Path]:
    """Write a tokenizer in another project's format; return the files written.

    Args:
        kind: "hf" (a tokenizer.json), "tiktoken" (a file of ranks) or "gpt2" (a folder, created if
            necessary, with encoder.json and vocab.bpe).

    Raises:
        TokenizerError: the format can't represent the tokenizer; nothing was written.
        OSError: a file can't be written.
    """
    out = Path(out)
    if kind not in FORMATS:
        raise TokenizerError(f"unknown format {kind!r}; known: {', '.join(FORMATS)}")
    if kind == "gpt2":
        contents = {out / name: raw for name, raw in write_gpt2(tokenizer).items()}
        for path, raw in contents.items():
            if path.exists() and path.read_bytes() != raw:
                raise TokenizerError(f"{path} exists and is different; name another --out")
    else:
        write = write_huggingface if kind == "hf" else write_tiktoken
        contents = {out: write(tokenizer)}
    write_all_atomic(contents)
    return list(contents)


def read_folder_tokenizer(folder: Path, vocab_size: int) -> BPETokenizer:
    """Read the tokenizer of a Hugging Face folder: tokenizer.json, or GPT-2's two files.

    Args:
        vocab_size: of the model in the folder.

    Raises:
        UserError: there is no tokenizer, this package can't give the same ids, or its vocabulary
            size differs from the model's.
    """
    whole, parts = folder / "tokenizer.json", [folder / "vocab.json", folder / "merges.txt"]
    if not whole.exists() and not all(path.exists() for path in parts):
        raise UserError(f"{folder}: no tokenizer.json, and no vocab.json with merges.txt")
    tokenizer = import_tokenizer([whole] if whole.exists() else parts)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{folder}: the model has {vocab_size} tokens, the tokenizer {tokenizer.vocab_size}; "
            "resize the embeddings to the tokenizer's size first"
        )
    return tokenizer


def _tokenizer_kwargs(
    raws: list[bytes], pattern: str | None, special: dict[str, int | None]
) -> dict[str, Any]:
    """Detect the format; return the keyword arguments of BPETokenizer."""
    parsed = [parse_json(raw) if raw.lstrip().startswith(b"{") else None for raw in raws]
    objects = [one for one in parsed if one is not None]
    if len(raws) == 2 and len(objects) == 1:
        _reject_unused_settings(pattern, special, allow_special=True)
        merges = decode_utf8(raws[parsed.index(None)], "the merges", hint="give vocab.bpe")
        return read_gpt2(objects[0], merges, list(special))
    if len(raws) != 1:
        raise TokenizerError("give one file, or GPT-2's two: encoder.json and vocab.bpe")
    if objects:
        if objects[0].get("format") == FORMAT:
            raise TokenizerError("this is already a tokenizer of llm-tiny: nothing to import")
        if "model" not in objects[0]:
            raise TokenizerError(
                "not a tokenizer.json (no model in it); "
                "for GPT-2's encoder.json, give vocab.bpe too"
            )
        _reject_unused_settings(pattern, special, allow_special=False)
        return read_huggingface(objects[0])
    return _tiktoken_kwargs(raws[0], pattern, special)


def _tiktoken_kwargs(
    raw: bytes, pattern: str | None, special: dict[str, int | None]
) -> dict[str, Any]:
    special_ids: dict[str, int] = {}
    for token, token_id in special.items():
        if token_id is None:
            raise TokenizerError(f"--special {token!r:.40} needs its id: --special TEXT=ID")
        special_ids[token] = token_id
    found = read_tiktoken(raw, special_ids)
    if pattern is None:  # a wrong default would silently give wrong ids
        raise TokenizerError(
            "a file of ranks does not name its split pattern: add --pattern gpt2 "
            "(GPT-2, r50k, p50k), or another that python -m tok.bpe import --help lists"
        )
    return found | {"pattern": pattern}


def _reject_unused_settings(
    pattern: str | None, special: Mapping[str, int | None], *, allow_special: bool
) -> None:
    """Raise TokenizerError for settings that the format of the file determines itself."""
    if pattern is not None:
        raise TokenizerError("--pattern is for tiktoken's ranks; this kind of file has its own")
    if special and not allow_special:
        raise TokenizerError("--special is not for a tokenizer.json, which lists its own")
    if any(token_id is not None for token_id in special.values()):
        raise TokenizerError("--special TEXT=ID: encoder.json has the ids; give --special TEXT")


def missing_from_export(tokenizer: BPETokenizer, kind: str) -> str:
    """Describe what a file of format `kind` (one of FORMATS) can't contain; "" if nothing."""
    special = ", ".join(f"{token}={i}" for token, i in tokenizer.special_ids.items())
    if kind == "tiktoken":
        return f"pattern {tokenizer.pattern}; special tokens {special or 'none'}"
    return f"which tokens are special: {special}" if kind == "gpt2" and special else ""


def parse_special(word: str) -> tuple[str, int | None]:
    """Parse `TEXT=ID` or `TEXT` of the flag --special.

    >>> parse_special("<|endoftext|>=50256"), parse_special("<a=b>")
    (('<|endoftext|>', 50256), ('<a=b>', None))
    """
    text, equals, digits = word.rpartition("=")
    if equals and digits.isascii() and digits.isdigit():
        return text, int(digits)
    if not word:
        raise UserError("--special: a special token can't be empty")
    return word, None
