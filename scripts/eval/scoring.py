"""The loss of each token of the text that an evaluation scores."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from data.batches import Batches
from data.windows import IGNORE_INDEX
from tok.tokenizer import BPETokenizer


class TokenScores:
    """The loss of each token of a split, collected while an evaluation runs over its batches.

    Attributes:
        ids_N: the tokens of the split, in the order of the text.
        nats_N: -ln p of each token given the preceding tokens in its window, float32.
    """

    def __init__(self, batches: Batches, split: str, rows: int) -> None:
        """Prepare for the batches of `batches.eval_batches(split, rows)`."""
        self._windows = batches.splits[split]
        self._rows = batches.eval_rows(split, rows)
        n_tokens = self._windows.tokens.n_tokens
        self.ids_N = self._windows.tokens.read(0, n_tokens)
        self.nats_N = np.full(n_tokens, np.nan, dtype=np.float32)
        self.n_scored = 0

    def add(self, targets_BT: torch.Tensor, nats_BT: torch.Tensor) -> None:
        """Store the losses (B, T) in nats of the next batch, given its targets (B, T)."""
        first_B = self._windows.targets(next(self._rows)).start_B
        for first, targets, nats in zip(
            first_B, targets_BT.numpy(), nats_BT.float().numpy(), strict=True
        ):
            scored = np.flatnonzero(targets != IGNORE_INDEX)
            positions = first + scored
            assert (self.ids_N[positions] == targets[scored]).all()
            self.nats_N[positions] = nats[scored]
            self.n_scored += len(scored)


def token_records(scores: TokenScores, tokenizer: BPETokenizer) -> Iterator[dict[str, Any]]:
    """Yield a JSON record for each token: place (from 0), id, text, logprob (in nats).

    A token that is not valid UTF-8 has its bytes in hexadecimal, `hex`, and None as its text.
    """
    assert scores.n_scored == len(scores.ids_N), "each token is scored once"
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    for place, (token, nats) in enumerate(pairs):
        record = {"place": place, "id": token, **text_or_hex(tokenizer.token_bytes[token])}
        yield {**record, "logprob": -nats}


def text_or_hex(raw: bytes) -> dict[str, str | None]:
    """Return the text of bytes, or their hexadecimal form if they are not UTF-8.

    >>> text_or_hex(b"ab"), text_or_hex("é".encode()[:1])
    ({'text': 'ab'}, {'text': None, 'hex': 'c3'})
    """
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": None, "hex": raw.hex()}
