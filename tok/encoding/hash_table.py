"""A dictionary in NumPy arrays: numbers many keys at once, equal keys alike.

A key is a row of `width` uint64 words; its number says when it was entered: 0 is the first. Open
addressing: a hash of the key names the slot where it should stand; if another key stands there, the
slots 1, 3, 6, 10, ... further on are tried. All keys are tried in step; those that have found their
slot drop out:

    slots     0    1    2    3           keys a, b, c hash to 1, 1, 3
    1st try   .    a    .    c           b finds a in its slot and goes on
    2nd try   .    a    b    c

Where the keys of a hostile text fall can't be foreseen: every process draws the multipliers of its
hash. They decide how many tries a key takes, never what is found, nor the order of the numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np


class Table:
    """Keys -> numbers. The last word of a key is never 0: 0 marks a free slot.

    >>> table = Table(width=1)
    >>> numbers, added = table.find_or_add([np.array([7, 5, 5], dtype=np.uint64)])
    >>> numbers.tolist(), added.tolist()
    ([0, 1, 1], [0, 1])
    >>> numbers, added = table.find_or_add([np.array([6, 5], dtype=np.uint64)])
    >>> numbers.tolist(), added.tolist()
    ([2, 1], [0])
    """

    def __init__(self, width: int, n_keys: int = 256) -> None:
        """`n_keys`: how many to make room for; the table grows by itself."""
        self.width = width
        draws = np.frombuffer(os.urandom(8 * width), dtype=np.uint64)
        self._multipliers = [draw | np.uint64(1) for draw in draws]
        self._n_keys = 0
        self._make_slots(n_keys)

    def __len__(self) -> int:
        return self._n_keys

    @property
    def n_bytes(self) -> int:
        """Memory of keys and numbers."""
        return (self.width + 1) * self._numbers.nbytes

    def find_or_add(self, words: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Enters the keys that are not there yet, and numbers them in the order of their places.

        Args:
            words: `width` arrays uint64[N]; words[w][n] is word w of key n.

        Returns:
            int64[N], the number of each key; and int64[A], ascending, the places of those that were
            new (of several equal keys the first).
        """
        slots_N = self._hash(words)
        numbers_N = self._numbers.take(slots_N)
        strangers = np.flatnonzero(~self._stand_at(slots_N, words))
        added = [strangers[:0]]
        while len(strangers):
            room = self._room()
            # Equal strangers need one place. So those for whom there is room go first; many of the
            # others are known after that.
            if room < min(len(strangers), self._n_keys):
                self._grow(2 * self._n_keys)
                room = self._room()
            turn, rest = strangers[:room], strangers[room:]
            keys_T = [word.take(turn) for word in words]
            slots_T, new = self._enter(keys_T, self._hash(keys_T))
            self._numbers[slots_T[new]] = np.arange(self._n_keys, self._n_keys + len(new))
            self._n_keys += len(new)
            numbers_N[turn] = self._numbers[slots_T]
            added.append(turn[new])
            keys_R = [word.take(rest) for word in words]
            slots_R = self._hash(keys_R)
            numbers_N[rest] = self._numbers.take(slots_R)
            strangers = rest[~self._stand_at(slots_R, keys_R)]
        return numbers_N, np.concatenate(added)

    def keys(self) -> list[np.ndarray]:
        """`width` arrays uint64[keys]: all keys in the order of their numbers.

        >>> table = Table(width=1)
        >>> numbers, _ = table.find_or_add([np.array([7, 5, 7], dtype=np.uint64)])
        >>> [words.tolist() for words in table.keys()]
        [[7, 5]]
        """
        taken = np.flatnonzero(self._words[-1])
        slots = np.empty(self._n_keys, dtype=np.int64)
        slots[self._numbers[taken]] = taken
        return [column[slots] for column in self._words]

    def _room(self) -> int:
        """How many keys may be entered: half of the slots stay free."""
        return (self._last_slot + 1) // 2 - self._n_keys

    def _enter(
        self, keys: Sequence[np.ndarray], slots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds each key or a free slot for it, from `slots` on; returns all slots, and which were
        free (ascending). Their numbers are left to be written."""
        new = np.zeros(len(slots), dtype=bool)
        searching = np.arange(len(slots))
        tries = 0
        while len(searching):
            there = slots[searching]
            free = self._words[-1][there] == 0
            # Several keys may want the same free slot, equal keys among them: each writes its
            # place, from the last to the first, so that the first stays. It is entered; then all
            # look whether the slot holds their key now.
            self._numbers[there[free][::-1]] = searching[free][::-1]
            free[free] = self._numbers[there[free]] == searching[free]
            entered = searching[free]
            for column, key in zip(self._words, keys, strict=True):
                column[there[free]] = key[entered]
            new[entered] = True
            lost = ~self._stand_at(there, [key[searching] for key in keys])
            searching = searching[lost]
            tries += 1
            slots[searching] = (there[lost] + tries) & self._last_slot
        return slots, np.flatnonzero(new)

    def _hash(self, words: Sequence[np.ndarray]) -> np.ndarray:
        """int64[N]: slots, from the top bits of the words times the multipliers, added up."""
        mixed = words[0] * self._multipliers[0]
        for word, multiplier in zip(words[1:], self._multipliers[1:], strict=True):
            mixed += word * multiplier
        mixed >>= self._shift
        return mixed.view(np.int64)

    def _stand_at(self, slots: np.ndarray, words: Sequence[np.ndarray]) -> np.ndarray:
        """bool[N]: whether slot n holds key n."""
        same = self._words[0].take(slots) == words[0]
        for column, word in zip(self._words[1:], words[1:], strict=True):
            same &= column.take(slots) == word
        return same

    def _make_slots(self, n_keys: int) -> None:
        bits = max(10, (4 * n_keys - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._last_slot = (1 << bits) - 1
        self._words = [np.zeros(1 << bits, dtype=np.uint64) for _ in range(self.width)]
        self._numbers = np.zeros(1 << bits, dtype=np.int64)

    def _grow(self, n_keys: int) -> None:
        taken = np.flatnonzero(self._words[-1])
        words, numbers = [column[taken] for column in self._words], self._numbers[taken]
        self._make_slots(n_keys)
        slots, _ = self._enter(words, self._hash(words))
        self._numbers[slots] = numbers
