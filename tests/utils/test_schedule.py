"""The learning rate: golden values, and what holds for every schedule."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from utils.schedule import SCHEDULES, lr_at

FALLING = [name for name in SCHEDULES if name != "constant"]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("cosine", [0.5, 1.0, 0.9522542, 0.825, 0.640, 0.460, 0.275, 0.1477458, 0.1]),
        ("linear", [0.5, 1.0, 0.8714286, 0.7428571, 0.6142857, 0.4857143, 0.3571429, 0.2285714]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_golden_values(schedule: str, wanted: list[float]) -> None:
    rates = [
        lr_at(
            step,
            peak_lr=1.0,
            min_lr=0.1,
            warmup_steps=2,
            max_steps=9,
            schedule=schedule,
            decay_fraction=0.45,
        )
        for step in range(9)
    ]
    if schedule == "cosine":  # written out: 0.1 + 0.9 * (1 + cos(pi * i / 7)) / 2
        wanted = [0.5] + [0.1 + 0.45 * (1 + math.cos(math.pi * i / 7)) for i in range(8)]
    assert rates[: len(wanted)] == pytest.approx(wanted, abs=1e-7)


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.integers(0, 40),
    max_steps=st.integers(1, 200),
    min_lr=st.floats(0, 1),
    decay_fraction=st.floats(0.01, 1),
)
def test_what_holds_for_all(
    schedule: str, warmup: int, max_steps: int, min_lr: float, decay_fraction: float
) -> None:
    assume(warmup <= max_steps)
    rates = [
        lr_at(
            step,
            peak_lr=1.0,
            min_lr=min_lr,
            warmup_steps=warmup,
            max_steps=max_steps,
            schedule=schedule,
            decay_fraction=decay_fraction,
        )
        for step in range(max_steps)
    ]
    peak = max(warmup - 1, 0)
    assert rates[0] > 0 or max_steps == 1 or min_lr == 0 and peak == 0
    assert all(0 <= rate <= 1.0 for rate in rates)
    assert all(a < b for a, b in zip(rates[:peak], rates[1 : peak + 1], strict=True))
    assert all(a >= b - 1e-15 for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[peak] == pytest.approx(1.0)
    if schedule in FALLING and max_steps - 1 > peak:
        assert rates[-1] == pytest.approx(min_lr, abs=1e-12)
    if schedule == "constant":
        assert set(rates[peak:]) == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_as_long_as_the_run_ends_at_the_peak(schedule: str) -> None:
    rates = [
        lr_at(s, peak_lr=1.0, min_lr=0.0, warmup_steps=4, max_steps=4, schedule=schedule)
        for s in range(4)
    ]
    assert rates == [0.25, 0.5, 0.75, 1.0]


def test_the_first_step_without_a_warmup_is_the_peak_and_past_the_end_is_the_minimum() -> None:
    settings = {"peak_lr": 2.0, "min_lr": 0.5, "warmup_steps": 0, "max_steps": 10}
    assert lr_at(0, **settings) == 2.0
    assert lr_at(9, **settings) == lr_at(10, **settings) == lr_at(99, **settings) == 0.5
