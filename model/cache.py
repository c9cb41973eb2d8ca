"""The KV cache: what attention and the pointer will want to know of earlier tokens.

B rows of S slots, all allocated at the start; nothing is copied as they fill. Rows are aligned at
their ends: a step writes column c of every row, so one slice takes the whole batch, and a row with
a shorter prompt starts at a later column. Column c lies in slot c mod S. When columns have gone
once around, a new one takes the place of the oldest, and a row is left with its last S tokens.

    prompts of 4 and 2 tokens, S = 6, after 4 more steps (columns 0 to 7)

        slot      0  1  2  3  4  5
        column    6  7  2  3  4  5
        row 0     6  7  2  3  4  5    its positions: the columns
        row 1     4  5  0  1  2  3    its positions: columns less its start, 2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.gpt import ModelConfig


class Cache:
    """Buffers, and the column in which each row starts. Computes nothing of what it holds."""

    def __init__(
        self, config: ModelConfig, lengths: Sequence[int], n_slots: int, weight: Tensor
    ) -> None:
        """A cache for the columns of the prompts; the newest is the prompts' last.

        Args:
            lengths: tokens of each row's prompt.
            n_slots: S, block_size or as few as all tokens to come need.
            weight: gives dtype and device.
        """
        B, S, D = len(lengths), n_slots, config.n_embd
        self.n_slots = S
        self._kv = weight.new_empty(config.n_layer, 2, B, config.n_head, S, config.head_size)
        self._found = weight.new_empty(2, B, S, D if config.pointer else 0)
        # A short prompt's row has slots that it never fills. It may not look there, but to weigh
        # rubbish by 0 is not to leave it out: it may be NaN.
        self._kv[:, :, :, :, : max(lengths)] = 0
        self._found[:, :, : max(lengths)] = 0
        self._ids = torch.zeros(B, S, dtype=torch.int64, device=weight.device)
        self.restart(max(lengths), [max(lengths) - length for length in lengths])

    def restart(self, n_columns: int, starts: Sequence[int]) -> None:
        """Begins anew with columns 0 to n_columns - 1."""
        self._columns = torch.arange(self.n_slots, device=self._ids.device)
        self.column = n_columns - 1
        self.set_starts(starts)

    def set_starts(self, starts: Sequence[int]) -> None:
        """The first column of each row; rows beyond these are no longer there."""
        B = len(starts)
        self.starts = list(starts)
        self.alike = not any(starts)  # then no row hides what another may see
        self.start_B = torch.tensor(self.starts, device=self._ids.device)
        self.kv_L2BHSK, self.found_2BSD = self._kv[:, :, :B], self._found[:, :B]
        self.ids_BS = self._ids[:B]

    def advance(self) -> None:
        """Makes the next column the newest."""
        self.column += 1
        self._columns[self.slot] = self.column

    @property
    def slot(self) -> int:
        """Where the newest column lies."""
        return self.column % self.n_slots

    @property
    def visible(self) -> int:
        """n: the first n slots are in use."""
        return min(self.column + 1, self.n_slots)

    def slots(self, first: int, last: int) -> Tensor:
        """The slots of columns first to last - 1, int64."""
        return torch.arange(first, last, device=self._ids.device) % self.n_slots

    def older(self) -> Tensor:
        """(B, n): True where a slot holds something from before the row's start."""
        return self._columns[: self.visible] < self.start_B[:, None]

    def move(self, source: int, target: int) -> None:
        """Puts a row in the place of another."""
        n = min(self.column + 2, self.n_slots)  # the pointer's next key is there already
        self._kv[:, :, target, :, :n] = self._kv[:, :, source, :, :n]
        self._found[:, target, :n] = self._found[:, source, :n]
        self._ids[target, :n] = self._ids[source, :n]
        self.starts[target] = self.starts[source]

    def keep_rows(self, n_rows: int) -> None:
        """Drops the rows from n_rows on."""
        if n_rows:
            self.set_starts(self.starts[:n_rows])
