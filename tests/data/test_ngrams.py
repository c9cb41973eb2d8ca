import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from data.ngrams import ngram_bits


def naive_kneser_ney(train: list[int], text: list[int], vocab_size: int, order: int) -> float:
    """Return the bits of the n-gram model, computed token by token with dictionaries."""
    pad = [vocab_size] * (order - 1)

    def grams(n: int) -> list[tuple[int, ...]]:
        row = pad[: n - 1] + train
        return [tuple(row[i : i + n]) for i in range(len(train))]

    levels = []
    for n in range(1, order + 1):
        if n == order:
            counts = Counter(grams(n))
        else:
            counts = Counter(gram[1:] for gram in set(grams(n + 1)))
        ones, twos = (sum(c == k for c in counts.values()) for k in (1, 2))
        total, kinds = defaultdict(int), defaultdict(int)
        for gram, count in counts.items():
            total[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        levels.append((counts, total, kinds, max(ones, 1) / (max(ones, 1) + 2 * twos)))

    bits, row = 0.0, pad + text
    for t in range(len(text)):
        p = 1 / vocab_size
        for n, (counts, total, kinds, discount) in enumerate(levels, start=1):
            gram = tuple(row[t + order - n : t + order])
            if total[gram[:-1]]:
                p = max(counts[gram] - discount, 0) / total[gram[:-1]] + (
                    discount * kinds[gram[:-1]] / total[gram[:-1]] * p
                )
        bits -= math.log2(p)
    return bits


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngram_bits_equal_the_naive_implementation(order):
    rng = np.random.default_rng(1)
    train, text = (rng.integers(0, 4, 60) ** 2 // 2 for _ in range(2))  # ids 1 and 3 don't occur
    wanted = naive_kneser_ney(train.tolist(), text.tolist(), 5, order)
    assert ngram_bits(train, text, 5, [order]) == {order: pytest.approx(wanted)}
