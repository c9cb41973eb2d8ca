"""The table of counted pieces."""

import random
from collections import Counter

import numpy as np

from tok import counts as counts_module
from tok.counts import PieceCounts


def add(counts, words):
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int64)
    counts.add(b"".join(words), starts)


def test_blocks_and_parts_add_up(monkeypatch):
    monkeypatch.setattr(counts_module, "_SMALLEST", 8)  # equal pieces are added up all the time
    draw = random.Random(2)
    expected, parts = Counter(), []
    for _ in range(4):
        parts.append(PieceCounts())
        for _ in range(30):
            words = [b"ab\0" * draw.randrange(1, 20) + b"c" * draw.randrange(3) for _ in range(40)]
            add(parts[-1], words)
            expected.update(words)
    whole = PieceCounts()
    for part in parts:
        whole.update(part)
    assert whole.as_dict() == expected
    assert whole.n_bytes == sum(len(word) * n for word, n in expected.items())
    raw, lengths, counts = whole.rows()
    assert len(raw) == lengths.sum() and counts.sum() == sum(expected.values())


def test_nothing():
    raw, lengths, counts = PieceCounts().rows()
    assert len(raw) == len(lengths) == len(counts) == 0
    assert PieceCounts().as_dict() == {}
