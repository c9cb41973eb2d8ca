"""N-gram models with Kneser-Ney smoothing: a baseline without a neural network.

Interpolated Kneser-Ney (Kneser and Ney 1995; the interpolated form of Chen and Goodman 1998): each
count is lowered by a discount, and the freed probability goes to the distribution with one token
less of context. The highest order counts how often a sequence of n tokens occurs; lower orders
count how many different tokens precede it.
"""

from collections.abc import Collection

import numpy as np

BITS = 64  # of the number that holds a sequence


def ngram_bits(
    train: np.ndarray, text: np.ndarray, vocab_size: int, orders: Collection[int]
) -> dict[int, float]:
    """Return the bits that n-gram models counted on `train` need for all tokens of `text`.

    The first n - 1 tokens of either text have a shorter context. An order is left out if a sequence
    of that many tokens does not fit into 64 bits.

    >>> text = np.array([0, 1] * 50)
    >>> bits = ngram_bits(text, text, vocab_size=4, orders=(1, 2))
    >>> round(bits[1]), bits[2] < 10  # the first is about one bit per token
    (101, True)

    Args:
        train, text: token ids from 0 to vocab_size - 1.

    Returns:
        Order -> bits.
    """
    # Ids without gaps need fewer bits. One more id is for the positions before the first token.
    known, ids = np.unique(np.concatenate((train, text)), return_inverse=True)
    width = len(known).bit_length()
    train, text = (part.astype(np.uint64) for part in np.split(ids, [len(train)]))
    orders = [n for n in orders if n * width <= BITS]
    p_T, bits = np.full(len(text), 1.0 / vocab_size), {}  # order 0: uniform
    grams, counts = np.unique(train, return_counts=True)
    for n in range(1, max(orders, default=0) + 1):
        codes_T = _sequences(text, n, width)
        if n in orders:
            bits[n] = float(-np.log2(_interpolate(p_T, grams, counts, codes_T, width)).sum())
        if n < max(orders):
            grams, counts = np.unique(_sequences(train, n + 1, width), return_counts=True)
            # The number of different tokens before each sequence of n.
            ends = grams & np.uint64((1 << n * width) - 1)
            different = np.unique(ends, return_counts=True)
            p_T = _interpolate(p_T, *different, codes_T, width)
    return bits


def _sequences(ids: np.ndarray, n: int, width: int) -> np.ndarray:
    """Return the last n tokens at each position as one number of n * width bits.

    Positions before the first token hold a padding token, whose bits are all set.

    >>> [hex(number) for number in _sequences(np.array([1, 2], np.uint64), n=2, width=4)]
    ['0xf1', '0x12']
    """
    padding = np.full(n - 1, (1 << width) - 1, np.uint64)
    padded = np.concatenate((padding, ids))
    code = np.zeros(len(ids), np.uint64)
    for back in range(n):
        code = code << np.uint64(width) | padded[back : back + len(ids)]
    return code


def _interpolate(
    lower_T: np.ndarray, grams: np.ndarray, counts: np.ndarray, codes_T: np.ndarray, width: int
) -> np.ndarray:
    """Return the probability of each token of the text given n - 1 tokens.

    Args:
        lower_T: the probabilities given n - 2 tokens.
        grams, counts: the counted sequences of n tokens, in order, and their counts.
        codes_T: the sequence of n tokens at each position of the text.
    """
    # How many sequences occur once and twice: they estimate the discount (Ney, Essen and Kneser
    # 1994). `once` is at least 1, so that unseen sequences have a probability above 0.
    once, twice = max((counts == 1).sum(), 1), (counts == 2).sum()
    discount = once / (once + 2 * twice)
    contexts = grams >> np.uint64(width)
    first = np.flatnonzero(np.diff(contexts, prepend=~contexts[:1]))
    contexts, totals = contexts[first], np.add.reduceat(counts, first)
    n_followers = np.diff(np.append(first, len(grams)))  # different tokens after each context
    order_T = np.argsort(codes_T)  # searching in order is several times as fast
    lower_T, codes_T = lower_T[order_T], codes_T[order_T]
    (count_T,) = _look_up(grams, codes_T, counts)
    total_T, followers_T = _look_up(contexts, codes_T >> np.uint64(width), totals, n_followers)
    seen_T = np.maximum(count_T - discount, 0.0) + discount * followers_T * lower_T
    p_T = np.empty_like(lower_T)
    p_T[order_T] = np.where(total_T > 0, seen_T / np.maximum(total_T, 1), lower_T)
    return p_T


def _look_up(keys: np.ndarray, wanted: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Return the values of each wanted key, or 0 if it is not among the sorted `keys`.

    >>> found = _look_up(np.array([2, 5]), np.array([5, 4, 9]), np.array([20, 50]))
    >>> found[0].tolist()
    [50, 0, 0]
    """
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[index] == wanted
    return [np.where(known, one[index], 0) for one in values]
