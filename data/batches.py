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
from data.windows import IGNORE, PackedWindows, Windows, cut_windows
from utils.device import send

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
    """Inputs, targets (IGNORE: none) and document numbers (None unless masked), int64 (B, T)."""

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
        self._resident: ResidentTokens | None = None

    def settle(self, device: torch.device, spare_bytes: int) -> bool:
        """Keeps the training tokens on the device if they are packed and fit; whether it does."""
        windows = self.splits["train"]
        if isinstance(windows, PackedWindows) and fits(windows.tokens.n_tokens, spare_bytes):
            self._resident = ResidentTokens(windows, device)
        return self._resident is not None

    def training_batch(self, step: int) -> tuple[Batch, int]:
        """The training batch of a step and the number of its targets.

        It lies on the device where the tokens do, in host memory otherwise.
        """
        if self._resident is None:
            batch = self.get_batch("train", step)
            return batch, int((batch.y_BT != IGNORE).sum())
        picked = [
            (order[place], shift)
            for epoch, place in self._places("train", step)
            for order, shift in [self._epoch_order("train", epoch)]
        ]
        index_B, shift_B = np.array(picked, np.int64).T
        x_BT, y_BT, n_targets = self._resident.cut(index_B, shift_B)
        doc_BT = torch.cumsum(x_BT == self.end_id, dim=1) if self.mask_documents else None
        return Batch(x_BT, y_BT, doc_BT), n_targets

    def get_batch(self, split: str, step: int) -> Batch:
        """Batch of step `step` (from 0): the next `rows` places of the endless row of epochs."""
        places = self._places(split, step)
        return self._batch([self._row(split, epoch, place) for epoch, place in places], split)

    def _places(self, split: str, step: int) -> list[tuple[int, int]]:
        """(epoch, place in its order) of each row of a step's batch."""
        n, first = self.splits[split].n_windows, step * self.rows
        return [divmod(place, n) for place in range(first, first + self.rows)]

    def close(self) -> None:
        """Closes the token files."""
        for windows in self.splits.values():
            windows.tokens.close()

    def eval_batches(self, split: str, rows: int) -> Iterator[Batch]:
        """Every window of a split once, in a fixed order, `rows` at a time."""
        windows = self.splits[split]
        for indices in self.eval_rows(split, rows):
            yield self._batch([windows.row(index) for index in indices], split)

    def eval_rows(self, split: str, rows: int) -> Iterator[list[int]]:
        """The windows in each of the `eval_batches`: those of like length go together."""
        windows = self.splits[split]
        order = np.arange(windows.n_windows)
        if windows.lengths is not None:
            order = np.argsort(windows.lengths, kind="stable")
        for start in range(0, len(order), rows):
            yield order[start : start + rows].tolist()

    def epoch_at(self, step: int) -> float:
        """Epochs of training data consumed by `step` steps."""
        return step * self.rows / self.splits["train"].n_windows

    def _row(self, split: str, epoch: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        order, shift = self._epoch_order(split, epoch)
        return self.splits[split].row(int(order[place]), shift)

    def _epoch_order(self, split: str, epoch: int) -> tuple[np.ndarray, int]:
        """Order and shift of the windows in one epoch: a function of (seed, split, epoch) alone."""
        if self._order is None or self._order[:2] != (split, epoch):
            windows = self.splits[split]
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch, int(split == "val")]))
            order = rng.permutation(windows.n_windows)
            if windows.lengths is not None:
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

    def _batch(self, pairs: list[tuple[np.ndarray, np.ndarray]], split: str) -> Batch:
        longest = max(len(x) for x, _ in pairs)
        width = max(self.pad_to[split], padded_length(longest, self.block_size))
        x_BT = np.full((len(pairs), width), self.end_id, np.int64)
        y_BT = np.full((len(pairs), width), IGNORE, np.int64)
        for row, (x, y) in enumerate(pairs):
            x_BT[row, : len(x)] = x
            y_BT[row, : len(y)] = y
        doc_BT = (
            torch.from_numpy(np.cumsum(x_BT == self.end_id, axis=1))
            if self.mask_documents
            else None
        )
        return Batch(torch.from_numpy(x_BT), torch.from_numpy(y_BT), doc_BT)


class ResidentTokens:
    """The packed windows of a token file, on a device. The same rows as `PackedWindows.row`."""

    def __init__(self, windows: PackedWindows, device: torch.device) -> None:
        self.windows, self.device = windows, device
        n = windows.tokens.n_tokens
        self.tokens_N = torch.from_numpy(windows.tokens.read(0, n).astype(np.int32)).to(device)

    def cut(self, index_B: np.ndarray, shift_B: np.ndarray) -> tuple[Tensor, Tensor, int]:
        """Inputs and targets (B, T) of some windows, int64, and how many targets count.

        What is told to the device is three numbers a row; the count is made of them here, so that
        nothing is waited for.
        """
        block, n = self.windows.block_size, self.windows.tokens.n_tokens
        start_B = index_B * self.windows.stride
        length_B = np.minimum(block, n - start_B)
        context_B = np.where(index_B > 0, block - self.windows.stride, 0)
        told = np.stack((start_B + shift_B, length_B, context_B))[:, :, None].astype(np.int64)
        first_B1, length_B1, context_B1 = send(torch.from_numpy(told), self.device)
        column_S = torch.arange(block + 1, device=self.device)
        place_BS = first_B1 - 1 + column_S
        stream_BS = self.tokens_N[place_BS % n].long()
        stream_BS = torch.where(place_BS < 0, self.windows.end_id, stream_BS)
        inside_BT = column_S[:-1] < length_B1
        x_BT = torch.where(inside_BT, stream_BS[:, :-1], self.windows.end_id)
        counted_BT = inside_BT & (column_S[:-1] >= context_B1)
        y_BT = torch.where(counted_BT, stream_BS[:, 1:], IGNORE)
        return x_BT, y_BT, int((length_B - context_B).sum())


def fits(n_tokens: int, spare_bytes: int) -> bool:
    """Whether so many tokens are small beside the memory that is free.

    >>> fits(1_000_000, 80 * 2**30), fits(9_000_000_000, 80 * 2**30)
    (True, False)
    """
    return n_tokens * TOKEN_BYTES <= spare_bytes // 8
