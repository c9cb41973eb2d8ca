"""Training batches as a pure function of (seed, step).

There is no state to save: a resumed run computes the same batches again.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.config import DataConfig
from data.token_file import TokenFile
from data.windows import IGNORE_INDEX, DocumentWindows, PackedWindows, Targets, Windows, cut_windows
from utils.device import copy_to_device

TOKEN_BYTES = 4  # on a device: int32, as PyTorch supports few operations on unsigned integers

BUCKET_BATCHES = 16  # batches within which documents are sorted by length, for less padding
LENGTH_STEP = 8  # tokens, see `padded_length`


def padded_length(longest: int, block_size: int) -> int:
    """Return the width in tokens of a batch whose longest document has `longest` tokens.

    On a CPU, PyTorch creates and caches kernels for each new width, which takes time and memory.
    Long widths are rounded up, so that there are few different ones. Short widths are not: there
    the padding would cost more.

    >>> [padded_length(longest, block_size=206) for longest in (61, 64, 165, 205)]
    [61, 64, 168, 206]
    """
    if longest < 8 * LENGTH_STEP:
        return longest
    return min(block_size, math.ceil(longest / LENGTH_STEP) * LENGTH_STEP)


class Batch(NamedTuple):
    """One batch. All tensors are int64 (B, T).

    Attributes:
        x_BT: input ids.
        y_BT: target ids; IGNORE_INDEX where there is no target.
        doc_BT: document number of each id, within its row; None unless attention needs it.
    """

    x_BT: torch.Tensor
    y_BT: torch.Tensor
    doc_BT: torch.Tensor | None


class Batches:
    """The batches of a prepared folder.

    Args:
        folder: holds train.npy and val.npy.
        config: of which `windows`, `stride`, `shift` and `mask_documents` are read.
        rows: windows in one training batch (all micro-batches of a step together).
        eot_id: id of the end-of-text token.
        val_windows: kind of the windows of val.npy; "" = as config.windows.
        fixed_length: pad every row to block_size, for compiled models.
        splits: which of the two files to open, "train" and "val".

    Raises:
        UserError: a file is missing, damaged or too short, or a document exceeds block_size.
    """

    def __init__(
        self,
        folder: Path,
        config: DataConfig,
        *,
        block_size: int,
        rows: int,
        eot_id: int,
        seed: int,
        val_windows: str = "",
        fixed_length: bool = False,
        splits: Sequence[str] = ("train", "val"),
    ) -> None:
        self.config, self.block_size, self.rows = config, block_size, rows
        self.eot_id, self.seed = eot_id, seed
        self.splits: dict[str, Windows] = {}
        self.pad_to: dict[str, int] = {}  # split -> least width of its batches
        for split in splits:
            kind = (split == "val" and val_windows) or config.windows
            self.pad_to[split] = block_size if fixed_length or kind == "packed" else 0
            tokens = TokenFile(folder / f"{split}.npy")
            self.splits[split] = cut_windows(tokens, kind, block_size, config.stride, eot_id=eot_id)
        # The last result of `_epoch_order`: split, epoch, order of the windows, shift.
        self._order: tuple[str, int, np.ndarray, int] | None = None
        self._on_device: DeviceTokens | None = None

    def cache_on_device(self, device: torch.device, free_bytes: int) -> bool:
        """Copy packed training tokens to the device if they fit; return True if they are there."""
        windows = self.splits["train"]
        fits = fits_in_memory(windows.tokens.n_tokens, free_bytes)
        if fits and isinstance(windows, PackedWindows):
            self._on_device = DeviceTokens(windows.tokens, device)
        return self._on_device is not None

    def training_batch(self, step: int) -> tuple[Batch, int]:
        """Return the training batch of a step (from 0) and its number of targets.

        The batch is on the device if the tokens are cached there, otherwise in host memory.
        """
        windows = self.splits["train"]
        index_B, shift_B = self._windows_at("train", step)
        targets = windows.targets(index_B)
        if self._on_device is None:
            batch = self._batch("train", index_B, shift_B)
        else:
            block_size, eot_id = self.block_size, self.eot_id
            x_BT, y_BT = self._on_device.gather_windows(targets, shift_B, block_size, eot_id)
            batch = self.with_document_ids(x_BT, y_BT)
        return batch, targets.n_targets

    def get_batch(self, split: str, step: int) -> Batch:
        """Return the batch of a step (from 0) in host memory.

        The windows of all epochs, each epoch in its own random order, are numbered from 0. The
        batch holds the windows from step * rows on.
        """
        return self._batch(split, *self._windows_at(split, step))

    def _windows_at(self, split: str, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices and the shifts of the windows in a step's batch, each int64 (B,)."""
        n, first = self.splits[split].n_windows, step * self.rows
        chosen = []
        for number in range(first, first + self.rows):
            epoch, position = divmod(number, n)
            order, shift = self._epoch_order(split, epoch)
            chosen.append((order[position], shift))
        index_B, shift_B = np.array(chosen, np.int64).T
        return index_B, shift_B

    def close(self) -> None:
        """Close the token files."""
        for windows in self.splits.values():
            windows.tokens.close()

    def eval_batches(self, split: str, rows: int) -> Iterator[Batch]:
        """Yield every window of a split once, in a fixed order, `rows` per batch."""
        for index_B in self.eval_rows(split, rows):
            yield self._batch(split, index_B, np.zeros_like(index_B))

    def n_eval_batches(self, split: str, rows: int) -> int:
        """Return the number of batches that `eval_batches` yields."""
        return math.ceil(self.splits[split].n_windows / rows)

    def n_tokens(self, split: str) -> int:
        """Return the number of tokens in a split."""
        return self.splits[split].tokens.n_tokens

    def eval_rows(self, split: str, rows: int) -> Iterator[np.ndarray]:
        """Yield the window indices of each of `eval_batches`. Documents are in order of length."""
        windows = self.splits[split]
        order = np.arange(windows.n_windows)
        if isinstance(windows, DocumentWindows):
            order = np.argsort(windows.lengths, kind="stable")
        for start in range(0, len(order), rows):
            yield order[start : start + rows]

    def epoch_at(self, step: int) -> float:
        """Return the number of epochs of training data that `step` steps consume."""
        return step * self.rows / self.splits["train"].n_windows

    def _epoch_order(self, split: str, epoch: int) -> tuple[np.ndarray, int]:
        """Return the order and the shift of an epoch's windows, from (seed, split, epoch) alone."""
        if self._order is None or self._order[:2] != (split, epoch):
            windows = self.splits[split]
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch, int(split == "val")]))
            order = rng.permutation(windows.n_windows)
            if isinstance(windows, DocumentWindows):
                order = self._bucket(order, windows.lengths, rng)
            shift = int(rng.integers(windows.tokens.n_tokens)) if self.config.shift else 0
            self._order = (split, epoch, order, shift)
        return self._order[2:]

    def _bucket(
        self, order: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Group documents of similar length into batches, then shuffle these batches."""
        size = BUCKET_BATCHES * self.rows
        buckets = []
        for start in range(0, len(order), size):
            bucket = order[start : start + size]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            groups = [bucket[i : i + self.rows] for i in range(0, len(bucket), self.rows)]
            buckets += [groups[i] for i in rng.permutation(len(groups))]
        return np.concatenate(buckets)

    def _batch(self, split: str, index_B: np.ndarray, shift_B: np.ndarray) -> Batch:
        """Read windows from the file and pad them to one width."""
        rows = self.splits[split].rows(index_B, shift_B)
        longest = max(len(x) for x, _ in rows)
        width = max(self.pad_to[split], padded_length(longest, self.block_size))
        x_BT = np.full((len(rows), width), self.eot_id, np.int64)
        y_BT = np.full((len(rows), width), IGNORE_INDEX, np.int64)
        for row, (x, y) in enumerate(rows):
            x_BT[row, : len(x)] = x
            y_BT[row, : len(y)] = y
        return self.with_document_ids(torch.from_numpy(x_BT), torch.from_numpy(y_BT))

    def with_document_ids(self, x_BT: Tensor, y_BT: Tensor) -> Batch:
        """Return a batch; a document begins with the end-of-text token that precedes it."""
        doc_BT = torch.cumsum(x_BT == self.eot_id, dim=1) if self.config.mask_documents else None
        return Batch(x_BT, y_BT, doc_BT)


class DeviceTokens:
    """All tokens of a token file, in device memory."""

    def __init__(self, tokens: TokenFile, device: torch.device) -> None:
        self.device = device
        raw_N = tokens.read(0, tokens.n_tokens).astype(np.int32)
        self.tokens_N = torch.from_numpy(raw_N).to(device)

    def gather_windows(
        self, targets: Targets, shift_B: np.ndarray, block_size: int, eot_id: int
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of windows, int64 (B, block_size), equal to `Windows.rows`.

        Only three integers per window are copied to the device and nothing is copied back, so the
        host does not wait for the device.
        """
        start_B, length_B, context_B = targets
        copied_3B1 = np.stack((start_B + shift_B, length_B, context_B))[:, :, None]
        first_B1, length_B1, context_B1 = copy_to_device(torch.from_numpy(copied_3B1), self.device)
        # S = block_size + 1: the inputs of a window and its last target.
        column_S = torch.arange(block_size + 1, device=self.device)
        position_BS = first_B1 - 1 + column_S
        stream_BS = self.tokens_N[position_BS % len(self.tokens_N)].long()
        stream_BS = torch.where(position_BS < 0, eot_id, stream_BS)
        inside_BT = column_S[:-1] < length_B1
        x_BT = torch.where(inside_BT, stream_BS[:, :-1], eot_id)
        counted_BT = inside_BT & (column_S[:-1] >= context_B1)
        return x_BT, torch.where(counted_BT, stream_BS[:, 1:], IGNORE_INDEX)


def fits_in_memory(n_tokens: int, free_bytes: int) -> bool:
    """Return True if the tokens take at most an eighth of the free memory.

    >>> fits_in_memory(1_000_000, 80 * 2**30), fits_in_memory(9_000_000_000, 80 * 2**30)
    (True, False)
    """
    return n_tokens * TOKEN_BYTES <= free_bytes // 8
