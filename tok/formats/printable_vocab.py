"""Vocabularies of printable text, as in Hugging Face's and GPT-2's files."""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from tok.errors import TokenizerError
from tok.formats.reachability import Merger, first_unreachable
from tok.formats.tiktoken import check_ids
from tok.tokenizer import BPETokenizer
from tok.vocabulary import MAX_ID, Pair, from_printable, inverse, to_printable


def vocab_dict(tokenizer: BPETokenizer) -> dict[str, int]:
    """Return printable text -> id, sorted by id. Special tokens are unchanged.

    Raises:
        TokenizerError: two tokens have the same printable text.
    """
    special = {token_id: token for token, token_id in tokenizer.special_ids.items()}
    ids: dict[str, int] = {}
    for token_id, raw in enumerate(tokenizer.token_bytes):
        if not raw:  # an unused id
            continue
        text = special[token_id] if token_id in special else to_printable(raw)
        if text in ids:
            raise TokenizerError(
                f"tokens {ids[text]} and {token_id} are both written {text!r:.60}, but in this "
                "format every token must be written differently"
            )
        ids[text] = token_id
    return ids


def tokenizer_kwargs(
    ids: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    special_ids: Mapping[str, int],
    *,
    whole_first: bool = False,
) -> dict[str, Any]:
    """Return the keyword arguments of BPETokenizer except `pattern`.

    Args:
        ids: printable text -> id; may contain the special tokens.
        pairs: the merges in order, as printable text.
        whole_first: a pre-token that is a token becomes that token, without any merge.

    Raises:
        TokenizerError: this package can't represent a token or merge; the message names it.
    """
    _check_vocab_ids(ids, special_ids)
    byte_ranks = _byte_ranks(ids, special_ids)
    ordinary = [token for token in ids if token not in special_ids]
    merges, ranked = _ranked_merges(pairs, set(ordinary), byte_ranks)
    made = set(ranked)
    for token in ordinary:
        if token not in made:
            raise TokenizerError(
                f"no merge makes {token!r:.60} (id {ids[token]}); llm-tiny can't represent it, "
                "unless it is a special token"
            )
    check_ids([ids[token] for token in ranked], special_ids)
    rank = first_unreachable(merges) if whole_first else None
    if rank is not None:
        raise TokenizerError(
            f"ignore_merges is set, and {ranked[rank]!r:.60} is not what its bytes merge to"
        )
    return {"merges": merges, "special_tokens": dict(special_ids), "byte_order": byte_ranks}


def _ranked_merges(
    pairs: Sequence[tuple[str, str]], ordinary: Collection[str], byte_ranks: bytes
) -> tuple[list[Pair], list[str]]:
    """Return the merges as pairs of ranks, one per token, and the printable text of each rank.

    Of equal merges only the last counts, as in GPT-2's encoder and the `tokenizers` library.
    """
    rank_of = {to_printable(bytes([byte])): rank for rank, byte in enumerate(inverse(byte_ranks))}
    merger = Merger()
    last = {pair: i for i, pair in enumerate(pairs)}
    counted = [(i, pair) for i, pair in enumerate(pairs) if last[pair] == i]
    # Adjacent merges that make the same token are alternatives, see `_effective_merge`.
    for token, group in groupby(counted, key=lambda item: "".join(item[1])):
        alternatives = list(group)
        i, parts = alternatives[0]
        if token in rank_of:
            raise TokenizerError(f"merge {i} makes {token!r:.60}, which already exists")
        if token not in ordinary:
            raise TokenizerError(f"merge {i} makes {token!r:.60}, which is not an ordinary token")
        found = [
            (rank_of[first], rank_of[second])
            for _, (first, second) in alternatives
            if first in rank_of and second in rank_of
        ]
        if not found:
            part = next(part for part in parts if part not in rank_of)
            repeated = part in map("".join, pairs[:i])
            why = "; of the merges that make it, one is repeated, and only the last counts"
            raise TokenizerError(
                f"merge {i} joins {part!r:.60}, not made before it{why if repeated else ''}"
            )
        if len(alternatives) > 1:
            merger.add(_effective_merge(found, token, byte_ranks, merger))
        else:
            merger.add(found[0])
        rank_of[token] = len(rank_of)
    return merger.merges, list(rank_of)


def _check_vocab_ids(ids: Mapping[str, Any], special_ids: Mapping[str, int]) -> None:
    if any(
        type(token_id) is not int or not 0 <= token_id <= MAX_ID
        for token_id in [*ids.values(), *special_ids.values()]
    ):
        raise TokenizerError(f"an id in the vocabulary is not a whole number in 0 to {MAX_ID}")
    owners: dict[int, str] = {}
    for token, token_id in [*special_ids.items(), *ids.items()]:
        if owners.setdefault(token_id, token) != token:
            raise TokenizerError(
                f"{owners[token_id]!r:.60} and {token!r:.60} have the same id, {token_id}"
            )
        if token in special_ids and special_ids[token] != token_id:
            raise TokenizerError(
                f"special token {token!r:.60} has id {special_ids[token]} and, in the vocabulary, "
                f"{token_id}"
            )


def _byte_ranks(ids: Mapping[str, int], special_ids: Mapping[str, int]) -> bytes:
    """Return the rank of each byte, from the order of the ids of the bytes."""
    bytes_by_id = {}
    for byte in range(256):
        text = to_printable(bytes([byte]))
        if text not in ids or text in special_ids:
            raise TokenizerError(
                f"byte 0x{byte:02x} ({text!r}) is not a token: the vocabulary is not byte-level, "
                "or can't encode every text"
            )
        bytes_by_id[ids[text]] = byte
    return inverse(bytes(byte for _, byte in sorted(bytes_by_id.items())))


def _effective_merge(found: Sequence[Pair], token: str, byte_ranks: bytes, merger: Merger) -> Pair:
    """Return the one pair, of several that merge to the same token, whose merge is ever applied.

    Files made from tiktoken's ranks list every pair of tokens that concatenates to a token, also
    pairs with later tokens. These pairs are never merged: by then the token itself has been merged
    wherever possible (see reachability.py).
    """
    raw = from_printable(token)
    parts = tuple(merger.merge(raw.translate(byte_ranks))) if raw else ()
    for pair in found:
        if pair == parts:
            return pair
    raise TokenizerError(f"several merges make {token!r:.60}, but its bytes merge by none of them")
