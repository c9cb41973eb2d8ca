"""The ids of a vocabulary (bytes, merges, special tokens): what they may be and stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tok.errors import TokenizerError

Pair = tuple[int, int]

END_OF_TEXT = "<|endoftext|>"

# Name -> the id of each byte.
BYTE_ORDERS = {"value": bytes(range(256))}

# All tokens together. Without a limit a hostile file of 40 merges could ask for 2^40 bytes.
MAX_VOCABULARY_BYTES = 1 << 28


def check_merges(merges: Sequence[Any]) -> tuple[Pair, ...]:
    """The merges as a tuple of pairs, if each joins two ids before it and none comes twice.

    Raises:
        TokenizerError: names the merge by its number (from 0) and what is wrong with it.
    """
    checked: dict[Pair, int] = {}
    for rank, pair in enumerate(merges):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TokenizerError(f"merge {rank} is not a pair of ids: {pair!r:.40}")
        first, second = pair
        for part in pair:
            if type(part) is not int or not 0 <= part < 256 + rank:
                raise TokenizerError(
                    f"merge {rank} joins {part!r:.40}, but the ids before it are 0 to {255 + rank}"
                )
        if (first, second) in checked:
            raise TokenizerError(
                f"merge {rank} joins {first} and {second}, as merge {checked[first, second]} does"
            )
        checked[first, second] = rank
    return tuple(checked)


def token_lengths(merges: Sequence[Pair]) -> list[int]:
    """Bytes of each id below the special tokens.

    >>> token_lengths([(97, 98), (256, 256)])[255:]
    [1, 2, 4]

    Raises:
        TokenizerError: the tokens together are unreasonably long.
    """
    lengths = [1] * 256
    total = 0
    for rank, (first, second) in enumerate(merges):
        lengths.append(lengths[first] + lengths[second])
        total += lengths[-1]
        if total > MAX_VOCABULARY_BYTES:
            raise TokenizerError(
                f"the tokens up to merge {rank} are longer than {MAX_VOCABULARY_BYTES} bytes"
            )
    return lengths


def token_bytes(merges: Sequence[Pair], byte_ids: bytes) -> list[bytes]:
    """The bytes of each id below the special tokens; `byte_ids[b]` is the id of byte b.

    >>> token_bytes([(97, 98), (256, 99)], BYTE_ORDERS["value"])[256:]
    [b'ab', b'abc']
    """
    tokens = [bytes([byte_ids.index(token_id)]) for token_id in range(256)]
    for first, second in merges:
        tokens.append(tokens[first] + tokens[second])
    return tokens


def check_special_tokens(tokens: Sequence[Any]) -> tuple[str, ...]:
    """The special tokens as a tuple, if they are distinct, not empty and have a UTF-8 form.

    Raises:
        TokenizerError: names the token.
    """
    if isinstance(tokens, str):
        raise TokenizerError(f"special tokens must be a list of str, not {tokens!r:.40}")
    checked: dict[str, None] = {}  # a dict keeps the order
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise TokenizerError(
                f"a special token must be a str that is not empty, not {token!r:.40}"
            )
        if any("\ud800" <= char <= "\udfff" for char in token):
            raise TokenizerError(f"special token {token!r:.40} holds a lone surrogate")
        if token in checked:
            raise TokenizerError(f"special token {token!r:.40} is given twice")
        checked[token] = None
    return tuple(checked)


def count_merges(vocab_size: Any, n_special: int) -> int:
    """How many merges a vocabulary of that size holds.

    >>> count_merges(300, 1)
    43

    Raises:
        TokenizerError: no whole number, or smaller than the bytes and special tokens.
    """
    if type(vocab_size) is not int:
        raise TokenizerError(f"vocabulary size must be a whole number, not {vocab_size!r:.40}")
    if vocab_size < 256 + n_special:
        raise TokenizerError(
            f"vocabulary {vocab_size} is too small: 256 bytes and {n_special} special "
            f"{'token' if n_special == 1 else 'tokens'} need at least {256 + n_special}"
        )
    return vocab_size - 256 - n_special
