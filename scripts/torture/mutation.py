"""Changes of valid files: of their bytes, and of the values that they hold."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import torch

from data.prepared_folder import CHECKSUM, meta_sha256
from tok.tokenizer_file import identity_of

# What parsers of numbers, texts and nesting trip over.
WORDS = rb"""null true NaN Infinity 1e999 -1 0 1.5 {} [] , : &a *a !!bool - ? " ' \ \ud8 == # {["""
PIECES = [*WORDS.split(), b"[" * 900, b'{"a":' * 900, b"9" * 5000, b"x" * 70_000, b" ", b"\n\n"]
PIECES += [b"\0", b"\r", b"\n", b"\t", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"<|endoftext|>"]
LONG = 60_000  # bytes
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**9, 2**63, 10**30, 10**400, float("nan"), float("inf"), -0.0),
    *("", "a", "9" * 5000, "\ud800", [], {}, [1], {"a": 1}, [[[]]], {"": [0, 0]}, [None] * 1000),
)


def flip_bit(raw: bytes, rng: Random) -> bytes:
    """Return `raw` with one bit changed."""
    at = rng.randrange(len(raw) or 1)
    return (
        raw[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in raw[at : at + 1]) + raw[at + 1 :]
    )


def mutate_bytes(raw: bytes, other: bytes, rng: Random) -> bytes:
    """Return `raw` after some changes: flipped, removed, repeated, foreign or new bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(raw) + 1)
        end = min(len(raw), start + int(2 ** rng.uniform(0, 10)))
        middle, at = raw[start:end], rng.randrange(len(other) + 1)
        piece, foreign = rng.choice(PIECES), other[at : at + len(middle)]
        if rng.random() < 0.02:  # shows time that grows with the square of the size
            piece = (piece * (LONG // len(piece) + 1))[:LONG]
        choices = (b"", middle * 2, piece, piece + middle, foreign, rng.randbytes(3))
        raw = rng.choice((flip_bit(raw, rng), raw[:start] + rng.choice(choices) + raw[end:]))
    return raw if rng.random() < 0.9 else raw[: rng.randrange(len(raw) + 1)]


def change_value(content: Any, which: int, value: Any, change: str) -> None:
    """Put, remove or add one value in nested dicts and lists, or change a tensor.

    >>> content = {"a": [5]}
    >>> change_value(content, 1, 7, "put"); content
    {'a': [7]}
    """
    nodes: list[tuple[Any, Any]] = []
    pending = [content]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else [*range(len(node))]
        nodes += [(node, key) for key in keys]
        pending += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    node, key = nodes[which % len(nodes)]
    if change == "remove":
        del node[key]
    elif isinstance(old := node[key], torch.Tensor) and which % 2:
        ways = (old.double(), old.bool(), old[None], old.flatten()[1:], old * float("nan"))
        node[key] = (*ways, old.to_sparse())[which // 2 % 6]
    elif change == "add" and isinstance(node, list):
        node.insert(key, value)
    else:
        node[str(value)[:40] if change == "add" else key] = value


def sealed(content: Any) -> bytes:
    """Return JSON with these values, and with a valid checksum if it has one."""
    if isinstance(content, dict) and content.keys() & {CHECKSUM, "merges"}:
        key, checksum = (
            (CHECKSUM, meta_sha256) if CHECKSUM in content else ("identity", identity_of)
        )
        content.pop(key, None)
        content[key] = checksum(content)
    return json.dumps(content).encode()
