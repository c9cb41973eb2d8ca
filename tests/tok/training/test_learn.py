"""Merges of several pairs per step, compared with the textbook algorithm on counted words."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.training import learn
from tok.training.learn import learn_merges
from tok.training.pair_queue import NewPairs, PairQueue


class Words:
    """Replacement for PretokenCounts: large counts without as much text."""

    def __init__(self, counts):
        self.counts = counts

    def flattened(self):
        raw = np.frombuffer(b"".join(self.counts), dtype=np.uint8)
        lengths = np.array([len(word) for word in self.counts], dtype=np.int64)
        return raw, lengths, np.array([*self.counts.values()], dtype=np.int64)


def replace_pair(word, pair, new):
    merged, i = [], 0
    while i < len(word):
        here = tuple(word[i : i + 2]) == pair
        merged.append(new if here else word[i])
        i += 2 if here else 1
    return merged


def naive(counts, n_merges, byte_ids=bytes(range(256))):
    words = [([byte_ids[b] for b in word], n) for word, n in counts.items()]
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, n in words:
            for pair in pairwise(word):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = [(replace_pair(word, best, 256 + len(merges)), n) for word, n in words]
        merges.append(best)
    return merges


def random_words(seed):
    """Words with common stems and equal counts: ties, chains of merges, overlaps."""
    rng = random.Random(seed)
    letters = rng.choice([b"ab", b"abc", b"abcdefgh", bytes(range(97, 123))])
    stems = [bytes(rng.choices(letters, k=rng.randrange(1, 7))) for _ in range(30)]
    words = [b"".join(rng.choices(stems, k=rng.randrange(1, 4))) for _ in range(40)]
    return {word: rng.choice([1, 1, 2, 5, rng.randrange(1, 1000)]) for word in words}


@pytest.mark.parametrize("max_pairs", [1, 3, 1 << 10])
@pytest.mark.parametrize("max_occurrences", [1, 1 << 15])
def test_merges_equal_the_textbooks_for_any_limits_of_a_step(
    monkeypatch, max_pairs, max_occurrences
):
    monkeypatch.setattr(learn, "MAX_ACTIVE_PAIRS", max_pairs)
    monkeypatch.setattr(learn, "MAX_ACTIVE_OCCURRENCES", max_occurrences)
    for seed in range(20):
        counts = random_words(seed)
        rng = random.Random(seed)
        byte_ids = bytes(rng.sample(range(256), 256))
        n_merges = rng.randrange(1, 200)
        expected = naive(counts, n_merges, byte_ids)
        assert learn_merges(Words(counts), n_merges, byte_ids) == expected, f"seed {seed}"


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=9).map(str.encode) | st.binary(min_size=1, max_size=6),
        st.sampled_from([1, 2, 3, 40]),
        max_size=25,
    ),
    st.integers(1, 60),
)
def test_merges_equal_the_textbooks_for_any_words(counts, n_merges):
    assert learn_merges(Words(counts), n_merges) == naive(counts, n_merges)


def test_several_merges_are_made_per_step(monkeypatch):
    monkeypatch.setattr(learn, "MAX_ACTIVE_PAIRS", 10)
    steps = []
    counts = {bytes([a, b]): 1000 - a for a, b in zip(range(97, 117), range(117, 137))}
    learn_merges(Words(counts), 20, on_merge=steps.append)
    assert len(steps) <= 4 and steps[-1] == 20


@pytest.mark.parametrize(
    ("counts", "merges"),
    [
        # Merging (a, b) removes two of the three occurrences of (b, c).
        ({b"abc": 2, b"ab": 2, b"bc": 1, b"de": 2}, [(97, 98), (100, 101), (256, 99), (98, 99)]),
        # The new pair (b, 256) has the same count as (c, d), and smaller ids.
        ({b"bxy": 5, b"cd": 5}, [(98, 120), (99, 100), (256, 121)]),
        ({b"bxy": 5, b"xy": 1, b"cd": 5}, [(120, 121), (98, 256), (99, 100)]),
        # The new pair (256, c) has the same count as (d, e), and larger ids.
        ({b"abc": 5, b"ab": 1, b"de": 5}, [(97, 98), (100, 101), (256, 99)]),
        # The new pair (256, 256) comes from no overlap of two pairs, and ranks before (c, d).
        ({b"aaaa": 10, b"cd": 5}, [(97, 97), (256, 256), (99, 100)]),
        ({b"aaaaa": 1}, [(97, 97), (256, 97), (256, 257)]),
        ({b"a": 9}, []),
        ({}, []),
    ],
)
def test_a_merge_that_changes_the_next_one_ends_its_step(counts, merges):
    assert naive(counts, 9) == merges
    assert learn_merges(Words(counts), 9) == merges


def find_all(counts):
    """The row, and the occurrences of all its pairs."""
    row = learn.TokenRow(*Words(counts).flattened(), bytes(range(256)), 9)
    queue = PairQueue(row.all_pairs())
    for _ in range(9):  # the floor falls each time
        queue.refill(1 << 10, 1 << 20)
    ids = queue.first.values[queue.active_A], queue.second.values[queue.active_A]
    return row, row.find(*ids, *queue.occurrences())


def selected_pairs(counts):
    row, found = find_all(counts)
    order, priorities = found.merge_order()
    selected = learn.select_merges(priorities, row.overlaps(found, order))
    return [priorities[i] for i in selected]


def test_a_pair_that_overlaps_itself_is_the_last_of_its_step():
    """In "aaaa" the merge of (a, a) makes a new pair twice that shares no id with another."""
    assert selected_pairs({b"aaaa": 1, b"cd": 2, b"ef": 4}) == [(-4, 101, 102), (-3, 97, 97)]


def test_pairs_that_never_overlap_are_merged_in_one_step_even_if_they_share_ids():
    assert selected_pairs({b"ab": 5, b"bc": 4, b"db": 3}) == [
        (-5, 97, 98),
        (-4, 98, 99),
        (-3, 100, 98),
    ]


def test_a_pair_that_overlaps_an_earlier_one_waits_and_so_do_pairs_it_may_rank_behind():
    # The count of (b, c) falls from 6 to 2; the new pair (ab, c) has a count of 4.
    counts = {b"abc": 4, b"ab": 3, b"bc": 2, b"xy": 5, b"vw": 4, b"tu": 3}
    assert selected_pairs(counts) == [(-7, 97, 98), (-5, 120, 121)]


def test_a_pair_that_overlaps_only_a_waiting_pair_is_merged():
    # (b, c) overlaps (a, b) and waits with a count of 7; (c, d) overlaps (b, c) only.
    counts = {b"abc": 2, b"ab": 8, b"bc": 6, b"bcd": 1, b"cd": 7}
    assert selected_pairs(counts) == [(-10, 97, 98), (-8, 99, 100)]


def test_overlaps_are_found_with_their_counts():
    row, found = find_all({b"abab": 3, b"xab": 4, b"aaa": 5})
    order, priorities = found.merge_order()
    names = [bytes(priority[1:]).decode() for priority in priorities]
    counts = {}
    for overlap in row.overlaps(found, order):
        key = names[overlap.earlier], names[overlap.later]
        counts.setdefault(key, []).append(overlap.shared)
    # "abab" has ab, ba, ab: ab and ba overlap on both sides; "aaa" has aa twice.
    assert names == ["aa", "ab", "xa", "ba"]
    assert counts == {("ab", "ba"): [3, 3], ("ab", "xa"): [4], ("aa", "aa"): [5]}


def test_huge_counts_do_not_overflow():
    counts = {b"ab": 1 << 60, b"bc": (1 << 60) + 1, b"abc": 1}
    assert learn_merges(Words(counts), 3) == naive(counts, 3) == [(98, 99), (97, 98), (97, 256)]


def test_asking_for_more_merges_than_possible_takes_no_memory():
    assert learn_merges(Words({b"abc": 1}), 1 << 50) == [(97, 98), (256, 99)]


def new_pairs(*pairs):
    """NewPairs of (count, first, second, start cells)."""
    counts, firsts, seconds, cells = zip(*pairs)
    begins = np.cumsum([0, *map(len, cells)])[:-1]
    starts = np.concatenate(cells)
    return NewPairs(*map(np.array, (firsts, seconds, counts)), begins, starts, starts + 1000)


def activate(queue, max_pairs=1, max_occurrences=1):
    """Refill the queue; return the priorities of the active pairs and their start cells."""
    queue.refill(max_pairs, max_occurrences)
    active = queue.active_A
    columns = (
        -queue.count.values[active],
        queue.first.values[active],
        queue.second.values[active],
    )
    starts, counts, n_occurrences = queue.occurrences()
    assert np.array_equal(counts, starts + 1000)
    ends = np.cumsum(n_occurrences)
    cells = [starts[end - n : end].tolist() for end, n in zip(ends, n_occurrences)]
    return [*zip(*(column.tolist() for column in columns))], cells


def update(queue, counts, keep=()):
    """Set the counts of the active pairs; only the start cells in `keep` remain."""
    starts, pretoken_counts, n_occurrences = queue.occurrences()
    kept = np.isin(starts, keep)
    pair = np.repeat(np.arange(len(n_occurrences)), n_occurrences)[kept]
    n_occurrences = np.bincount(pair, minlength=len(n_occurrences))
    queue.update(np.array(counts), starts[kept], pretoken_counts[kept], n_occurrences)


def test_queue_returns_the_best_first_and_a_bound_of_the_rest():
    queue = PairQueue(new_pairs((3, 1, 2, [10]), (100, 5, 6, [11, 12]), (3, 1, 1, [13])))
    queue.add(new_pairs((7, 8, 9, [14, 15, 16])))
    assert queue.inactive_bound() <= (-100, 5, 6)
    found = []
    while True:
        priorities, cells = activate(queue)
        if not priorities:
            break
        assert len(priorities) == 1 and priorities[0] < queue.inactive_bound()
        found += [*zip(priorities, cells)]
        update(queue, [0])
    assert found == [
        ((-100, 5, 6), [11, 12]),
        ((-7, 8, 9), [14, 15, 16]),
        ((-3, 1, 1), [13]),
        ((-3, 1, 2), [10]),
    ]


def test_queue_respects_both_limits():
    queue = PairQueue(new_pairs(*[(50, 1, k, [k, k]) for k in range(9)]))
    assert len(activate(queue, 3, 1000)[0]) == 3
    assert len(activate(queue, 9, 9)[0]) == 4  # one more pair: eight occurrences


def test_queue_has_at_most_max_pairs_active():
    queue = PairQueue(new_pairs((9, 1, 1, [1])))
    activate(queue)
    queue.add(new_pairs(*[(5 + k, 2, k, [k]) for k in range(6)]))
    assert [priority[0] for priority in activate(queue, 2, 99)[0]] == [-10, -9]
    assert queue.inactive_bound() == (-9, 2, 4)


def test_queue_sorts_pairs_again_when_their_counts_change():
    queue = PairQueue(
        new_pairs((50, 1, 1, [1, 2]), (49, 1, 2, [3]), (40, 1, 3, [4]), (9, 1, 4, [5]))
    )
    assert [priority[2] for priority in activate(queue, 2, 99)[0]] == [1, 2]
    update(queue, [45, 30], keep=[2, 3])
    assert activate(queue, 1, 99) == ([(-45, 1, 1)], [[2]])  # before the rest; (1, 2) is late
    assert queue.inactive_bound() == (-40, 1, 3)
    update(queue, [0])
    queue.add(new_pairs((41, 2, 1, [6]), (39, 2, 2, [7])))  # one comes before the rest, one is late
    assert activate(queue, 1, 99)[0] == [(-41, 2, 1)]
    update(queue, [0])
    assert activate(queue, 2, 99)[0] == [(-40, 1, 3), (-39, 2, 2)]
    update(queue, [0, 0])
    assert activate(queue, 9, 99)[0] == [(-30, 1, 2)]
    update(queue, [8])  # below the floor
    assert activate(queue, 9, 99)[0] == [(-9, 1, 4), (-8, 1, 2)]


@pytest.mark.parametrize("seed", range(20))
def test_queue_against_a_sorted_list(seed):
    """Pairs are added, counted again and merged: the active ones are always the best."""
    rng = random.Random(seed)
    queue, alive = PairQueue(new_pairs((1, 0, 0, [0]))), {(0, 0): 1}
    for step in range(1, 60):
        new = [((step, k), rng.choice([1, 2, 3, 50, 400])) for k in range(rng.randrange(6))]
        if new:
            queue.add(new_pairs(*[(count, *ids, [step]) for ids, count in new]))
            alive.update(new)
        max_pairs = rng.randrange(1, 8)
        priorities, _ = activate(queue, max_pairs, 99)
        assert len(priorities) <= max_pairs
        assert {
            ids: -minus for minus, *pair in priorities for ids in [tuple(pair)]
        }.items() <= alive.items()
        others = [(-alive[ids], *ids) for ids in alive if (-alive[ids], *ids) not in priorities]
        assert all(queue.inactive_bound() <= priority for priority in others)
        assert bool(priorities) == bool(alive)
        counts = [rng.choice([0, -first, rng.randint(0, -first)]) for first, *_ in priorities]
        for count, (_, *ids) in zip(counts, priorities):
            if count:
                alive[tuple(ids)] = count
            else:
                del alive[tuple(ids)]
        update(queue, counts, keep=range(99))
