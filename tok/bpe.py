"""Byte-pair encoding, defined plainly. Read this first; the fast code is tested against it.

Text is split into pre-tokens (words, numbers, punctuation; tok/patterns.py). No token spans two of
them. The 256 bytes are the ids 0 to 255. Training merges the most frequent pair of neighbouring ids
into a new id, again and again. Encoding applies these merges in the order in which they were
learned (Gage 1994; Sennrich et al. 2016, arXiv 1508.07909; on bytes: Radford et al. 2019).

A worked example. The most frequent pair is (97, 98), the bytes "ab". It becomes the id 256:

>>> merges = train("abc abd", n_merges=2)
>>> merges
[(97, 98), (32, 256)]
>>> encode("abc ab", merges)
[256, 99, 257]
>>> decode([256, 99, 257], merges)
'abc ab'

`BPETokenizer` (tok/tokenizer.py) gives the same merges and ids, much faster; see
docs/tokenizer.md. The command line is in tok/cli.py:

    python -m tok.bpe train FILE... --vocab-size INT --out tok.json
    python -m tok.bpe encode|decode|import|export ...
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from tok.patterns import GPT2, Pattern, split, to_bytes, to_text
from tok.tokenizer import BPETokenizer

__all__ = ["BPETokenizer", "decode", "encode", "merge", "train"]

Pair = tuple[int, int]


def train(text: str | bytes, n_merges: int, pattern: Pattern = GPT2) -> list[Pair]:
    """Learn at most `n_merges` merges. Merge i makes the id 256 + i.

    Of equally frequent pairs, the one with the smaller first id (then second id) is merged first.
    """
    words = Counter(pretokens(text, pattern))
    ids_of_word = {word: list(word) for word in words}
    merges: list[Pair] = []
    for new_id in range(256, 256 + n_merges):
        counts: Counter[Pair] = Counter()
        for word, ids in ids_of_word.items():
            for pair in pairwise(ids):
                counts[pair] += words[word]
        if not counts:
            break  # every pre-token is a single id
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        ids_of_word = {word: merge(ids, best, new_id) for word, ids in ids_of_word.items()}
    return merges


def encode(text: str | bytes, merges: Sequence[Pair], pattern: Pattern = GPT2) -> list[int]:
    """Return the ids of a text."""
    return [i for word in pretokens(text, pattern) for i in encode_pretoken(word, merges)]


def encode_pretoken(word: bytes, merges: Sequence[Pair]) -> list[int]:
    """Return the ids of a pre-token: apply the merges in the order of learning."""
    ids = list(word)
    for new_id, pair in enumerate(merges, start=256):
        ids = merge(ids, pair, new_id)
    return ids


def decode(ids: Sequence[int], merges: Sequence[Pair]) -> str:
    """Return the text of ids. Bytes that are not UTF-8 become U+FFFD."""
    token_bytes = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        token_bytes.append(token_bytes[left] + token_bytes[right])
    return b"".join(token_bytes[i] for i in ids).decode("utf-8", "replace")


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of a pair, from left to right.

    >>> merge([1, 1, 1, 2], (1, 1), 256)
    [256, 1, 2]
    """
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def pretokens(text: str | bytes, pattern: Pattern) -> list[bytes]:
    """Return the pre-tokens of a text as bytes. Bytes that are not UTF-8 are kept."""
    return [to_bytes(word) for word in split(to_text(text), pattern)]


if __name__ == "__main__":
    from tok.cli import main
    from utils.errors import run_cli

    run_cli(main)
