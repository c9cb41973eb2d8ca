"""The KV cache: keys and values of earlier tokens, for attention and for the pointer.

B rows of S slots, all allocated at the start; filling them copies nothing. Rows are aligned at
their ends: a step writes column c of every row, so one slice serves the whole batch, and a row with
a shorter prompt starts at a later column. Column c is stored in slot c mod S (a ring buffer): once
all slots are full, a new column replaces the oldest, and a row keeps its last S tokens.

    prompts of 4 and 2 tokens, S = 6, after 4 more steps (columns 0 to 7)

        slot      0  1  2  3  4  5
        column    6  7  2  3  4  5
        row 0     6  7  2  3  4  5    its positions: the columns
        row 1     4  5  0  1  2  3    its positions: columns minus its start, 2
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import ModelConfig


class KVCache:
    """The buffers, and the column at which each row starts.

    Between steps the host calls `advance`, and `reset`, `align_rows` or `compact` when rows change.
    The methods that a step calls work on the device that holds the buffers.
    """

    reads_all_slots = False  # if True, the mask also hides slots not written yet

    def __init__(
        self, config: ModelConfig, lengths: Sequence[int], n_slots: int, weight: Tensor
    ) -> None:
        """Allocate the cache; the newest column is the last one of the prompts.

        Args:
            lengths: the number of tokens of each row's prompt.
            n_slots: S; block_size, or fewer if prompts and new tokens need fewer.
            weight: gives dtype and device.
        """
        B, S, D = len(lengths), n_slots, config.n_embd
        self.n_slots = S
        self._kv = weight.new_empty(config.n_layer, 2, B, config.kv_heads, S, config.head_dim)
        self._pointer = weight.new_empty(2, B, S, D if config.pointer else 0)
        self._ids = torch.zeros(B, S, dtype=torch.int64, device=weight.device)
        self._starts = torch.zeros(B, dtype=torch.int64, device=weight.device)
        self._mask = weight.new_zeros(B, S)
        self.reset(lengths)

    def reset(self, lengths: Sequence[int]) -> None:
        """Empty the cache for other prompts of the same number of rows."""
        # A short prompt's row has slots that it never fills. These slots are masked, but 0 * NaN is
        # NaN, so uninitialised memory must be cleared.
        n_cleared = self.n_slots if self.reads_all_slots else max(lengths)
        self._kv[:, :, :, :, :n_cleared] = 0
        self._pointer[:, :, :n_cleared] = 0
        self.align_rows(lengths)

    def align_rows(self, lengths: Sequence[int]) -> None:
        """Set each row's length and the newest column, where all end; the longest starts at 0."""
        self.column = max(lengths) - 1
        self.set_starts([max(lengths) - length for length in lengths])

    def set_starts(self, starts: Sequence[int]) -> None:
        """Set the first column of each row; further rows are dropped."""
        B = len(starts)
        self.starts = list(starts)
        self.aligned = not any(starts)  # all rows have the same length, so no mask is needed
        self.start_B = self._starts[:B].copy_(torch.tensor(self.starts))
        self.kv_L2BGSK, self.pointer_2BSD = self._kv[:, :, :B], self._pointer[:, :B]
        self.ids_BS, self.mask_BS = self._ids[:B], self._mask[:B]
        if self.reads_all_slots or not self.aligned:
            slots_S = torch.arange(self.n_slots, device=self._ids.device)
            ages_S = (self.column - slots_S) % self.n_slots
            columns_S = self.column - ages_S  # negative for slots not written yet
            hidden_BS = columns_S < self.start_B[:, None]
            self.mask_BS.zero_().masked_fill_(hidden_BS, -torch.inf)

    def advance(self) -> None:
        """Make the next column the newest."""
        self.column += 1

    @property
    def slot(self) -> int:
        """The slot of the newest column."""
        return self.column % self.n_slots

    @property
    def n_visible(self) -> int:
        """n: all slots in use are among the first n."""
        return self.n_slots if self.reads_all_slots else min(self.column + 1, self.n_slots)

    def slots(self, first: int, last: int) -> Tensor:
        """Return the slots of columns first to last - 1, int64 (T,)."""
        return torch.arange(first, last, device=self._ids.device) % self.n_slots

    def previous_ids(self) -> Tensor:
        """Return the ids of the column before the newest, (B,); call it before `append_ids`."""
        # A copy: with block_size 1 both columns share a slot.
        return self.ids_BS[:, (self.column - 1) % self.n_slots].clone()

    def append_ids(self, ids_B: Tensor) -> None:
        """Write ids into the newest column."""
        self.ids_BS[:, self.slot] = ids_B
        if not self.aligned:
            self.mask_BS[:, self.slot] = 0

    def mask(self) -> Tensor | None:
        """Return (B, n): -inf for slots hidden from a row, 0 elsewhere; None if none is hidden."""
        return None if self.aligned else self.mask_BS[:, : self.n_visible]

    def positions(self) -> slice | Tensor:
        """Return an index: the newest column's position in each row, from the row's start."""
        if self.aligned:
            return slice(self.column, self.column + 1)
        return self.column - self.start_B

    def is_first(self) -> Tensor | None:
        """Return (B,): True where the newest column is the row's first; None if all are False."""
        return self.start_B == self.column if self.column in self.starts else None

    def oldest_slot(self) -> Tensor:
        """Return the slot of the oldest column visible to each row, (B, 1)."""
        first = max(0, self.column + 1 - self.n_slots)
        if self.aligned:
            size = (len(self.starts), 1)
            return torch.full(size, first % self.n_slots, device=self._ids.device)
        return self.start_B.clamp(min=first)[:, None] % self.n_slots

    def layer_views(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return each layer's target for `write`; and the keys of layer 0, its values, the keys of
        layer 1, ..., each (B, G, n, K).
        """
        # Views of all layers in one call: making one view costs half as much as filling it.
        targets = self.kv_L2BGSK.select(4, self.slot).unbind(0)
        return targets, self.kv_L2BGSK[:, :, :, :, : self.n_visible].flatten(0, 1).unbind(0)

    def write(self, target: Tensor, kv_2BGK: Tensor) -> None:
        """Store the keys and values of a layer's newest column."""
        target.copy_(kv_2BGK)

    def write_pointer_value(self, value_BD: Tensor) -> None:
        """Store what the pointer can read of the newest token."""
        self.pointer_2BSD[1, :, self.slot] = value_BD

    def write_pointer_key(self, key_BD: Tensor) -> None:
        """Store the key by which the pointer will find the next token."""
        self.pointer_2BSD[0, :, (self.column + 1) % self.n_slots] = key_BD

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then keep only the first n_rows, at least 1."""
        n = min(self.column + 2, self.n_slots)  # the pointer's next key is already written
        for source, target in moves:
            self._kv[:, :, target, :, :n] = self._kv[:, :, source, :, :n]
            self._pointer[:, target, :n] = self._pointer[:, source, :n]
            self._ids[target, :n] = self._ids[source, :n]
            self.starts[target] = self.starts[source]
        self.set_starts(self.starts[:n_rows])


class StaticKVCache(KVCache):
    """A KV cache whose steps all run the same operations on the same addresses and shapes.

    So a CUDA graph can capture one step and replay it. The newest column is a tensor on the device,
    steps read all slots, and slots not in use are masked.
    """

    reads_all_slots = True

    def align_rows(self, lengths: Sequence[int]) -> None:
        """Set each row's length and the newest column, where all end; the longest starts at 0."""
        if not hasattr(self, "column_1"):
            self.column_1 = torch.zeros(1, dtype=torch.int64, device=self._ids.device)
            self.slot_1 = torch.zeros_like(self.column_1)
        super().align_rows(lengths)
        self.column_1.fill_(self.column)
        self.slot_1.fill_(self.slot)

    def set_starts(self, starts: Sequence[int]) -> None:
        """Set the first column of each row; further rows are dropped."""
        super().set_starts(starts)
        # Views made in advance: where torch.compile sees them made, it copies the tensor.
        self.kv_2BGSK_of = self.kv_L2BGSK.unbind(0)

    def previous_ids(self) -> Tensor:
        """Return the previous ids, (B,): `slot_1` advances only in `append_ids`."""
        return self.ids_BS.index_select(1, self.slot_1)[:, 0]

    def append_ids(self, ids_B: Tensor) -> None:
        """Advance the column on the device, and write ids into it."""
        self.column_1 += 1
        torch.remainder(self.column_1, self.n_slots, out=self.slot_1)
        self.ids_BS.index_copy_(1, self.slot_1, ids_B[:, None])
        self.mask_BS.index_fill_(1, self.slot_1, 0)

    def mask(self) -> Tensor:
        """Return (B, S): -inf for slots hidden from a row, 0 elsewhere."""
        return self.mask_BS

    def positions(self) -> Tensor:
        """Return the newest column's position in each row, from the row's start, (B,)."""
        return self.column_1 - self.start_B

    def is_first(self) -> Tensor:
        """Return (B,): True where the newest column is the row's first."""
        return self.start_B == self.column_1

    def oldest_slot(self) -> Tensor:
        """Return the slot of the oldest column visible to each row, (B, 1)."""
        first_1 = (self.column_1 + 1 - self.n_slots).clamp(min=0)
        return torch.maximum(self.start_B, first_1)[:, None] % self.n_slots

    def layer_views(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the views of `KVCache.layer_views`, over all slots."""
        views = self.kv_2BGSK_of
        return views, [part for kv_2BGSK in views for part in kv_2BGSK.unbind(0)]

    def write(self, target: Tensor, kv_2BGK: Tensor) -> None:
        """Store the keys and values of a layer's newest column."""
        target.index_copy_(3, self.slot_1, kv_2BGK[:, :, :, None])

    def write_pointer_value(self, value_BD: Tensor) -> None:
        """Store what the pointer can read of the newest token."""
        self.pointer_2BSD[1].index_copy_(1, self.slot_1, value_BD[:, None])

    def write_pointer_key(self, key_BD: Tensor) -> None:
        """Store the key by which the pointer will find the next token."""
        next_1 = (self.column_1 + 1) % self.n_slots
        self.pointer_2BSD[0].index_copy_(1, next_1, key_BD[:, None])
