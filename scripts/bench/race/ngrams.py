"""N-gram models with Kneser-Ney smoothing: a baseline without a neural network.

Interpolated Kneser-Ney (Kneser and Ney 1995; the interpolated form of Chen and Goodman 1998): each
count is lowered by a discount, and the freed probability goes to the distribution with one token
less of context. The highest order counts how often a sequence of n tokens occurs; lower orders
count how many different tokens precede it.
"""

import numpy as np


def ngram_bits(train: np.ndarray, text: np.ndarray, vocab_size: int, order: int) -> float:
    """Return the bits that an n-gram model counted on `train` needs for all tokens of `text`.

    The first order - 1 tokens of either text have a shorter context.

    >>> text = np.array([0, 1] * 50)
    >>> round(ngram_bits(text, text, vocab_size=4, order=1))  # about one bit per token
    101
    >>> ngram_bits(text, text, vocab_size=4, order=2) < 10
    True

    Args:
        train, text: token ids from 0 to vocab_size - 1; (vocab_size + 1) ** order below 2^63.
    """
    assert (vocab_size + 1) ** order < 2**63, "a sequence must fit in 64 bits"
    p_T = np.full(len(text), 1.0 / vocab_size)  # order 0: uniform
    for n in range(1, order + 1):
        p_T = _interpolate(p_T, train, text, vocab_size, n, highest=n == order)
    return float(-np.log2(p_T).sum())


def _sequences(ids: np.ndarray, vocab_size: int, n: int) -> np.ndarray:
    """Return the last n tokens at each position as one number in base vocab_size + 1.

    Positions before the first token hold the padding token vocab_size.

    >>> _sequences(np.array([1, 2]), vocab_size=9, n=2).tolist()  # base 10, 9 is the padding
    [91, 12]
    """
    padded = np.concatenate((np.full(n - 1, vocab_size), ids)).astype(np.int64)
    code = np.zeros(len(ids), np.int64)
    for back in range(n):
        code = code * (vocab_size + 1) + padded[back : back + len(ids)]
    return code


def _interpolate(
    lower_T: np.ndarray, train: np.ndarray, text: np.ndarray, vocab_size: int, n: int, highest: bool
) -> np.ndarray:
    """Return the probability of each token of the text given n - 1 tokens.

    Args:
        lower_T: the probabilities given n - 2 tokens.
        highest: count occurrences; lower orders count the different preceding tokens.
    """
    base = vocab_size + 1
    if highest:
        grams, counts = np.unique(_sequences(train, vocab_size, n), return_counts=True)
    else:  # the number of different tokens before each sequence
        longer = np.unique(_sequences(train, vocab_size, n + 1))
        grams, counts = np.unique(longer % base**n, return_counts=True)
    # How many sequences occur once and twice: they estimate the discount (Ney, Essen and Kneser
    # 1994). `once` is at least 1, so that unseen sequences have a probability above 0.
    once, twice = max((counts == 1).sum(), 1), (counts == 2).sum()
    discount = once / (once + 2 * twice)
    contexts, first = np.unique(grams // base, return_index=True)
    totals = np.add.reduceat(counts, first)
    n_followers = np.diff(np.append(first, len(grams)))  # different tokens after each context
    codes = _sequences(text, vocab_size, n)
    count_T = _look_up(grams, counts, codes)
    total_T = _look_up(contexts, totals, codes // base)
    freed_T = discount * _look_up(contexts, n_followers, codes // base)
    seen_T = np.maximum(count_T - discount, 0.0) + freed_T * lower_T
    return np.where(total_T > 0, seen_T / np.maximum(total_T, 1), lower_T)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, or 0 if it is not among the sorted `keys`.

    >>> _look_up(np.array([2, 5]), np.array([20, 50]), np.array([5, 4, 9])).tolist()
    [50, 0, 0]
    """
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)
