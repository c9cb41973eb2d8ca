"""Student's t: how far a mean of few measurements may lie from the truth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95


def central_share(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t.

    The finite sums for a whole number of degrees of freedom: Abramowitz and Stegun, Handbook of
    Mathematical Functions, 26.7.3 and 26.7.4.

    >>> round(central_share(1.0, 1), 12), round(central_share(2.0, 2), 6)
    (0.5, 0.816497)
    """
    assert freedom >= 1
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):  # powers of the cosine: 1, 3, ... or 0, 2, ...
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def quantile(freedom: int, share: float = CONFIDENCE) -> float:
    """The t between whose two signs the given share lies; found by halving.

    >>> [round(quantile(n), 3) for n in (1, 2, 10)]
    [12.706, 4.303, 2.228]
    """
    low, high = 0.0, 1.0
    while central_share(high, freedom) < share:
        high *= 2
    for _ in range(60):  # halvings: to the last bits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if central_share(middle, freedom) < share else (low, middle)
    return high


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; NaN for one value, and where one is not finite.

    >>> deviation([1.0, 2.0, 3.0]), deviation([1.0])
    (1.0, nan)
    """
    whole = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if whole else math.nan


def half_width(values: Sequence[float], share: float = CONFIDENCE) -> float:
    """Half the width of the interval around the mean that holds the true one; NaN as deviation has.

    Takes the values for independent draws from one normal distribution.

    >>> round(half_width([1.0, 2.0, 3.0]), 4)
    2.4841
    """
    error = deviation(values) / math.sqrt(len(values))
    return math.nan if math.isnan(error) else quantile(len(values) - 1, share) * error
