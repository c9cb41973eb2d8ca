"""The table in arrays against a dict, with keys that collide, repeat, and make it grow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.encoding.hash_table import HashTable

KEY = st.tuples(st.integers(0, 3), st.integers(1, 12))  # a last word of 0 marks a free slot


def words_of(keys, width):
    columns = np.array(keys, dtype=np.uint64).reshape(-1, 2).T
    return list(columns)[2 - width :]


def check(table, batches, width):
    numbers = {}
    for batch in batches:
        keys = [key[2 - width :] for key in batch]
        words = words_of(batch, width)
        found, added = table.find_or_add(words)
        before = len(numbers)
        for key in keys:
            numbers.setdefault(key, len(numbers))
        assert sorted(found[added].tolist()) == list(range(before, len(numbers)))
        # Which of the new keys comes first is the table's business; equal keys are one.
        known = dict(zip(keys, found.tolist()))
        assert len(set(known.values())) == len(set(keys)) == len(known)
        assert all(known[key] == numbers[key] for key in keys if numbers[key] < before)
        assert added.tolist() == sorted(added.tolist())
        firsts = {key: place for place, key in reversed(list(enumerate(keys)))}
        assert all(firsts[keys[place]] == place for place in added.tolist())
        numbers.update(known)
        again, added = table.find_or_add(words)
        assert again.tolist() == found.tolist() and not len(added)
        assert len(table) == len(numbers)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([1, 2]), st.lists(st.lists(KEY, max_size=30), max_size=5), st.booleans())
def test_equal_to_a_dict(width, batches, collide):
    table = HashTable(width)
    if collide:  # every key hashes to slot 0
        table._multipliers = [np.uint64(0)] * width
    check(table, batches, width)


def test_it_grows_and_keeps_what_it_holds():
    table = HashTable(width=2)
    draw = np.random.default_rng(3)
    keys = [tuple(map(int, key)) for key in draw.integers(1, 1 << 62, (20_000, 2))]
    check(table, [keys[:3], keys[:5000], keys[2000:], keys], 2)
    assert 2 * len(table) <= table._last_slot + 1


@pytest.mark.parametrize("n", [0, 1])
def test_no_key_and_one(n):
    table = HashTable(width=1)
    words = [np.full(n, 7, dtype=np.uint64)]
    assert len(table) == 0
    assert table.find_or_add(words)[0].tolist() == [0] * n
