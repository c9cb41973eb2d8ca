"""A hash table in NumPy arrays: assigns consecutive indices to distinct keys, many at a time.

A key consists of `width` uint64 words. Keys get the indices 0, 1, ... as they are inserted. Open
addressing with quadratic probing: the hash of a key gives its first slot; if another key is there,
the slots 1, 3, 6, 10, ... further on are tried. All keys of a call are probed together, and those
that have found their slot leave the loop:

    slots     0    1    2    3           keys a, b, c hash to 1, 1, 3
    1st try   .    a    .    c           b finds a in its slot and tries the next
    2nd try   .    a    b    c

The multipliers of the hash are random in each process, so that a hostile text cannot choose keys
that collide. They affect the number of tries only, never the result or the order of the indices.
"""

import os
from collections.abc import Sequence

import numpy as np


class HashTable:
    """Key -> index. The last word of a key must not be 0, which marks a free slot.

    >>> table = HashTable(width=1)
    >>> indices, added = table.find_or_add([np.array([7, 5, 5], dtype=np.uint64)])
    >>> indices.tolist(), added.tolist()
    ([0, 1, 1], [0, 1])
    >>> indices, added = table.find_or_add([np.array([6, 5], dtype=np.uint64)])
    >>> indices.tolist(), added.tolist()
    ([2, 1], [0])
    """

    def __init__(self, width: int, n_keys: int = 256) -> None:
        """`n_keys`: initial capacity; the table grows as needed."""
        self.width = width
        random_words = np.frombuffer(os.urandom(8 * width), dtype=np.uint64)
        self._multipliers = [word | np.uint64(1) for word in random_words]
        self._n_keys = 0
        self._make_slots(n_keys)

    def __len__(self) -> int:
        return self._n_keys

    @property
    def n_bytes(self) -> int:
        """Memory of keys and indices, in bytes."""
        return (self.width + 1) * self._indices.nbytes

    def find_or_add(self, words: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of each key; add the new ones.

        Args:
            words: `width` arrays uint64[K]; words[w][k] is word w of key k.

        Returns:
            int64[K], the index of each key; and the positions in `words` of the keys that were new,
            int64, ascending (of equal keys, the first).
        """
        slots_K = self._hash(words)
        indices_K = self._indices.take(slots_K)
        missing = np.flatnonzero(~self._holds(slots_K, words))
        added = [missing[:0]]
        while len(missing):
            capacity = self._free_capacity()
            # Equal missing keys need one slot together. So only as many as fit are inserted first;
            # afterwards many of the others are found. The table grows first if there is room
            # neither for all of them nor for as many keys as it has.
            if capacity < min(len(missing), self._n_keys):
                self._grow(2 * self._n_keys)
                capacity = self._free_capacity()
            batch, rest = missing[:capacity], missing[capacity:]
            batch_words = [word.take(batch) for word in words]
            batch_slots, new = self._insert(batch_words, self._hash(batch_words))
            self._indices[batch_slots[new]] = np.arange(self._n_keys, self._n_keys + len(new))
            self._n_keys += len(new)
            indices_K[batch] = self._indices[batch_slots]
            added.append(batch[new])
            rest_words = [word.take(rest) for word in words]
            rest_slots = self._hash(rest_words)
            indices_K[rest] = self._indices.take(rest_slots)
            missing = rest[~self._holds(rest_slots, rest_words)]
        return indices_K, np.concatenate(added)

    def keys(self) -> list[np.ndarray]:
        """Return all keys in the order of their indices: `width` arrays uint64[len(self)].

        >>> table = HashTable(width=1)
        >>> indices, _ = table.find_or_add([np.array([7, 5, 7], dtype=np.uint64)])
        >>> [words.tolist() for words in table.keys()]
        [[7, 5]]
        """
        taken = np.flatnonzero(self._words[-1])
        slots = np.empty(self._n_keys, dtype=np.int64)
        slots[self._indices[taken]] = taken
        return [column[slots] for column in self._words]

    def _free_capacity(self) -> int:
        """Return how many keys may be added. Half of the slots stay free."""
        return (self._last_slot + 1) // 2 - self._n_keys

    def _insert(
        self, words: Sequence[np.ndarray], slots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the slot of each key, or write it to a free slot. Probing starts at `slots`.

        Returns:
            int64[K], the slots; and the positions of the keys that were written, ascending. The
            caller must set their indices.
        """
        new = np.zeros(len(slots), dtype=bool)
        searching = np.arange(len(slots))
        tries = 0
        while len(searching):
            probed = slots[searching]
            free = self._words[-1][probed] == 0
            # Several keys may try the same free slot, among them equal keys. Each writes its
            # position there, in descending order, so that the first one wins and is inserted. Then
            # all keys compare the slot's content with themselves.
            self._indices[probed[free][::-1]] = searching[free][::-1]
            free[free] = self._indices[probed[free]] == searching[free]
            winners = searching[free]
            for column, word in zip(self._words, words, strict=True):
                column[probed[free]] = word[winners]
            new[winners] = True
            collided = ~self._holds(probed, [word[searching] for word in words])
            searching = searching[collided]
            tries += 1
            slots[searching] = (probed[collided] + tries) & self._last_slot
        return slots, np.flatnonzero(new)

    def _hash(self, words: Sequence[np.ndarray]) -> np.ndarray:
        """Return int64[K]: slots, the top bits of the sum of words times multipliers."""
        mixed = words[0] * self._multipliers[0]
        for word, multiplier in zip(words[1:], self._multipliers[1:], strict=True):
            mixed += word * multiplier
        mixed >>= self._shift
        return mixed.view(np.int64)

    def _holds(self, slots: np.ndarray, words: Sequence[np.ndarray]) -> np.ndarray:
        """Return bool[K]: True if slots[k] holds key k."""
        same = self._words[0].take(slots) == words[0]
        for column, word in zip(self._words[1:], words[1:], strict=True):
            same &= column.take(slots) == word
        return same

    def _make_slots(self, n_keys: int) -> None:
        """Make free slots, at least four for each of `n_keys` keys."""
        bits = max(10, (4 * n_keys - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._last_slot = (1 << bits) - 1
        self._words = [np.zeros(1 << bits, dtype=np.uint64) for _ in range(self.width)]
        self._indices = np.zeros(1 << bits, dtype=np.int64)

    def _grow(self, n_keys: int) -> None:
        """Move all keys to a new array of slots for `n_keys` keys."""
        taken = np.flatnonzero(self._words[-1])
        words, indices = [column[taken] for column in self._words], self._indices[taken]
        self._make_slots(n_keys)
        slots, _ = self._insert(words, self._hash(words))
        self._indices[slots] = indices
