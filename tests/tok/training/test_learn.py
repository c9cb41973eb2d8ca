"""Merging many places and several pairs at a time, against the textbook on counted words."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.training import learn
from tok.training.learn import learn_merges
from tok.training.pair_queue import PairGroup, PairQueue


class Words:
    """Stands in for PretokenCounts: counts of any size without as much text."""

    def __init__(self, counts):
        self.counts = counts

    def rows(self):
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
    """Words of common stems, many of the same count: ties, chains of merges, overlaps."""
    draw = random.Random(seed)
    letters = draw.choice([b"ab", b"abc", b"abcdefgh", bytes(range(97, 123))])
    stems = [bytes(draw.choices(letters, k=draw.randrange(1, 7))) for _ in range(30)]
    words = [b"".join(draw.choices(stems, k=draw.randrange(1, 4))) for _ in range(40)]
    return {word: draw.choice([1, 1, 2, 5, draw.randrange(1, 1000)]) for word in words}


@pytest.mark.parametrize("most_pairs", [1, 3, 1 << 10])
@pytest.mark.parametrize("most_places", [1, 1 << 15])
def test_the_textbooks_merges_however_many_are_made_at_a_time(monkeypatch, most_pairs, most_places):
    monkeypatch.setattr(learn, "MAX_ACTIVE_PAIRS", most_pairs)
    monkeypatch.setattr(learn, "MAX_ACTIVE_OCCURRENCES", most_places)
    for seed in range(20):
        counts = random_words(seed)
        draw = random.Random(seed)
        byte_ids = bytes(draw.sample(range(256), 256))
        n_merges = draw.randrange(1, 200)
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
def test_the_textbooks_merges_of_any_words(counts, n_merges):
    assert learn_merges(Words(counts), n_merges) == naive(counts, n_merges)


def test_several_merges_are_made_at_a_time(monkeypatch):
    monkeypatch.setattr(learn, "MAX_ACTIVE_PAIRS", 10)
    steps = []
    counts = {bytes([a, b]): 1000 - a for a, b in zip(range(97, 117), range(117, 137))}
    learn_merges(Words(counts), 20, on_merge=steps.append)
    assert len(steps) <= 4 and steps[-1] == 20


@pytest.mark.parametrize(
    ("counts", "merges"),
    [
        # After (a, b) the pair (b, c) has lost two of its three places.
        ({b"abc": 2, b"ab": 2, b"bc": 1, b"de": 2}, [(97, 98), (100, 101), (256, 99), (98, 99)]),
        # The new pair (b, 256) has the count of (c, d), and smaller ids.
        ({b"bxy": 5, b"cd": 5}, [(98, 120), (99, 100), (256, 121)]),
        ({b"bxy": 5, b"xy": 1, b"cd": 5}, [(120, 121), (98, 256), (99, 100)]),
        # The new pair (256, c) has the count of (d, e), and larger ids.
        ({b"abc": 5, b"ab": 1, b"de": 5}, [(97, 98), (100, 101), (256, 99)]),
        # The new pair (256, 256), which no pair announces, is more frequent than (c, d).
        ({b"aaaa": 10, b"cd": 5}, [(97, 97), (256, 256), (99, 100)]),
        ({b"aaaaa": 1}, [(97, 97), (256, 97), (256, 257)]),
        ({b"a": 9}, []),
        ({}, []),
    ],
)
def test_a_merge_that_would_change_the_next_one_comes_alone(counts, merges):
    assert naive(counts, 9) == merges
    assert learn_merges(Words(counts), 9) == merges


def find_all(counts):
    """The corpus, and the places of all its pairs."""
    corpus = learn.TokenRow(*Words(counts).rows(), bytes(range(256)), 9)
    queue = PairQueue(corpus.all_pairs())
    for _ in range(9):  # each time with a lower floor
        queue.refill(1 << 10, 1 << 20)
    ids = queue.first.values[queue.active_K], queue.second.values[queue.active_K]
    return corpus, corpus.find(*ids, *queue.places())


def chosen_pairs(counts):
    corpus, places = find_all(counts)
    order, ranks = places.order()
    return [ranks[k] for k in learn.next_merges(ranks, corpus.overlaps(places, order))]


def test_a_pair_that_meets_itself_is_the_last_of_its_step():
    """In "aaaa" the merge of (a, a) makes a new pair twice that shares no id with another."""
    assert chosen_pairs({b"aaaa": 1, b"cd": 2, b"ef": 4}) == [(-4, 101, 102), (-3, 97, 97)]


def test_pairs_that_meet_nowhere_are_merged_together_whatever_ids_they_share():
    assert chosen_pairs({b"ab": 5, b"bc": 4, b"db": 3}) == [
        (-5, 97, 98),
        (-4, 98, 99),
        (-3, 100, 98),
    ]


def test_a_pair_that_meets_a_better_one_waits_and_so_do_those_it_may_come_after():
    # (b, c) goes from 6 to 2, and the new pair (ab, c) comes with 4.
    counts = {b"abc": 4, b"ab": 3, b"bc": 2, b"xy": 5, b"vw": 4, b"tu": 3}
    assert chosen_pairs(counts) == [(-7, 97, 98), (-5, 120, 121)]


def test_a_pair_that_meets_only_one_that_waits_is_merged():
    # (b, c) meets (a, b) and waits with a count of 7 left; (c, d) meets (b, c) alone.
    counts = {b"abc": 2, b"ab": 8, b"bc": 6, b"bcd": 1, b"cd": 7}
    assert chosen_pairs(counts) == [(-10, 97, 98), (-8, 99, 100)]


def test_meetings_are_found_with_their_weight():
    corpus, places = find_all({b"abab": 3, b"xab": 4, b"aaa": 5})
    order, ranks = places.order()
    names = [bytes(rank[1:]).decode() for rank in ranks]
    met = {(names[m.earlier], names[m.later]): [] for m in corpus.overlaps(places, order)}
    for overlap in corpus.overlaps(places, order):
        met[names[overlap.earlier], names[overlap.later]].append(overlap.weight)
    # "abab" has ab, ba, ab: ab and ba meet on either side; "aaa" has aa twice.
    assert names == ["aa", "ab", "xa", "ba"]
    assert met == {("ab", "ba"): [3, 3], ("ab", "xa"): [4], ("aa", "aa"): [5]}


def test_huge_counts_do_not_overflow():
    counts = {b"ab": 1 << 60, b"bc": (1 << 60) + 1, b"abc": 1}
    assert learn_merges(Words(counts), 3) == naive(counts, 3) == [(98, 99), (97, 98), (97, 256)]


def test_more_merges_than_any_corpus_gives_take_no_memory():
    assert learn_merges(Words({b"abc": 1}), 1 << 50) == [(97, 98), (256, 99)]


def group(*pairs):
    """PairGroup of (count, first, second, places)."""
    counts, firsts, seconds, places = zip(*pairs)
    begins = np.cumsum([0, *map(len, places)])[:-1]
    starts = np.concatenate(places)
    return PairGroup(*map(np.array, (firsts, seconds, counts)), begins, starts, starts + 1000)


def look(queue, most=1, most_places=1):
    """The ranks of the pairs that the queue makes active, and their places."""
    queue.refill(most, most_places)
    numbers = queue.active_K
    columns = (
        -queue.count.values[numbers],
        queue.first.values[numbers],
        queue.second.values[numbers],
    )
    starts, weights, n_places = queue.places()
    assert np.array_equal(weights, starts + 1000)
    ends = np.cumsum(n_places)
    places = [starts[end - n : end].tolist() for end, n in zip(ends, n_places)]
    return [*zip(*(column.tolist() for column in columns))], places


def settle(queue, counts, keep=()):
    """Gives active pairs new counts; of their places those in `keep` stay."""
    starts, weights, n_places = queue.places()
    stays = np.isin(starts, keep)
    pair = np.repeat(np.arange(len(n_places)), n_places)[stays]
    n_places = np.bincount(pair, minlength=len(n_places))
    queue.settle(np.array(counts), starts[stays], weights[stays], n_places)


def test_queue_gives_the_best_first_and_knows_what_is_left():
    queue = PairQueue(group((3, 1, 2, [10]), (100, 5, 6, [11, 12]), (3, 1, 1, [13])))
    queue.add(group((7, 8, 9, [14, 15, 16])))
    assert queue.inactive_bound() <= (-100, 5, 6)
    found = []
    while True:
        ranks, places = look(queue)
        if not ranks:
            break
        assert len(ranks) == 1 and ranks[0] < queue.inactive_bound()
        found += [*zip(ranks, places)]
        settle(queue, [0])
    assert found == [
        ((-100, 5, 6), [11, 12]),
        ((-7, 8, 9), [14, 15, 16]),
        ((-3, 1, 1), [13]),
        ((-3, 1, 2), [10]),
    ]


def test_queue_takes_no_more_than_asked():
    queue = PairQueue(group(*[(50, 1, k, [k, k]) for k in range(9)]))
    assert len(look(queue, 3, 1000)[0]) == 3
    assert len(look(queue, 9, 9)[0]) == 4  # one more, which makes eight places


def test_queue_has_no_more_active_pairs_than_asked_for():
    queue = PairQueue(group((9, 1, 1, [1])))
    look(queue)
    queue.add(group(*[(5 + k, 2, k, [k]) for k in range(6)]))
    assert [rank[0] for rank in look(queue, 2, 99)[0]] == [-10, -9]
    assert queue.inactive_bound() == (-9, 2, 4)


def test_queue_sorts_pairs_in_again_when_their_counts_have_changed():
    queue = PairQueue(group((50, 1, 1, [1, 2]), (49, 1, 2, [3]), (40, 1, 3, [4]), (9, 1, 4, [5])))
    assert [rank[2] for rank in look(queue, 2, 99)[0]] == [1, 2]
    settle(queue, [45, 30], keep=[2, 3])
    assert look(queue, 1, 99) == ([(-45, 1, 1)], [[2]])  # before the rest; (1, 2) is late
    assert queue.inactive_bound() == (-40, 1, 3)
    settle(queue, [0])
    queue.add(group((41, 2, 1, [6]), (39, 2, 2, [7])))  # one comes before the rest, one is late
    assert look(queue, 1, 99)[0] == [(-41, 2, 1)]
    settle(queue, [0])
    assert look(queue, 2, 99)[0] == [(-40, 1, 3), (-39, 2, 2)]
    settle(queue, [0, 0])
    assert look(queue, 9, 99)[0] == [(-30, 1, 2)]
    settle(queue, [8])  # below the floor
    assert look(queue, 9, 99)[0] == [(-9, 1, 4), (-8, 1, 2)]


@pytest.mark.parametrize("seed", range(20))
def test_queue_against_a_sorted_list(seed):
    """Pairs come, are counted again and are merged: the active ones always are the best."""
    draw = random.Random(seed)
    queue, alive = PairQueue(group((1, 0, 0, [0]))), {(0, 0): 1}
    for step in range(1, 60):
        new = [((step, k), draw.choice([1, 2, 3, 50, 400])) for k in range(draw.randrange(6))]
        if new:
            queue.add(group(*[(count, *ids, [step]) for ids, count in new]))
            alive.update(new)
        most = draw.randrange(1, 8)
        ranks, _ = look(queue, most, 99)
        assert len(ranks) <= most
        assert {
            ids: -minus for minus, *pair in ranks for ids in [tuple(pair)]
        }.items() <= alive.items()
        others = [(-alive[ids], *ids) for ids in alive if (-alive[ids], *ids) not in ranks]
        assert all(queue.inactive_bound() <= rank for rank in others)
        assert bool(ranks) == bool(alive)
        counts = [draw.choice([0, -rank[0], draw.randint(0, -rank[0])]) for rank in ranks]
        for count, (_, *ids) in zip(counts, ranks):
            if count:
                alive[tuple(ids)] = count
            else:
                del alive[tuple(ids)]
        settle(queue, counts, keep=range(99))
