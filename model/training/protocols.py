"""Protocols of the batches and the tokenizer: model/ imports neither data/ nor tok/."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch


class Batches(Protocol):
    """Batches for training, see `data.batches.Batches`: inputs x_BT, targets y_BT, and the document
    number of each token doc_BT, or None where attention crosses documents.
    """

    def training_batch(self, step: int) -> tuple[Sequence[torch.Tensor | None], int]:
        """Return the batch of a step, rows of all ranks; and the number of its targets."""

    def eval_batches(self, split: str, rows: int) -> Iterator[Sequence[torch.Tensor | None]]:
        """Yield batches of at most `rows` rows that together cover a split once."""

    def n_eval_batches(self, split: str, rows: int) -> int:
        """Return the number of batches that `eval_batches` yields."""

    def n_tokens(self, split: str) -> int:
        """Return the number of tokens in a split."""

    def epoch_at(self, step: int) -> float:
        """Return the number of epochs of training data in `step` steps."""

    def close(self) -> None:
        """Close the files."""


class Tokenizer(Protocol):
    """What training uses of a tokenizer, see `tok.tokenizer.BPETokenizer`."""

    @property
    def identity(self) -> str:
        """Hex sha256 of everything that determines the ids."""

    @property
    def eot_id(self) -> int:
        """The id of the end-of-text token."""

    @property
    def byte_lengths(self) -> np.ndarray:
        """Number of text bytes of each id, shape (vocab_size,). It is 0 for special tokens."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
