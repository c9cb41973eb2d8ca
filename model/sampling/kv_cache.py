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

from model.config import ModelConfig


class KVCache:
    """Buffers, and the column in which each row starts. Computes nothing of what it holds.

    A step is told in two parts: `count` and `set_starts` are for the host, the others for whatever
    device holds the buffers.
    """

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
        self._ids = torch.zeros(B, S, dtype=torch.int64, device=weight.device)
        self._starts = torch.zeros(B, dtype=torch.int64, device=weight.device)
        self._mask = weight.new_zeros(B, S)
        self.begin(lengths)

    def begin(self, lengths: Sequence[int]) -> None:
        """As new, for other prompts of as many rows."""
        # A short prompt's row has slots that it never fills. It may not look there, but to weigh
        # rubbish by 0 is not to leave it out: it may be NaN.
        n_cleared = self._slots_cleared(max(lengths))
        self._kv[:, :, :, :, :n_cleared] = 0
        self._found[:, :, :n_cleared] = 0
        self.restart(lengths)

    def _slots_cleared(self, n_columns: int) -> int:
        return n_columns

    def restart(self, lengths: Sequence[int]) -> None:
        """Rows of so many columns, all ending at the newest; the first is column 0."""
        self.column = max(lengths) - 1
        self.set_starts([max(lengths) - length for length in lengths])

    def set_starts(self, starts: Sequence[int]) -> None:
        """The first column of each row; rows beyond these are no longer there."""
        B = len(starts)
        self.starts = list(starts)
        self.alike = not any(starts)  # then no row hides what another may see
        self.start_B = self._starts[:B].copy_(torch.tensor(self.starts))
        self.kv_L2BHSK, self.found_2BSD = self._kv[:, :, :B], self._found[:, :B]
        self.ids_BS, self.mask_BS = self._ids[:B], self._mask[:B]
        if self._hides():
            slots_S = torch.arange(self.n_slots, device=self._ids.device)
            ages_S = (self.column - slots_S) % self.n_slots
            columns_S = self.column - ages_S  # below 0 where none was yet
            hidden_BS = columns_S < self.start_B[:, None]
            self.mask_BS.zero_().masked_fill_(hidden_BS, -torch.inf)

    def _hides(self) -> bool:
        return not self.alike

    def count(self) -> None:
        """Makes the next column the newest."""
        self.column += 1

    @property
    def slot(self) -> int:
        """Where the newest column lies."""
        return self.column % self.n_slots

    @property
    def visible(self) -> int:
        """n: the first n slots may hold what is in use."""
        return min(self.column + 1, self.n_slots)

    def slots(self, first: int, last: int) -> Tensor:
        """The slots of columns first to last - 1, int64."""
        return torch.arange(first, last, device=self._ids.device) % self.n_slots

    def before(self) -> Tensor:
        """The ids of the column before the newest, (B,); to be read before that is entered."""
        # Of block_size 1, both lie in the same slot.
        return self.ids_BS[:, (self.column - 1) % self.n_slots].clone()

    def enter(self, ids_B: Tensor) -> None:
        """Puts ids into the newest column."""
        self.ids_BS[:, self.slot] = ids_B
        if not self.alike:
            self.mask_BS[:, self.slot] = 0

    def mask(self) -> Tensor | None:
        """(B, n): -inf where a row may not look, 0 elsewhere; None if all may look everywhere."""
        return None if self.alike else self.mask_BS[:, : self.visible]

    def place(self) -> slice | Tensor:
        """Where the newest column stands in each row, counted from its start: an index."""
        if self.alike:
            return slice(self.column, self.column + 1)
        return self.column - self.start_B

    def begins(self) -> Tensor | None:
        """(B,): True where the newest column is the row's first; None if it is nowhere."""
        return self.start_B == self.column if self.column in self.starts else None

    def oldest(self) -> Tensor:
        """The slot of the oldest column that each row may see, (B, 1)."""
        first = max(0, self.column + 1 - self.n_slots)
        if self.alike:
            size = (len(self.starts), 1)
            return torch.full(size, first % self.n_slots, device=self._ids.device)
        return self.start_B.clamp(min=first)[:, None] % self.n_slots

    def layer_views(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """A target for `write` for each layer; keys and values of each in turn, (B, H, n, K)."""
        # Views of all layers together: to make one costs half as much as to fill it.
        targets = self.kv_L2BHSK.select(4, self.slot).unbind(0)
        return targets, self.kv_L2BHSK[:, :, :, :, : self.visible].flatten(0, 1).unbind(0)

    def write(self, target: Tensor, kv_2BHK: Tensor) -> None:
        """Store a layer's newest keys and values."""
        target.copy_(kv_2BHK)

    def file_token(self, token_BD: Tensor) -> None:
        """For the pointer: what may be read of the newest token."""
        self.found_2BSD[1, :, self.slot] = token_BD

    def file_key(self, key_BD: Tensor) -> None:
        """For the pointer: how the token to come will be found."""
        self.found_2BSD[0, :, (self.column + 1) % self.n_slots] = key_BD

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then drop the rows from n_rows on, at least 1."""
        n = min(self.column + 2, self.n_slots)  # the pointer's next key is there already
        for source, target in moves:
            self._kv[:, :, target, :, :n] = self._kv[:, :, source, :, :n]
            self._found[:, target, :n] = self._found[:, source, :n]
            self._ids[target, :n] = self._ids[source, :n]
            self.starts[target] = self.starts[source]
        self.set_starts(self.starts[:n_rows])


class StaticKVCache(KVCache):
    """A cache whose every step is the same operations on the same addresses and shapes.

    So a GPU can record one and play it again. The newest column is a number on the device, steps
    look at all slots, and what lies there unseen is hidden.
    """

    def _slots_cleared(self, n_columns: int) -> int:
        return self.n_slots

    def restart(self, lengths: Sequence[int]) -> None:
        """Rows of so many columns, all ending at the newest; the first is column 0."""
        if not hasattr(self, "column_1"):
            self.column_1 = torch.zeros(1, dtype=torch.int64, device=self._ids.device)
            self.slot_1 = torch.zeros_like(self.column_1)
        super().restart(lengths)
        self.column_1.fill_(self.column)
        self.slot_1.fill_(self.slot)

    def set_starts(self, starts: Sequence[int]) -> None:
        """The first column of each row; rows beyond these are no longer there."""
        super().set_starts(starts)
        # Views taken beforehand: of a tensor that it sees cut into views, a compiler makes copies.
        self.kv_2BHSK_of = self.kv_L2BHSK.unbind(0)

    @property
    def visible(self) -> int:
        """n: all slots."""
        return self.n_slots

    def _hides(self) -> bool:
        return True  # slots that hold nothing yet

    def before(self) -> Tensor:
        """As in any cache: the device has not counted yet."""
        return self.ids_BS.index_select(1, self.slot_1)[:, 0]

    def enter(self, ids_B: Tensor) -> None:
        """As in any cache; the device counts the column here."""
        self.column_1 += 1
        torch.remainder(self.column_1, self.n_slots, out=self.slot_1)
        self.ids_BS.index_copy_(1, self.slot_1, ids_B[:, None])
        self.mask_BS.index_fill_(1, self.slot_1, 0)

    def mask(self) -> Tensor:
        """(B, S): -inf where a row may not look, 0 elsewhere."""
        return self.mask_BS

    def place(self) -> Tensor:
        """Where the newest column stands in each row, counted from its start: (B,)."""
        return self.column_1 - self.start_B

    def begins(self) -> Tensor:
        """(B,): True where the newest column is the row's first."""
        return self.start_B == self.column_1

    def oldest(self) -> Tensor:
        """The slot of the oldest column that each row may see, (B, 1)."""
        first_1 = (self.column_1 + 1 - self.n_slots).clamp(min=0)
        return torch.maximum(self.start_B, first_1)[:, None] % self.n_slots

    def layer_views(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """As in any cache, of all slots."""
        views = self.kv_2BHSK_of
        return views, [part for kv_2BHSK in views for part in kv_2BHSK.unbind(0)]

    def write(self, target: Tensor, kv_2BHK: Tensor) -> None:
        """Store a layer's newest keys and values."""
        target.index_copy_(3, self.slot_1, kv_2BHK[:, :, :, None])

    def file_token(self, token_BD: Tensor) -> None:
        """For the pointer: what may be read of the newest token."""
        self.found_2BSD[1].index_copy_(1, self.slot_1, token_BD[:, None])

    def file_key(self, key_BD: Tensor) -> None:
        """For the pointer: how the token to come will be found."""
        next_1 = (self.column_1 + 1) % self.n_slots
        self.found_2BSD[0].index_copy_(1, next_1, key_BD[:, None])
