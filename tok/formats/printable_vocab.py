"""Vocabularies in which tokens are spelled with stand-ins: Hugging Face's and GPT-2's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from tok.errors import TokenizerError
from tok.formats.reachability import Merger, first_unreachable
from tok.formats.tiktoken import check_ids
from tok.tokenizer import BPETokenizer
from tok.vocabulary import MAX_ID, Pair, from_printable, inverse, to_printable


def vocab_dict(tokenizer: BPETokenizer) -> dict[str, int]:
    """Spelling -> id, sorted by id; special tokens are spelled as they are.

    Raises:
        TokenizerError: two tokens with one spelling.
    """
    special = {token_id: token for token, token_id in tokenizer.special_ids.items()}
    ids: dict[str, int] = {}
    for token_id, raw in enumerate(tokenizer.token_bytes):
        if not raw:  # an unused id
            continue
        spelled = special[token_id] if token_id in special else to_printable(raw)
        if spelled in ids:
            raise TokenizerError(
                f"tokens {ids[spelled]} and {token_id} are both spelled {spelled!r:.60}, and this "
                "format knows tokens by their spelling"
            )
        ids[spelled] = token_id
    return ids


def tokenizer_kwargs(
    ids: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    special_ids: Mapping[str, int],
    *,
    whole_first: bool = False,
) -> dict[str, Any]:
    """The arguments of BPETokenizer (without the pattern) for a spelled vocabulary.

    Args:
        ids: spelling -> id; may hold the special tokens too.
        pairs: the merges in order, by spelling.
        whole_first: a pre-token that is a token is taken whole, before any merge.

    Raises:
        TokenizerError: names the token or merge that this package can't hold.
    """
    _check_vocab_ids(ids, special_ids)
    numbers = _byte_ranks(ids, special_ids)
    ordinary = [token for token in ids if token not in special_ids]
    merges, spelled = _ranked_merges(pairs, set(ordinary), numbers)
    made = set(spelled)
    for token in ordinary:
        if token not in made:
            raise TokenizerError(
                f"no merge makes {token!r:.60} (id {ids[token]}); llm-tiny has no place for it, "
                "unless it is a special token"
            )
    check_ids([ids[token] for token in spelled], special_ids)
    number = first_unreachable(merges) if whole_first else None
    if number is not None:
        raise TokenizerError(
            f"ignore_merges is set, and {spelled[number]!r:.60} is not what its bytes merge to"
        )
    return {"merges": merges, "special_tokens": dict(special_ids), "byte_order": numbers}


def _ranked_merges(
    pairs: Sequence[tuple[str, str]], ordinary: Collection[str], numbers: bytes
) -> tuple[list[Pair], list[str]]:
    """The merges as pairs of numbers, one for each token, and the spelling of each number."""
    known = {to_printable(bytes([byte])): number for number, byte in enumerate(inverse(numbers))}
    merger = Merger()
    for token, group in groupby(enumerate(pairs), key=lambda item: "".join(item[1])):
        alternatives = list(group)
        rank, parts = alternatives[0]
        if token in known:
            raise TokenizerError(f"merge {rank} makes {token!r:.60}, which was there before it")
        if token not in ordinary:
            raise TokenizerError(f"merge {rank} makes {token!r:.60}, which is no ordinary token")
        found = [
            (known[first], known[second])
            for _, (first, second) in alternatives
            if first in known and second in known
        ]
        if not found:
            part = next(part for part in parts if part not in known)
            raise TokenizerError(f"merge {rank} joins {part!r:.60}, not made before it")
        merger.add(found[0] if len(alternatives) == 1 else _live(found, token, numbers, merger))
        known[token] = len(known)
    return merger.merges, list(known)


def _check_vocab_ids(ids: Mapping[str, Any], special_ids: Mapping[str, int]) -> None:
    if any(
        type(token_id) is not int or not 0 <= token_id <= MAX_ID
        for token_id in [*ids.values(), *special_ids.values()]
    ):
        raise TokenizerError(f"an id in the vocabulary is no whole number in 0 to {MAX_ID}")
    owners: dict[int, str] = {}
    for token, token_id in [*special_ids.items(), *ids.items()]:
        if owners.setdefault(token_id, token) != token:
            raise TokenizerError(
                f"{owners[token_id]!r:.60} and {token!r:.60} have one id, {token_id}"
            )
        if token in special_ids and special_ids[token] != token_id:
            raise TokenizerError(
                f"special token {token!r:.60} has id {special_ids[token]} and, in the vocabulary, "
                f"{token_id}"
            )


def _byte_ranks(ids: Mapping[str, int], special_ids: Mapping[str, int]) -> bytes:
    """The number of each byte; their ids may lie above those of special tokens."""
    bytes_by_id = {}
    for byte in range(256):
        stand_in = to_printable(bytes([byte]))
        if stand_in not in ids or stand_in in special_ids:
            raise TokenizerError(
                f"byte 0x{byte:02x} ({stand_in!r}) is no token: no byte-level vocabulary, or one "
                "that can't encode every text"
            )
        bytes_by_id[ids[stand_in]] = byte
    return inverse(bytes(byte for _, byte in sorted(bytes_by_id.items())))


def _live(found: Sequence[Pair], token: str, numbers: bytes, merger: Merger) -> Pair:
    """The one of several merges that make one token which ever applies (see reachability.py).

    Files made from tiktoken's ranks list every pair of tokens that spells a token, those of later
    tokens too. By the time of a later token, the token itself is made wherever it can be.
    """
    raw = from_printable(token)
    parts = tuple(merger.merge(raw.translate(numbers))) if raw else ()
    for pair in found:
        if pair == parts:
            return pair
    raise TokenizerError(f"several merges make {token!r:.60}, but none of its own bytes")
