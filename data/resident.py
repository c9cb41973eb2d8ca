"""A token file that stays on the device, where windows are cut from it without asking the disk."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data.windows import IGNORE, PackedWindows
from utils.device import send

TOKEN_BYTES = 4  # int32: GPUs look up few operations on unsigned numbers


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
