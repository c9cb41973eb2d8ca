"""What a model thinks of each token of a split: its -ln p, put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from data.batches import Batches
from data.windows import IGNORE
from tok.tokenizer import BPETokenizer


class TokenScores:
    """Takes the batches of `Batches.eval_batches` as an evaluation goes over them.

    Attributes:
        ids_N: the tokens of the split, in the order of the text.
        nats_N: -ln p of each given what its window holds before it, float32.
    """

    def __init__(self, batches: Batches, split: str, rows: int) -> None:
        """`rows`: as for eval_batches."""
        self._windows = batches.splits[split]
        self._rows = batches.eval_rows(split, rows)
        n_tokens = self._windows.tokens.n_tokens
        self.ids_N = self._windows.tokens.read(0, n_tokens)
        self.nats_N = np.full(n_tokens, np.nan, dtype=np.float32)
        self.n_scored = 0

    def add(self, targets_BT: torch.Tensor, nats_BT: torch.Tensor) -> None:
        """The next batch: its targets and their nats."""
        for index, targets, nats in zip(
            next(self._rows), targets_BT.numpy(), nats_BT.float().numpy(), strict=True
        ):
            scored = np.flatnonzero(targets != IGNORE)
            places = self._windows.first(index) + scored
            assert (self.ids_N[places] == targets[scored]).all()
            self.nats_N[places] = nats[scored]
            self.n_scored += len(scored)


def token_records(scores: TokenScores, tokenizer: BPETokenizer) -> Iterator[dict[str, Any]]:
    """Each token's place (from 0), id, text and log-probability in nats.

    A token that is no whole characters has no text, but its bytes in hexadecimal.
    """
    assert scores.n_scored == len(scores.ids_N), "each token is scored once"
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    for place, (token, nats) in enumerate(pairs):
        record = {"place": place, "id": token, **text_or_hex(tokenizer.token_bytes[token])}
        yield {**record, "logprob": -nats}


def text_or_hex(raw: bytes) -> dict[str, str | None]:
    """The text of bytes, or their numbers where they are no UTF-8.

    >>> text_or_hex(b"ab"), text_or_hex("é".encode()[:1])
    ({'text': 'ab'}, {'text': None, 'hex': 'c3'})
    """
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": None, "hex": raw.hex()}
