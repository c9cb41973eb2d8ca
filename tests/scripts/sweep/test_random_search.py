"""Random search: values within their range, reproducible, and without duplicate points."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from scripts.sweep.grid import Sweep
from scripts.sweep.random_search import Range, sample_combinations

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 50), st.integers(1, 1000), st.booleans())
def test_integers_are_within_the_range(seed, low, span, log):
    value = Range(low, low + span, log, whole=True).sample(random.Random(seed))
    assert type(value) is int and low <= value <= low + span


@given(SEEDS, st.floats(1e-9, 1e3), st.floats(1.001, 1e6), st.booleans())
def test_rounded_numbers_are_within_the_range(seed, low, factor, log):
    value = Range(low, low * factor, log).sample(random.Random(seed))
    assert type(value) is float and low <= value <= low * factor


def test_values_of_a_range_are_equally_likely():
    rng = random.Random(1)
    draws = [Range(1, 4, whole=True).sample(rng) for _ in range(4000)]
    assert all(900 < draws.count(value) < 1100 for value in (1, 2, 3, 4))
    logs = [math.log10(Range(1e-4, 1e-2, log=True).sample(rng)) for _ in range(4000)]
    assert 1850 < sum(one < -3 for one in logs) < 2150
    words = [Range(choices=("a", "b")).sample(rng) for _ in range(4000)]
    assert 1850 < words.count("a") < 2150


def test_more_points_or_ranges_do_not_change_the_first_points():
    lr, width = Range(1e-4, 1e-2, log=True), Range(8, 64, whole=True)
    few = sample_combinations({"lr": lr}, 3, seed=1)
    more = sample_combinations({"lr": lr, "width": width}, 6, seed=1)
    assert [point["lr"] for point in more[:3]] == [point["lr"] for point in few]
    assert sample_combinations({"lr": lr}, 3, seed=2) != few


def test_points_are_different_from_each_other():
    ranges = {"width": Range(1, 3, whole=True)}
    assert sorted(point["width"] for point in sample_combinations(ranges, 10, seed=1)) == [1, 2, 3]
    sweep = Sweep(ranges={"model.n_embd": Range(8, 64, whole=True)}, n_combinations=3, seeds=(1, 2))
    assert len({point.name for point in sweep.points()}) == 6
    assert sweep.setting_names == ["model.n_embd"]
