"""Distinct pieces against a dict."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import pieces as pieces_module
from tok.pieces import distinct, leaders
from tok.starts import split_starts


def check(words):
    raw = b"".join(words)
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int64)
    pieces = distinct(raw, starts)
    kinds = [words[i] for i in pieces.first.tolist()]
    assert [kinds[u] for u in pieces.inverse.tolist()] == words
    assert dict(zip(kinds, pieces.counts.tolist(), strict=True)) == Counter(words)
    assert len(set(kinds)) == len(kinds)


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
    check(words)


def test_many_words_of_few_letters():
    draw = random.Random(1)
    check([bytes(draw.choices(b"ab", k=draw.randrange(1, 34))) for _ in range(5000)])


def test_no_pieces():
    pieces = distinct(b"", np.zeros(0, dtype=np.int64))
    assert len(pieces.first) == len(pieces.inverse) == len(pieces.counts) == 0


def test_words_that_share_every_slot_are_told_apart(monkeypatch):
    """With a constant hash every round finds one word; in the end the dict takes the rest."""
    monkeypatch.setattr(pieces_module, "_GOLDEN", 0)
    check(
        [b"w%d" % (i % 40) for i in range(300)] + [b"longer word %d" % (i % 30) for i in range(90)]
    )


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 1000])
def test_leaders_at_any_size(n):
    packed = np.arange(n, dtype=np.uint64)[None] // np.uint64(2)
    leader = leaders(packed)
    assert np.array_equal(packed[0][leader], packed[0])
    assert len(set(leader.tolist())) == (n + 1) // 2


def test_pieces_of_a_text():
    raw = "the cat, the mat; it's a préfix prefix ".encode() * 50
    starts = split_starts(raw)
    check([raw[a:b] for a, b in pairwise([*starts.tolist(), len(raw)])])
