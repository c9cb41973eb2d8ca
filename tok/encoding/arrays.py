"""Array steps that encoding and training share."""

from __future__ import annotations

import numpy as np

# An odd number whose bits show no pattern: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def concat_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (counts[0] of them), then those from starts[1] on, and so on.

    >>> concat_ranges(np.array([5, 20]), np.array([3, 2])).tolist()
    [5, 6, 7, 20, 21]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
