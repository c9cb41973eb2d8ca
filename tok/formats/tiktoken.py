"""tiktoken's file of ranks: one line per token, with its bytes in base64 and its id.

tiktoken calls this id the rank of the token. If a special token has a lower id, it differs from the
rank in tok.vocabulary, which counts ordinary tokens only. The file contains neither the split
pattern nor the special tokens; tiktoken takes them as arguments.
"""

import binascii
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tok.errors import TokenizerError
from tok.formats.reachability import Merger, first_unreachable
from tok.tokenizer import BPETokenizer
from tok.vocabulary import MAX_ID, MAX_VOCABULARY_BYTES, inverse


def write_tiktoken(tokenizer: BPETokenizer) -> bytes:
    """Return the content of the file.

    Raises:
        TokenizerError: tiktoken would give other ids, because it merges by the bytes of tokens.
    """
    rank = first_unreachable(tokenizer.merges)
    if rank is not None:
        token_id = tokenizer.ordinary_ids[rank]
        raise TokenizerError(
            f"token {token_id} ({tokenizer.token_bytes[token_id]!r:.60}) is not what its bytes "
            "merge to, which tiktoken requires; export to hf"
        )
    lines = [
        b64encode(tokenizer.token_bytes[token_id]) + b" %d\n" % token_id
        for token_id in tokenizer.ordinary_ids
    ]
    return b"".join(lines)


def read_tiktoken(raw: bytes, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the keyword arguments of BPETokenizer except `pattern`.

    Raises:
        TokenizerError: the file has another format, or its ranks are not a byte-level BPE.
    """
    ranks = _parse(raw)
    tokens = sorted(ranks, key=ranks.__getitem__)
    hint = "; if a special token has it, add --special TEXT=ID"
    check_ids([ranks[token] for token in tokens], special_ids, hint=hint)
    if any(len(token) != 1 for token in tokens[:256]) or len(tokens) < 256:
        raise TokenizerError("the 256 single bytes must be there and have the lowest ranks")
    order = b"".join(tokens[:256])  # distinct single bytes, hence all 256
    return {
        "merges": merges_of(tokens),
        "special_tokens": dict(special_ids),
        "byte_order": inverse(order),
    }


def merges_of(tokens: list[bytes]) -> list[tuple[int, int]]:
    """Return the pair that each token after the 256 bytes is merged from.

    These are the two tokens that remain when all merges of lower rank are applied to its bytes.

    Raises:
        TokenizerError: a token of which more than two tokens remain.
    """
    byte_ranks = inverse(b"".join(tokens[:256]))
    merger = Merger()
    for token in tokens[256:]:
        parts = merger.merge(token.translate(byte_ranks))
        if len(parts) != 2:
            raise TokenizerError(
                f"token {token!r:.60} can't be made of two tokens of lower rank; "
                "llm-tiny can't represent a token that is never merged"
            )
        merger.add((parts[0], parts[1]))
    return merger.merges


def check_ids(ordinary: list[int], special_ids: Mapping[str, int], hint: str = "") -> None:
    """Check that the ordinary ids, in order, are the lowest ones that are not special tokens.

    >>> check_ids([0, 2], {"<a>": 1})

    Raises:
        TokenizerError: an id is missing or out of order; the message names it.
    """
    taken = {token_id: token for token, token_id in special_ids.items()}
    expected = 0
    for token_id in ordinary:
        while expected in taken:
            expected += 1
        if token_id in taken:
            raise TokenizerError(
                f"id {token_id} of special token {taken[token_id]!r} is that of another token"
            )
        if token_id != expected:
            raise TokenizerError(
                f"ids must follow the order of the merges, without gaps: expected {expected}, "
                f"found {token_id}{hint}"
            )
        expected += 1


def _parse(raw: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    total = 0
    for number, line in enumerate(raw.split(b"\n"), start=1):
        words = line.split()
        if not words:
            continue
        try:
            encoded, rank_word = words
            token, rank = b64decode(encoded, validate=True), int(rank_word)
        except (ValueError, binascii.Error):
            raise TokenizerError(
                f"line {number}: not a token in base64 and a rank: {line!r:.60}"
            ) from None
        if not token or not 0 <= rank <= MAX_ID:
            raise TokenizerError(f"line {number}: an empty token or a rank not in 0 to {MAX_ID}")
        if token in ranks:
            raise TokenizerError(f"line {number}: token {token!r:.60} is given twice")
        ranks[token] = rank
        total += len(token)
    if total > MAX_VOCABULARY_BYTES:
        raise TokenizerError(f"the tokens are longer than {MAX_VOCABULARY_BYTES} bytes")
    if len(set(ranks.values())) < len(ranks):
        twice = next(rank for rank, n in Counter(ranks.values()).items() if n > 1)
        raise TokenizerError(f"rank {twice} is given twice")
    return ranks
