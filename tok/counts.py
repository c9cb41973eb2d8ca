"""How often each pre-token occurs in a corpus: the table that merges are learned from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tok.pieces import LONGEST, WORDS, by_length, leaders, number, pack

if TYPE_CHECKING:
    import numpy as np

# Blocks repeat the same pieces. When a table has grown to twice what it held after the last time,
# equal pieces are added up, so it never holds much more than it must.
_SMALLEST = 1 << 16


class PieceCounts:
    """Distinct pieces and their counts, for one corpus or a part of it."""

    def __init__(self) -> None:
        self._tables = {n_words: _Table(n_words) for n_words in WORDS}
        self._longer: Counter[bytes] = Counter()
        self.n_bytes = 0  #: of all that was counted

    def add(self, raw: bytes, starts_P: np.ndarray) -> None:
        """Counts the pre-tokens of a block: raw[starts_P[i] : starts_P[i + 1]].

        >>> import numpy as np
        >>> counts = PieceCounts()
        >>> counts.add(b"the cat the", np.array([0, 3, 7]))
        >>> sorted(counts.as_dict().items())
        [(b' cat', 1), (b' the', 1), (b'the', 1)]
        """
        import numpy as np

        self.n_bytes += len(raw)
        lengths_P = np.diff(starts_P, append=len(raw))
        for n_words, members_M in by_length(lengths_P):
            packed_KM = pack(raw, starts_P[members_M], lengths_P[members_M], n_words)
            first_U, _, counts_U = number(leaders(packed_KM))
            self._tables[n_words].add(packed_KM[:, first_U], counts_U)
        for i in np.flatnonzero(lengths_P > LONGEST).tolist():
            start = int(starts_P[i])
            self._longer[raw[start : start + int(lengths_P[i])]] += 1

    def update(self, other: PieceCounts) -> None:
        """Adds the counts of another part of the corpus."""
        for n_words, table in other._tables.items():
            self._tables[n_words].add(*table.squeezed())
        self._longer.update(other._longer)
        self.n_bytes += other.n_bytes

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pieces behind each other uint8[bytes], their lengths int64[U] and counts int64[U]."""
        import numpy as np

        raw, lengths, counts = [], [], []
        for n_words, table in self._tables.items():
            packed_KU, counts_U = table.squeezed()
            bytes_UB = np.ascontiguousarray(packed_KU.T).view(np.uint8)  # [U, 8 * n_words]
            lengths_U = bytes_UB[:, -1].astype(np.int64)
            raw.append(bytes_UB[np.arange(8 * n_words) < lengths_U[:, None]])
            lengths.append(lengths_U)
            counts.append(counts_U)
        raw.append(np.frombuffer(b"".join(self._longer), dtype=np.uint8))
        lengths.append(np.array([len(piece) for piece in self._longer], dtype=np.int64))
        counts.append(np.array([*self._longer.values()], dtype=np.int64))
        return np.concatenate(raw), np.concatenate(lengths), np.concatenate(counts)

    def as_dict(self) -> dict[bytes, int]:
        """Piece -> how often it occurs."""
        raw, lengths_U, counts_U = self.rows()
        whole, ends_U = raw.tobytes(), lengths_U.cumsum()
        return {
            whole[end - length : end]: count
            for end, length, count in zip(
                ends_U.tolist(), lengths_U.tolist(), counts_U.tolist(), strict=True
            )
        }


class _Table:
    """Pieces of one size in words, in parts that may hold the same piece."""

    def __init__(self, n_words: int) -> None:
        import numpy as np

        empty_KU = np.zeros((n_words, 0), dtype=np.uint64)
        self._parts = [(empty_KU, np.zeros(0, dtype=np.int64))]
        self._size, self._limit = 0, _SMALLEST

    def add(self, packed_KU: np.ndarray, counts_U: np.ndarray) -> None:
        self._parts.append((packed_KU, counts_U))
        self._size += len(counts_U)
        if self._size > self._limit:
            self.squeezed()
            self._limit = max(2 * self._size, _SMALLEST)

    def squeezed(self) -> tuple[np.ndarray, np.ndarray]:
        """uint64[K, U], int64[U]: every piece once, in one part."""
        import numpy as np

        if len(self._parts) > 1:
            packed_KP = np.concatenate([packed for packed, _ in self._parts], axis=1)
            counts_P = np.concatenate([counts for _, counts in self._parts])
            first_U, inverse_P, _ = number(leaders(packed_KP))
            counts_U = np.zeros(len(first_U), dtype=np.int64)
            np.add.at(counts_U, inverse_P, counts_P)
            self._parts = [(packed_KP[:, first_U], counts_U)]
            self._size = len(first_U)
        return self._parts[0]
