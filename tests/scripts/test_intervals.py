"""scripts.intervals: planted differences, ladders and spreads are found as often as they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.intervals import (
    confidence_half_width,
    seeds_needed,
    t_quantile,
    usable_part,
    worth,
)
from scripts.sweep.ranking import Group, difference

REPETITIONS = 400
RUNGS = (600, 900, 1350, 2000, 3000)
BASE_STEPS = 1350


def curve(steps: float) -> float:
    """Return the loss of a planted ladder."""
    return 0.17 + 40 / steps**0.9


def by_seed(values: np.ndarray) -> dict[str, float]:
    return {str(seed): float(value) for seed, value in enumerate(values)}


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_planted_differences_are_in_their_interval_in_19_of_20_sweeps(n_seeds):
    """Each seed has an effect on both runs, which the pairs cancel."""
    rng, planted, inside = np.random.default_rng(1), -0.002, 0
    for _ in range(REPETITIONS):
        base = 0.2 + rng.normal(0, 0.01, n_seeds) + rng.normal(0, 0.001, n_seeds)
        other = base + planted + rng.normal(0, 0.001, n_seeds)
        gap = difference(*(Group("", {"val_bpb": by_seed(losses)}) for losses in (base, other)))
        assert gap is not None
        inside += abs(gap.mean - planted) <= gap.noise
    assert 0.93 <= inside / REPETITIONS <= 0.97


def test_the_number_of_seeds_finds_the_difference_in_4_of_5_sweeps():
    rng, spread = np.random.default_rng(2), 0.001

    def share_found(planted: float, n_seeds: int) -> float:
        gaps = rng.normal(planted, spread, (REPETITIONS, n_seeds)).tolist()
        return sum(np.mean(one) > confidence_half_width(one) for one in gaps) / REPETITIONS

    for planted in (0.0008, 0.001, 0.002):
        n = seeds_needed(planted, spread)
        assert share_found(planted, n) > 0.76 and share_found(planted, n - 1) < 0.84
    assert seeds_needed(1e-9, spread) == 100 and seeds_needed(1.0, spread) == 2


def ladder(rng: np.random.Generator, n_seeds: int, noise: float) -> dict[int, dict[str, float]]:
    return {
        steps: by_seed(curve(steps) + rng.normal(0, noise, n_seeds)) for steps in reversed(RUNGS)
    }


@pytest.mark.parametrize("extra", [-600, -100, 0, 37, 700, 1500])
def test_a_change_is_worth_the_planted_steps_without_noise(extra):
    rng = np.random.default_rng(3)
    change = by_seed(np.full(3, curve(BASE_STEPS + extra)))
    found = worth(ladder(rng, 3, 0.0), change, BASE_STEPS)
    assert found["steps"] == pytest.approx(extra, abs=0.01 * BASE_STEPS)
    assert found["low"] <= found["steps"] <= found["high"]


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_planted_worth_is_in_its_interval_in_19_of_20_sweeps(n_seeds):
    """The noise is that of the change and of the ladder."""
    rng, extra, inside, widths = np.random.default_rng(4), 400, 0, []
    for _ in range(REPETITIONS):
        change = by_seed(curve(BASE_STEPS + extra) + rng.normal(0, 0.0005, n_seeds))
        found = worth(ladder(rng, n_seeds, 0.0005), change, BASE_STEPS)
        inside += found["low"] <= extra <= found["high"]
        widths.append(found["high"] - found["low"])
    assert 0.93 <= inside / REPETITIONS <= 0.98
    assert np.median(widths) < 2000  # not trivially wide


def test_an_incomplete_rung_does_not_destroy_the_interval():
    """A longer rung was interrupted after its first seed."""
    rungs, change = ladder(np.random.default_rng(7), 3, 1e-4), by_seed(np.full(3, curve(1650)))
    whole = worth(rungs, change, BASE_STEPS)
    assert whole["seeds"] == 3
    assert worth(rungs | {5200: {"0": curve(5200)}}, change, BASE_STEPS) == whole
    del rungs[600]["1"], rungs[900]["2"]
    found = worth(rungs, change, BASE_STEPS)
    assert found["seeds"] == 3 and found["low"] <= 300 <= found["high"]
    assert usable_part(rungs, change)[0] == [1350, 2000, 3000]
    del rungs[3000]["0"]  # two seeds, three rungs
    assert usable_part(rungs, change) == ([900, 1350, 2000], ["0", "1"])
    five = {steps: dict.fromkeys("45678"[: 4 + (steps < 8)], 1.0) for steps in (1, 2, 4, 8)}
    assert usable_part(five, dict.fromkeys("45678", 1.0)) == ([1, 2, 4], [*"45678"])


def test_two_rungs_give_no_worth_and_three_a_right_one():
    rng, inside = np.random.default_rng(8), 0
    for _ in range(REPETITIONS):
        rungs = ladder(rng, 5, 0.0005)
        change = by_seed(curve(BASE_STEPS + 400) + rng.normal(0, 0.0005, 5))
        assert worth({steps: rungs[steps] for steps in (600, 3000)}, change, BASE_STEPS) == {}
        found = worth({steps: rungs[steps] for steps in (600, 1350, 3000)}, change, BASE_STEPS)
        inside += found["low"] <= 400 <= found["high"]
    assert inside / REPETITIONS >= 0.93


def test_seeds_that_were_selected_by_their_result_do_not_count():
    """The figures of docs/lab.md and docs/theory.md, from 40,000 simulated changes."""
    rng, n = np.random.default_rng(9), 40_000

    def half_width(gaps: np.ndarray) -> np.ndarray:
        spread = gaps.std(1, ddof=1) / math.sqrt(gaps.shape[1])
        return t_quantile(gaps.shape[1] - 1) * spread

    def share_found(effect: float) -> tuple[float, ...]:
        """Return how often the gate and five seeds find it, coverage, and size of the effect."""
        gaps = rng.normal(effect, 1, (n, 10))
        gate, five, new = gaps[:, :3], gaps[:, :5], gaps[:, 5:]
        passed = np.abs(gate.mean(1)) > half_width(gate)
        found = np.abs(five.mean(1)) > half_width(five)
        again, fresh = (np.abs(x.mean(1) - effect) <= half_width(x) for x in (five, new))
        positive = passed & found & (five.mean(1) > 0)
        size = five.mean(1)[positive].mean()
        return (passed & found).mean(), found.mean(), again[passed].mean(), fresh.mean(), size

    gate, five, *_ = share_found(1.75)
    assert gate == pytest.approx(0.37, abs=0.015) and five == pytest.approx(0.83, abs=0.01)
    *_, again, fresh, _ = share_found(0.0)
    assert again == pytest.approx(0.72, abs=0.02) and fresh == pytest.approx(0.95, abs=0.01)
    assert share_found(1.0)[-1] == pytest.approx(1.38, abs=0.03)


def test_a_worth_beyond_the_ladder_is_open():
    rungs = ladder(np.random.default_rng(5), 3, 1e-5)
    better = worth(rungs, by_seed(np.array([0.17, 0.1701, 0.1699])), BASE_STEPS)
    worse = worth(rungs, by_seed(np.array([0.40, 0.41, 0.42])), BASE_STEPS)
    found = {"steps": math.inf, "low": RUNGS[-1] - BASE_STEPS, "high": math.inf, "seeds": 3}
    assert better == found
    found = {"steps": -math.inf, "low": -math.inf, "high": RUNGS[0] - BASE_STEPS, "seeds": 3}
    assert worse == found


def test_no_worth_without_a_shared_seed_or_finite_losses():
    rungs = ladder(np.random.default_rng(6), 3, 0.0)
    assert worth(rungs, {"9": 0.2}, BASE_STEPS) == {}
    assert worth(rungs, {"0": math.nan, "1": 0.2}, BASE_STEPS) == {}
    assert worth({}, {"0": 0.2}, BASE_STEPS) == worth({600: rungs[600]}, {"0": 0.2}, 600) == {}
    one = worth(rungs, {"0": curve(2000), "9": 0.2}, BASE_STEPS)
    assert one["steps"] == pytest.approx(650, abs=5) and math.isnan(one["low"])
    assert one["seeds"] == 1


def test_quantiles_are_those_of_tables():
    """Abramowitz and Stegun, Handbook of Mathematical Functions, table 26.10."""
    table = {(1, 0.99): 63.657, (3, 0.6): 0.978, (4, 0.95): 2.776, (60, 0.99): 2.660}
    assert {key: round(t_quantile(*key), 3) for key in table} == table
