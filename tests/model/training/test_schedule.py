"""The learning-rate schedule: golden values, and properties of every schedule."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.optim import SCHEDULES, OptimConfig

DECAYING = [name for name in SCHEDULES if name != "constant"]


def rates_of(
    schedule: str, max_steps: int, *, min_lr: float, warmup: int, decay_fraction: float = 0.2
) -> list[float]:
    """Return the learning rate of each step of a run whose peak is 1."""
    config = OptimConfig(
        lr=1.0,
        min_lr_ratio=0.0 if schedule == "constant" else min_lr,
        warmup_steps=warmup,
        schedule=schedule,
        decay_fraction=decay_fraction if schedule == "wsd" else 0.2,
    )
    return [config.lr_at(step, max_steps) for step in range(max_steps)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 0.9522542, 0.825, 0.640, 0.460, 0.275, 0.1477458, 0.1]),
        ("linear", [0.5, 1.0, 0.8714286, 0.7428571, 0.6142857, 0.4857143, 0.3571429, 0.2285714]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_golden_values(schedule: str, expected: list[float]) -> None:
    rates = rates_of(schedule, 9, min_lr=0.1, warmup=2, decay_fraction=0.45)
    if schedule == "cosine":  # written out: 0.1 + 0.9 * (1 + cos(pi * i / 7)) / 2
        expected = [0.5] + [0.1 + 0.45 * (1 + math.cos(math.pi * i / 7)) for i in range(8)]
    assert rates[: len(expected)] == pytest.approx(expected, abs=1e-7)


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.integers(0, 40),
    max_steps=st.integers(1, 200),
    min_lr=st.floats(0, 1),
    decay_fraction=st.floats(1e-9, 1),
)
def test_properties_of_every_schedule(
    schedule: str, warmup: int, max_steps: int, min_lr: float, decay_fraction: float
) -> None:
    rates = rates_of(
        schedule, max_steps, min_lr=min_lr, warmup=warmup, decay_fraction=decay_fraction
    )
    peak = max(min(warmup, max_steps - 1) - 1, 0)
    assert rates[0] > 0 or max_steps == 1 or min_lr == 0 and peak == 0
    assert all(0 <= rate <= 1.0 for rate in rates)
    assert all(a < b for a, b in zip(rates[:peak], rates[1 : peak + 1], strict=True))
    assert all(a >= b - 1e-15 for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[peak] == pytest.approx(1.0)
    if schedule in DECAYING and max_steps > 1:
        assert rates[-1] == min_lr
    if schedule == "constant":
        assert set(rates[peak:]) == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [4, 5, 100])
def test_a_warmup_as_long_as_the_run_excludes_the_last_step(schedule: str, warmup: int) -> None:
    rates = rates_of(schedule, 4, min_lr=0.1, warmup=warmup)
    assert rates == [1 / 3, 2 / 3, 1.0, 1.0 if schedule == "constant" else 0.1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_only_step_of_a_run_is_at_the_peak(schedule: str) -> None:
    assert [rates_of(schedule, 1, min_lr=0.1, warmup=w) for w in (0, 1, 9)] == [[1.0]] * 3


def test_the_first_step_without_a_warmup_is_the_peak_and_past_the_end_is_the_minimum() -> None:
    config = OptimConfig(lr=2.0, min_lr_ratio=0.25, warmup_steps=0)
    assert config.lr_at(0, 10) == 2.0
    assert config.lr_at(9, 10) == config.lr_at(10, 10) == config.lr_at(99, 10) == 0.5
