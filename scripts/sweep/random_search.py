"""Random search: ranges of settings, and combinations sampled from them."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIGNIFICANT_DIGITS = 4  # of a sampled number, which is a part of the folder's name
MAX_DRAWS_EACH = 100  # samples per wanted combination; then the ranges seem to have no new ones


@dataclass(frozen=True)
class Range:
    """The distribution of a setting: uniform from low to high, or one of several values."""

    low: float = 0
    high: float = 0
    log: bool = False  # uniform in the logarithm
    whole: bool = False  # whole numbers only
    choices: tuple[Any, ...] = ()

    def sample(self, rng: random.Random) -> Any:
        """Return one value. Every call takes exactly one number from `rng`.

        >>> Range(1e-4, 1e-2, log=True).sample(random.Random(1))
        0.0001857
        """
        share = rng.random()
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        # Whole numbers are rounded below: so low and high are as probable as those between them.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        value = math.floor(value + 0.5) if self.whole else rounded
        return min(max(value, self.low), self.high)


def sample_combinations(
    ranges: Mapping[str, Range], n_combinations: int, seed: int
) -> list[dict[str, Any]]:
    """Return different combinations (setting -> value): `n_combinations`, or all there are.

    Each setting has its own random stream, so additional ranges or combinations change no values,
    as long as no combination is sampled twice.

    >>> two = {"a": Range(0, 1), "b": Range(1, 9, whole=True)}
    >>> sample_combinations(two, 3, 1)[:2] == sample_combinations(two, 2, 1)
    True
    """
    streams = {name: random.Random(f"{seed} {name}") for name in ranges}
    found: list[dict[str, Any]] = []
    for _ in range(n_combinations * MAX_DRAWS_EACH):
        combination = {name: ranges[name].sample(streams[name]) for name in ranges}
        if combination not in found:
            found.append(combination)
        if len(found) == n_combinations:
            break
    return found
