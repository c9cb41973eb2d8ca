"""What training asks of the data and the tokenizer, which model/ does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch


class TrainingBatches(Protocol):
    """Batches (x_BT, y_BT, doc_BT or None), see `data.batches.Batches`."""

    def training_batch(self, step: int) -> tuple[Sequence[torch.Tensor | None], int]:
        """The batch of a step and the number of its targets."""

    def eval_batches(self, split: str, rows: int) -> Iterator[Sequence[torch.Tensor | None]]:
        """Every window of a split once."""

    def epoch_at(self, step: int) -> float:
        """Epochs of training data consumed by `step` steps."""

    def close(self) -> None:
        """Close the files."""


class Tokenizer(Protocol):
    """What training asks of a tokenizer, see `tok.tokenizer.BPETokenizer`."""

    @property
    def identity(self) -> str:
        """Hex sha256 of all that decides the ids."""

    @property
    def eot_id(self) -> int:
        """The id of the end-of-text token."""

    @property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of text of each id, 0 for special tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
