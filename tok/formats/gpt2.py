"""GPT-2's two files: encoder.json (token -> id) and vocab.bpe (one merge per line).

Tokens are written as printable text (tok.vocabulary.to_printable). Hugging Face's vocab.json and
merges.txt have the same format. The split pattern is GPT-2's implicitly, and special tokens are not
marked: on reading, those other than <|endoftext|> must be given.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from tok.errors import TokenizerError
from tok.formats.printable_vocab import tokenizer_kwargs, vocab_dict
from tok.patterns import GPT2
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT, to_printable

ENCODER = "encoder.json"
MERGES = "vocab.bpe"
_VERSION = "#version:"


def write_gpt2(tokenizer: BPETokenizer) -> dict[str, bytes]:
    """Return file name -> content.

    Raises:
        TokenizerError: the pattern is not GPT-2's, or two tokens have the same printable text.
    """
    if tokenizer.pattern != GPT2.name:
        raise TokenizerError(
            f"pattern {tokenizer.pattern}: GPT-2's files are always split by GPT-2's; export to hf"
        )
    ids = vocab_dict(tokenizer)
    texts = [to_printable(tokenizer.token_bytes[token_id]) for token_id in tokenizer.ordinary_ids]
    lines = [f"{texts[first]} {texts[second]}\n" for first, second in tokenizer.merges]
    return {
        ENCODER: json.dumps(ids).encode("ascii"),
        MERGES: "".join([f"{_VERSION} 0.2\n", *lines]).encode("utf-8"),
    }


def read_gpt2(ids: Mapping[str, Any], merges: str, special: Collection[str]) -> dict[str, Any]:
    """Return the keyword arguments of BPETokenizer.

    Args:
        ids: content of encoder.json, parsed.
        merges: content of vocab.bpe.
        special: the special tokens other than <|endoftext|>.

    Raises:
        TokenizerError: a line, token or merge is invalid; the message names it.
    """
    lines = merges.removesuffix("\n").split("\n")
    skipped = 1 if lines[0].startswith(_VERSION) else 0
    pairs = []
    for number, line in enumerate(lines[skipped:], start=skipped + 1):
        first, blank, second = line.removesuffix("\r").partition(" ")
        if not (first and second) or " " in second:
            if not line and number == len(lines):  # a file without merges
                break
            raise TokenizerError(
                f"line {number} of the merges is not a pair of tokens: {line!r:.60}"
            )
        pairs.append((first, second))
    for token in special:
        if token not in ids:
            raise TokenizerError(f"--special {token!r:.60}: no such token in the vocabulary")
    all_special = {*special, END_OF_TEXT} if END_OF_TEXT in ids else set(special)
    special_ids = {token: ids[token] for token in all_special}
    return tokenizer_kwargs(ids, pairs, special_ids) | {"pattern": GPT2.name}
