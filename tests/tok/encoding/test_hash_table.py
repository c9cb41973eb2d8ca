"""HashTable compared with a dict: keys that collide, repeat and make the table grow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.encoding.hash_table import HashTable

KEY = st.tuples(st.integers(0, 3), st.integers(1, 12))  # a last word of 0 marks a free slot


def to_words(keys, width):
    columns = np.array(keys, dtype=np.uint64).reshape(-1, 2).T
    return list(columns)[2 - width :]


def check(table, batches, width):
    indices = {}
    for batch in batches:
        keys = [key[2 - width :] for key in batch]
        words = to_words(batch, width)
        found, added = table.find_or_add(words)
        before = len(indices)
        for key in keys:
            indices.setdefault(key, len(indices))
        assert sorted(found[added].tolist()) == list(range(before, len(indices)))
        # The order of new keys is not specified; equal keys have one index.
        index_of = dict(zip(keys, found.tolist()))
        assert len(set(index_of.values())) == len(set(keys)) == len(index_of)
        assert all(index_of[key] == indices[key] for key in keys if indices[key] < before)
        assert added.tolist() == sorted(added.tolist())
        firsts = {key: i for i, key in reversed(list(enumerate(keys)))}
        assert all(firsts[keys[i]] == i for i in added.tolist())
        indices.update(index_of)
        again, added = table.find_or_add(words)
        assert again.tolist() == found.tolist() and not len(added)
        assert len(table) == len(indices)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([1, 2]), st.lists(st.lists(KEY, max_size=30), max_size=5), st.booleans())
def test_equal_to_a_dict(width, batches, collide):
    table = HashTable(width)
    if collide:  # every key hashes to slot 0
        table._multipliers = [np.uint64(0)] * width
    check(table, batches, width)


def test_growing_preserves_the_content():
    table = HashTable(width=2)
    rng = np.random.default_rng(3)
    keys = [tuple(map(int, key)) for key in rng.integers(1, 1 << 62, (20_000, 2))]
    check(table, [keys[:3], keys[:5000], keys[2000:], keys], 2)
    assert 2 * len(table) <= table._last_slot + 1


@pytest.mark.parametrize("n", [0, 1])
def test_zero_or_one_key(n):
    table = HashTable(width=1)
    words = [np.full(n, 7, dtype=np.uint64)]
    assert len(table) == 0
    assert table.find_or_add(words)[0].tolist() == [0] * n
