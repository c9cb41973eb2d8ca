"""Unusual tokenizer.json files: the ids of the `tokenizers` library, or an error that explains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hostile import hostile_strings
from tok.errors import TokenizerError
from tok.formats.convert import import_tokenizer
from tok.formats.huggingface import write_huggingface
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

TEXTS = [*hostile_strings(60, seed=3), "abcabc <|endoftext|><x><y>a"]
BASE = BPETokenizer.train(hostile_strings(200, seed=5), vocab_size=300)
VERSION = "#version: 0.2 - Trained by `huggingface/tokenizers`"


def content() -> dict[str, Any]:
    """Return a tokenizer.json with its merges as strings, as in files from before 2024."""
    found = json.loads(write_huggingface(BASE))
    found["model"]["merges"] = [" ".join(pair) for pair in found["model"]["merges"]]
    return found


def with_merges(changed: list[Any]) -> dict[str, Any]:
    """Return `content` with other merges."""
    found = content()
    found["model"]["merges"] = changed
    return found


def with_tokens(*tokens: tuple[str, int, bool]) -> dict[str, Any]:
    """Return `content` with these special tokens: text, id, and whether model.vocab has it."""
    found = content()
    model = found["added_tokens"].pop()
    del found["model"]["vocab"]["<|endoftext|>"]
    for text, token_id, in_vocab in tokens:
        found["added_tokens"].append(model | {"content": text, "id": token_id})
        if in_vocab:
            found["model"]["vocab"][text] = token_id
    return found


def tiny(merges: list[str], ids: list[str]) -> dict[str, Any]:
    """Return a file of bytes and these merges; the ids of the tokens are in the order of `ids`."""
    found = with_tokens()
    vocab = {token: i for token, i in found["model"]["vocab"].items() if i < 256}
    found["model"] |= {
        "merges": merges,
        "vocab": vocab | {text: 256 + i for i, text in enumerate(ids)},
    }
    return found


MERGES = content()["model"]["merges"]
READ = {
    "a version first": with_merges([VERSION, *MERGES]),
    "a version in the middle": with_merges([*MERGES[:7], VERSION, "#version", *MERGES[7:]]),
    "a merge twice in a row": with_merges([*MERGES[:5], MERGES[4], *MERGES[4:]]),
    "the last merge twice": with_merges([*MERGES, MERGES[-1]]),
    "only the later place counts": tiny(["a b", "b c", "a b"], ["bc", "ab"]),
    "a gap before a token": with_tokens(("<|endoftext|>", 320, True)),
    "gaps": with_tokens(("<|endoftext|>", 320, True), ("<x>", 305, True), ("<y>", 400, True)),
    "ids after the vocabulary": with_tokens(("<|endoftext|>", 299, False), ("<x>", 300, False)),
}
EXPLAINED = {
    "the first merge again": (
        tiny(["a b", "ab c", "a b"], ["ab", "abc"]),
        "merge 1 joins 'ab', not made before it; of the merges that make it, one is repeated",
    ),
    "ids in the order of the first place": (
        tiny(["a b", "b c", "a b"], ["ab", "bc"]),
        "ids must follow the order of the merges",
    ),
    "a gap outside the vocabulary": (
        with_tokens(("<|endoftext|>", 299, True), ("<x>", 305, False)),
        "'<x>' has id 305 here, but the library .* gives it 300; .* add the token to model.vocab",
    ),
    "after a gap": (
        with_tokens(("<|endoftext|>", 320, True), ("<x>", 321, False)),
        "'<x>' has id 321 here, but the library that reads such files gives it 300 or 321",
    ),
    "a version as a pair": (
        with_merges([["#version:", "0.2"], *(merge.split(" ") for merge in MERGES)]),
        "merge 0 makes '#version:0.2', which is not an ordinary token",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_variant_gives_the_librarys_ids(name: str, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="oracle: pip install tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(READ[name]), encoding="utf-8")
    ours, theirs = import_tokenizer([path]), library.Tokenizer.from_file(str(path))
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special=True) == expected, repr(text)


@pytest.mark.parametrize(("variant", "message"), EXPLAINED.values(), ids=EXPLAINED)
def test_a_variant_that_cannot_be_read_is_explained(
    variant: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(variant), encoding="utf-8")
    with pytest.raises((UserError, TokenizerError), match=message):
        import_tokenizer([path])
