"""The loss of each token of the text that an evaluation scores, and ensembles of models."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.batches import Batches
from data.windows import IGNORE_INDEX
from model.gpt import TinyGPT
from model.training.evaluate import Evaluation, evaluate
from scripts.eval.eval_sets import Run
from tok.tokenizer import BPETokenizer
from utils.device import autocast, pick_amp


class Ensemble(nn.Module):
    """A model with the average of several models' probabilities."""

    def __init__(self, models: Sequence[TinyGPT]) -> None:
        super().__init__()
        self.models, self.config = nn.ModuleList(models), models[0].config

    def forward(self, ids_BT: Tensor, doc_BT: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): those of the first model, plus ln of (average / its own).

        For equal models, they are those of the first one, bit for bit.
        """
        first, *others = (model(ids_BT, doc_BT=doc_BT).float() for model in self.models)
        logp_BTV, ratios_BTV = first.log_softmax(-1), torch.ones_like(first, dtype=torch.float64)
        for logits_BTV in others:
            ratios_BTV += (logits_BTV.log_softmax(-1) - logp_BTV).double().exp()
        return first + (ratios_BTV / len(self.models)).log().float()


def evaluate_run(
    run: Run,
    batches: Iterable[Sequence[Tensor | None]],
    on_batch: Callable[[Tensor, Tensor], None] | None,
) -> Evaluation:
    """Evaluate a run as its training does; `batches` and `on_batch` as for `evaluate`."""
    device = next(run.loaded.model.parameters()).device
    lengths_V = torch.tensor(run.loaded.tokenizer.byte_lengths)
    amp = autocast(device, pick_amp(run.config.train.amp, device))
    return evaluate(run.loaded.model, batches, lengths_V, amp, on_batch)


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
