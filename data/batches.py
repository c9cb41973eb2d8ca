"""Batches, a pure function of (seed, step): nothing to save, a resumed run sees the same data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.token_file import TokenFile
from data.windows import (
    IGNORE_INDEX,
    DocumentWindows,
    PackedWindows,
    TargetSpans,
    Windows,
    cut_windows,
)
from utils.device import copy_to_device

TOKEN_BYTES = 4  # int32: GPUs look up few operations on unsigned numbers

BUCKET_BATCHES = 16  # documents are sorted by length within this many batches, to pad less
LENGTH_STEP = 8  # see padded_length


def padded_length(longest: int, block_size: int) -> int:
    """How wide a batch is whose longest document has so many tokens.

    For each new width a CPU's kernels are made anew and kept, which takes time and memory; so there
    are fewer widths. Where documents are short the padding would cost more.

    >>> [padded_length(longest, block_size=206) for longest in (61, 64, 165, 205)]
    [61, 64, 168, 206]
    """
    if longest < 8 * LENGTH_STEP:
        return longest
    return min(block_size, math.ceil(longest / LENGTH_STEP) * LENGTH_STEP)


class Batch(NamedTuple):
    """Inputs, targets (IGNORE_INDEX: none) and document numbers (None unless masked), int64 (B, T)."""

    x_BT: torch.Tensor
    y_BT: torch.Tensor
    doc_BT: torch.Tensor | None


class Batches:
    """The batches of a prepared folder.

    Args:
        folder: holds train.npy and val.npy.
        rows: windows in one training batch, over all micro-batches.
        windows: `documents` (one document a row) or `packed` (rows of block_size tokens).
        val_windows: the same for val.npy; None = as for training.
        stride: packed windows start every so many tokens; 0 = block_size.
        shift: each epoch cuts the training text into packed windows at other places.
        mask_documents: give document numbers, so that attention can stay inside documents.
        fixed_length: pad every row to block_size, for compiled models.
        splits: which of the two files to open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        block_size: int,
        rows: int,
        end_id: int,
        seed: int,
        windows: str = "packed",
        val_windows: str | None = None,
        stride: int = 0,
        shift: bool = False,
        mask_documents: bool = False,
        fixed_length: bool = False,
        splits: Sequence[str] = ("train", "val"),
    ) -> None:
        self.rows, self.end_id, self.seed, self.mask_documents = rows, end_id, seed, mask_documents
        self.shift, self.block_size = shift, block_size
        self.splits: dict[str, Windows] = {}
        self.pad_to: dict[str, int] = {}
        for split in splits:
            kind = val_windows or windows if split == "val" else windows
            self.pad_to[split] = block_size if fixed_length or kind == "packed" else 0
            tokens = TokenFile(folder / f"{split}.npy")
            self.splits[split] = cut_windows(tokens, kind, block_size, stride, end_id=end_id)
        self._order: tuple[str, int, np.ndarray, int] | None = None
        self._on_device: DeviceTokens | None = None

    def cache_on_device(self, device: torch.device, spare_bytes: int) -> bool:
        """Keeps the training tokens on the device if they are packed and fit; whether it does."""
        windows = self.splits["train"]
        if isinstance(windows, PackedWindows) and fits_in_memory(
            windows.tokens.n_tokens, spare_bytes
        ):
            self._on_device = DeviceTokens(windows.tokens, device)
        return self._on_device is not None

    def training_batch(self, step: int) -> tuple[Batch, int]:
        """The training batch of a step and the number of its targets.

        It lies on the device where the tokens do, in host memory otherwise.
        """
        windows = self.splits["train"]
        index_B, shift_B = self._windows_at("train", step)
        spans = windows.target_spans(index_B)
        if self._on_device is None:
            batch = self._batch("train", index_B, shift_B)
        else:
            block_size, end_id = self.block_size, self.end_id
            x_BT, y_BT = self._on_device.gather_windows(spans, shift_B, block_size, end_id)
            batch = self._with_document_ids(x_BT, y_BT)
        return batch, spans.n_targets

    def get_batch(self, split: str, step: int) -> Batch:
        """Batch of step `step` (from 0) in host memory: the next `rows` windows of the epochs."""
        return self._batch(split, *self._windows_at(split, step))

    def _windows_at(self, split: str, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Index and shift of each window in a step's batch, int64 (B,)."""
        n, first = self.splits[split].n_windows, step * self.rows
        chosen = []
        for epoch, place in (divmod(place, n) for place in range(first, first + self.rows)):
            order, shift = self._epoch_order(split, epoch)
            chosen.append((order[place], shift))
        index_B, shift_B = np.array(chosen, np.int64).T
        return index_B, shift_B

    def close(self) -> None:
        """Closes the token files."""
        for windows in self.splits.values():
            windows.tokens.close()

    def eval_batches(self, split: str, rows: int) -> Iterator[Batch]:
        """Every window of a split once, in a fixed order, `rows` at a time."""
        for index_B in self.eval_rows(split, rows):
            yield self._batch(split, index_B, np.zeros_like(index_B))

    def eval_rows(self, split: str, rows: int) -> Iterator[np.ndarray]:
        """The windows in each of the `eval_batches`: those of like length go together."""
        windows = self.splits[split]
        order = np.arange(windows.n_windows)
        if isinstance(windows, DocumentWindows):
            order = np.argsort(windows.lengths, kind="stable")
        for start in range(0, len(order), rows):
            yield order[start : start + rows]

    def epoch_at(self, step: int) -> float:
        """Epochs of training data consumed by `step` steps."""
        return step * self.rows / self.splits["train"].n_windows

    def _epoch_order(self, split: str, epoch: int) -> tuple[np.ndarray, int]:
        """Order and shift of the windows in one epoch: a function of (seed, split, epoch) alone."""
        if self._order is None or self._order[:2] != (split, epoch):
            windows = self.splits[split]
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch, int(split == "val")]))
            order = rng.permutation(windows.n_windows)
            if isinstance(windows, DocumentWindows):
                order = self._bucket(order, windows.lengths, rng)
            shift = int(rng.integers(windows.tokens.n_tokens)) if self.shift else 0
            self._order = (split, epoch, order, shift)
        return self._order[2:]

    def _bucket(
        self, order: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Puts documents of like length into one batch, and shuffles the batches again."""
        size = BUCKET_BATCHES * self.rows
        pieces = []
        for start in range(0, len(order), size):
            bucket = order[start : start + size]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            groups = [bucket[i : i + self.rows] for i in range(0, len(bucket), self.rows)]
            pieces += [groups[i] for i in rng.permutation(len(groups))]
        return np.concatenate(pieces)

    def _batch(self, split: str, index_B: np.ndarray, shift_B: np.ndarray) -> Batch:
        """Some windows, read from the file and padded."""
        rows = self.splits[split].rows(index_B, shift_B)
        longest = max(len(x) for x, _ in rows)
        width = max(self.pad_to[split], padded_length(longest, self.block_size))
        x_BT = np.full((len(rows), width), self.end_id, np.int64)
        y_BT = np.full((len(rows), width), IGNORE_INDEX, np.int64)
        for row, (x, y) in enumerate(rows):
            x_BT[row, : len(x)] = x
            y_BT[row, : len(y)] = y
        return self._with_document_ids(torch.from_numpy(x_BT), torch.from_numpy(y_BT))

    def _with_document_ids(self, x_BT: Tensor, y_BT: Tensor) -> Batch:
        doc_BT = torch.cumsum(x_BT == self.end_id, dim=1) if self.mask_documents else None
        return Batch(x_BT, y_BT, doc_BT)


class DeviceTokens:
    """All tokens of a token file, on a device."""

    def __init__(self, tokens: TokenFile, device: torch.device) -> None:
        self.device = device
        raw_N = tokens.read(0, tokens.n_tokens).astype(np.int32)
        self.tokens_N = torch.from_numpy(raw_N).to(device)

    def gather_windows(
        self, spans: TargetSpans, shift_B: np.ndarray, block_size: int, end_id: int
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) of some windows, int64: the same as `Windows.rows`.

        Three integers a row are copied to the device, and nothing back: no synchronisation.
        """
        start_B, length_B, context_B = spans
        copied_3B1 = np.stack((start_B + shift_B, length_B, context_B))[:, :, None]
        first_B1, length_B1, context_B1 = copy_to_device(torch.from_numpy(copied_3B1), self.device)
        column_S = torch.arange(block_size + 1, device=self.device)
        place_BS = first_B1 - 1 + column_S
        stream_BS = self.tokens_N[place_BS % len(self.tokens_N)].long()
        stream_BS = torch.where(place_BS < 0, end_id, stream_BS)
        inside_BT = column_S[:-1] < length_B1
        x_BT = torch.where(inside_BT, stream_BS[:, :-1], end_id)
        counted_BT = inside_BT & (column_S[:-1] >= context_B1)
        return x_BT, torch.where(counted_BT, stream_BS[:, 1:], IGNORE_INDEX)


def fits_in_memory(n_tokens: int, spare_bytes: int) -> bool:
    """Whether so many tokens are small beside the memory that is free.

    >>> fits_in_memory(1_000_000, 80 * 2**30), fits_in_memory(9_000_000_000, 80 * 2**30)
    (True, False)
    """
    return n_tokens * TOKEN_BYTES <= spare_bytes // 8
