"""Array operations shared by encoding and training."""

import numpy as np

# Multiplier for hashing: 2^64 divided by the golden ratio, made odd (Knuth, TAOCP 6.4).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def concat_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the concatenation of arange(starts[i], starts[i] + counts[i]) for all i, int64.

    >>> concat_ranges(np.array([5, 20]), np.array([3, 2])).tolist()
    [5, 6, 7, 20, 21]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
