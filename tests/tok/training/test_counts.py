"""Counts of distinct pre-tokens, compared with collections.Counter."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.pretokens import as_dict
from tok.patterns import GPT2
from tok.split_arrays import split_starts
from tok.training import counts as counts_module
from tok.training.counts import PretokenCounts


def add(counts, words):
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int64)
    counts.add(b"".join(words), starts)


@pytest.mark.parametrize("slot_bits", [1, 13])
def test_counts_of_blocks_and_parts_are_added(monkeypatch, slot_bits):
    monkeypatch.setattr(counts_module, "SLOT_BITS", slot_bits)  # with 2 slots most keys collide
    rng = random.Random(2)
    expected, parts = Counter(), []
    for _ in range(4):
        parts.append(PretokenCounts())
        for _ in range(30):
            words = [b"ab\0" * rng.randrange(1, 20) + b"c" * rng.randrange(3) for _ in range(40)]
            add(parts[-1], words)
            expected.update(words)
    whole = PretokenCounts()
    for part in parts:
        whole.update(part.partial_counts())
    assert as_dict(whole) == expected
    assert whole.n_bytes == sum(len(word) * n for word, n in expected.items())
    raw, lengths, counts = whole.flattened()
    assert len(raw) == lengths.sum() and counts.sum() == sum(expected.values())


def test_no_text():
    raw, lengths, counts = PretokenCounts().flattened()
    assert len(raw) == len(lengths) == len(counts) == 0
    assert as_dict(PretokenCounts()) == {}


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.sampled_from([b"\0", b"\0\0", b"a", b"a\0", b"\xff" * 7, b"\xff" * 8, b"\0" * 15])
        | st.integers(1, 70).map(lambda n: b"ab" * (n // 2) + b"c" * (n % 2))
        | st.binary(min_size=1, max_size=20),
        min_size=1,
        max_size=60,
    )
)
def test_equal_to_a_dict(words):
    counts = PretokenCounts()
    add(counts, words)
    assert as_dict(counts) == Counter(words)


def test_many_words_of_few_letters():
    rng = random.Random(1)
    words = [bytes(rng.choices(b"ab", k=rng.randrange(1, 34))) for _ in range(5000)]
    counts = PretokenCounts()
    add(counts, words)
    add(counts, words)
    assert as_dict(counts) == Counter(words + words)


def test_pretokens_of_a_text():
    raw = "the cat, the mat; it's a préfix prefix ".encode() * 50
    starts = split_starts(raw, GPT2)
    counts = PretokenCounts()
    counts.add(raw, starts)
    assert as_dict(counts) == Counter(raw[a:b] for a, b in pairwise([*starts.tolist(), len(raw)]))
