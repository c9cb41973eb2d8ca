"""Merging many places and several pairs at a time, against the textbook on counted words."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tok import learn
from tok.learn import learn_merges
from tok.pair_queue import PairGroup, PairQueue


class Words:
    """Stands in for PieceCounts: counts of any size without as much text."""

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


@pytest.mark.parametrize("most_pairs", [1, 3, 128])
@pytest.mark.parametrize("most_places", [1, 1 << 14])
def test_the_textbooks_merges_however_many_are_made_at_a_time(monkeypatch, most_pairs, most_places):
    monkeypatch.setattr(learn, "MOST_PAIRS", most_pairs)
    monkeypatch.setattr(learn, "MOST_PLACES", most_places)
    for seed in range(20):
        counts = random_words(seed)
        draw = random.Random(seed)
        byte_ids = bytes(draw.sample(range(256), 256))
        n_merges = draw.randrange(1, 200)
        expected = naive(counts, n_merges, byte_ids)
        assert learn_merges(Words(counts), n_merges, byte_ids) == expected, f"seed {seed}"


def test_several_merges_are_made_at_a_time(monkeypatch):
    monkeypatch.setattr(learn, "MOST_PAIRS", 10)
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


def test_a_pair_that_meets_itself_is_the_last_of_its_step():
    """In "aaaa" the merge of (a, a) makes a new pair twice that shares no id with another."""
    corpus = learn.Corpus(*Words({b"aaaa": 1, b"cd": 2, b"ef": 4}).rows(), bytes(range(256)), 9)
    pairs = corpus.all_pairs()
    places = corpus.recount([pairs.pair(g) for g in range(len(pairs.count_G))])
    best = sorted(range(3), key=lambda k: places.pairs[k].rank)
    chosen = [places.pairs[k].rank for k in learn.next_merges(places, best, (0, 0, 0))]
    assert chosen == [(-4, 101, 102), (-3, 97, 97)]


def test_huge_counts_do_not_overflow():
    counts = {b"ab": 1 << 60, b"bc": (1 << 60) + 1, b"abc": 1}
    assert learn_merges(Words(counts), 3) == naive(counts, 3) == [(98, 99), (97, 98), (97, 256)]


def test_more_merges_than_any_corpus_gives_take_no_memory():
    assert learn_merges(Words({b"abc": 1}), 1 << 50) == [(97, 98), (256, 99)]


def group(*pairs):
    """PairGroup of (count, first, second, places)."""
    counts, firsts, seconds, places = zip(*pairs)
    begins = np.cumsum([0, *map(len, places)])[:-1]
    return PairGroup(*map(np.array, (firsts, seconds, counts)), begins, np.concatenate(places))


def test_queue_gives_the_best_first_and_knows_what_is_left():
    queue = PairQueue(group((3, 1, 2, [10]), (100, 5, 6, [11, 12]), (3, 1, 1, [13])))
    queue.put_group(group((7, 8, 9, [14, 15, 16])))
    assert queue.rest_rank() <= (-100, 5, 6)
    ranks, places = [], []
    while taken := queue.take(1, 1):
        ranks.append(taken[0].rank)
        places.append(taken[0].start_N.tolist())
        assert taken[0].rank < queue.rest_rank()
    assert ranks == [(-100, 5, 6), (-7, 8, 9), (-3, 1, 1), (-3, 1, 2)]
    assert places == [[11, 12], [14, 15, 16], [13], [10]]


def test_queue_takes_no_more_than_asked_and_takes_back():
    queue = PairQueue(group(*[(50, 1, k, [k, k]) for k in range(9)]))
    assert len(queue.take(3, 1000)) == 3
    assert len(queue.take(9, 5)) == 2
    (pair,) = queue.take(1, 0)
    queue.put_back(pair._replace(minus_count=0))
    queue.put_back(queue.take(1, 9)[0]._replace(minus_count=-1))
    assert [p.rank for p in queue.take(9, 99)] == [(-50, 1, 7), (-50, 1, 8)]
    assert queue.rest_rank() <= (-1, 1, 6)
    assert [p.rank for p in queue.take(9, 99)] == [(-1, 1, 6)]
    assert queue.take(9, 99) == []
