"""Statistics of small samples: confidence intervals, the seeds that a difference needs, worth."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8  # of comparisons, the share that finds a difference with the number of seeds it needs
MAX_SEEDS = 100
MIN_RUNGS = 3  # of a ladder: two do not determine p
POWERS = np.arange(0.1, 3.01, 0.05)  # p of `worth`
Ladder = Mapping[int, Mapping[str, float]]  # number of steps -> seed -> loss of a base run
Worth = dict[str, float]  # see `worth`


def t_quantile(freedom: int, share: float = CONFIDENCE) -> float:
    """Return the t of Student's t distribution for which the probability from -t to t is `share`.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to its cosine to the
    power freedom - 1, which is integrated by the trapezoidal rule.

    >>> [round(t_quantile(n), 3) for n in (1, 2, 10)]
    [12.706, 4.303, 2.228]
    """
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.cumsum((density[1:] + density[:-1]) / 2)
    return math.sqrt(freedom) * math.tan(np.interp(share, below / below[-1], angles[1:]))


def sample_std(values: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN for one value, or if a value is not finite.

    >>> sample_std([1.0, 2.0, 3.0]), sample_std([1.0])
    (1.0, nan)
    """
    whole = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if whole else math.nan


def confidence_half_width(values: Sequence[float], share: float = CONFIDENCE) -> float:
    """Return the half-width of the confidence interval of the mean; NaN as for `sample_std`.

    The values are assumed to be independent samples of one normal distribution.

    >>> round(confidence_half_width([1.0, 2.0, 3.0]), 4)
    2.4841
    """
    error = sample_std(values) / math.sqrt(len(values))
    return math.nan if math.isnan(error) else t_quantile(len(values) - 1, share) * error


def share_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95% confidence interval of a share, of which `count` of n were seen (Wilson 1927).

    It has the shares p with |count / n - p| <= z sqrt(p (1 - p) / n), so it is right at 0 and 1.

    >>> [round(bound, 4) for bound in (*share_interval(0, 10), *share_interval(5, 10))]
    [0.0, 0.2775, 0.2366, 0.7634]
    """
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (count + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(count * (n - count) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def seeds_needed(difference: float, spread: float) -> int:
    """Return the number of seeds with which 4 of 5 comparisons find a difference; or MAX_SEEDS.

    That is the smallest n with (t + u) s / sqrt(n) <= difference, where t and u are the quantiles
    of Student's t distribution with n - 1 degrees of freedom at 0.975 and 0.8.

    >>> seeds_needed(1.0, spread=0.5), seeds_needed(1.0, spread=1.0)
    (5, 10)

    Args:
        spread: s, the standard deviation of the difference between two runs of one seed.
    """
    for n in range(2, MAX_SEEDS):
        quantiles = t_quantile(n - 1) + t_quantile(n - 1, 2 * POWER - 1)
        if quantiles * spread <= difference * math.sqrt(n):
            return n
    return MAX_SEEDS


def usable_part(ladder: Ladder, change: Mapping[str, float]) -> tuple[list[int], list[str]]:
    """Return the rungs and seeds of a ladder from which the worth of a change is estimated.

    Each of the seeds has a run on each of the rungs. A rung that lacks seeds which the others have
    is left out if three remain, else those seeds are. Without a seed, both are empty.

    >>> ladder = {10: {"1": 3, "2": 3}, 20: {"1": 2, "2": 2}, 30: {"1": 1, "2": 1}, 40: {"1": 1}}
    >>> usable_part(ladder, {"1": 2, "2": 2, "3": 2})
    ([10, 20, 30], ['1', '2'])
    """
    own = {steps: ladder[steps].keys() & change.keys() for steps in sorted(ladder)}
    order = sorted(change, key=lambda seed: -sum(seed in seeds for seeds in own.values()))
    parts = [order[: n + 1] for n in range(len(order))]
    found = [([steps for steps in own if own[steps].issuperset(part)], part) for part in parts]
    found = [part for part in found if len(part[0]) >= MIN_RUNGS]
    return found[-1] if found else ([], [])


def worth(ladder: Ladder, change: Mapping[str, float], steps: int) -> Worth:
    """Return what a change is worth, and its 95% interval: `steps`, `low`, `high`, and `seeds`.

    These are the extra steps of the base recipe that give the same loss. An infinity stands for
    steps beyond the ladder, NaN for the bounds if there is one seed. `seeds` is the number of seeds
    in the `usable_part` of the ladder. Without any, or with a loss that is not finite, the result
    is empty.

    Between its rungs, each seed's ladder is a straight line over a power of the number of steps,
    S ** -p, with the p that suits the means best. The worth is where the mean difference between
    change and ladder is zero. The interval has all numbers of steps at which the 95% confidence
    interval of that difference, paired by seed, contains zero (Fieller 1954). So it has the noise
    of both.

    >>> ladder = {steps: {"1": 1 + 100 / steps} for steps in (100, 200, 400)}
    >>> worth(ladder, {"1": 1 + 100 / 300}, steps=200)
    {'steps': 100.0, 'low': nan, 'high': nan, 'seeds': 1}

    Args:
        ladder: number of steps, at least three -> seed -> loss of a base run.
        change: seed -> loss.
        steps: from which the extra steps are counted.
    """
    lengths, seeds = usable_part(ladder, change)
    losses = np.array([[ladder[length][seed] for length in lengths] for seed in seeds])
    own_loss = np.array([[change[seed]] for seed in seeds])
    if not seeds or not np.isfinite([*losses.flat, *own_loss.flat]).all():
        return {}
    rungs = np.array(lengths, dtype=float)
    fits = [np.polyfit(rungs**-p, losses.mean(0), 1, full=True)[1].sum() for p in POWERS]
    power = POWERS[np.argmin(fits)]
    tried = np.unique(np.geomspace(rungs.min(), rungs.max(), 10_000).round())
    lines = np.array([np.interp(-(tried**-power), -(rungs**-power), line) for line in losses])
    gaps = own_loss - lines  # below zero where the ladder's loss is higher
    mean, extra = gaps.mean(0), tried - steps
    nearest = int(np.abs(mean).argmin())
    found = -math.inf if mean[0] > 0 else math.inf if mean[-1] < 0 else float(extra[nearest])
    if len(seeds) == 1:
        return {"steps": found, "low": math.nan, "high": math.nan, "seeds": 1}
    noise = t_quantile(len(seeds) - 1) * gaps.std(0, ddof=1) / math.sqrt(len(seeds))
    inside = np.abs(mean) <= noise
    inside[nearest] = True
    low = -math.inf if inside[0] else float(extra[inside][0])
    high = math.inf if inside[-1] else float(extra[inside][-1])
    return {"steps": found, "low": low, "high": high, "seeds": len(seeds)}


def worth_with_note(ladder: Ladder, change: Mapping[str, float], steps: int) -> tuple[Worth, str]:
    """Return the `worth` of a change, and which rungs and seeds do not count, or why there is none.

    >>> ladder = {steps: {"1": 1 / steps} for steps in (10, 20, 40)}
    >>> worth_with_note(ladder, {"1": 1 / 20, "2": 1 / 20}, 10)[1]
    'left out, as runs of the ladder are missing: seed 2'
    """
    rungs, seeds = usable_part(ladder, change)
    if not seeds:
        return {}, "no worth: none of its seeds has three rungs of the ladder on the same data"
    words = [f"{length} steps" for length in sorted(ladder) if length not in rungs]
    words += [f"seed {seed}" for seed in change if seed not in seeds]
    note = f"left out, as runs of the ladder are missing: {', '.join(words)}" if words else ""
    return worth(ladder, change, steps), note
