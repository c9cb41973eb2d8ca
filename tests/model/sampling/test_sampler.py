"""Filters and the random choice of ids, by hand and against their definitions."""

from __future__ import annotations

import math
from itertools import product
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.sampling.sampler import (
    SamplingParams,
    chosen_logprobs,
    inverse_cdf,
    k_largest,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_probs,
    penalize,
    sample_next,
    sample_seeds,
)

INF = float("inf")
LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64).log()


def kept(logits_BV):
    return [[i for i, z in enumerate(row) if z > -INF] for row in logits_BV.tolist()]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [1]),
        (2, [1, 3]),
        (3, [1, 2, 3]),
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3]),
        (10**9, [0, 1, 2, 3]),
        (0, [0, 1, 2, 3]),
        (None, [0, 1, 2, 3]),
    ],
)
def test_top_k_by_hand(k, expected):
    assert kept(keep_top_k(LOGITS, k)) == [expected]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-12, [1]),
        (0.39, [1]),
        (0.4, [1]),
        (0.41, [1, 3]),
        (0.7, [1, 3]),
        (0.71, [1, 2, 3]),
        (0.9, [1, 2, 3]),
        (0.91, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_by_hand(p, expected):
    assert kept(keep_top_p(LOGITS, p)) == [expected]


def test_of_equal_logits_the_smaller_ids_are_kept():
    flat = torch.zeros(2, 1000)
    assert kept(keep_top_k(flat, 3)) == [[0, 1, 2]] * 2
    assert kept(keep_top_p(flat, 0.0035)) == [[0, 1, 2, 3]] * 2
    some = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0]])
    assert kept(keep_top_k(some, 4)) == [[0, 1, 2, 3]]


def test_rows_are_filtered_separately():
    logits = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    assert kept(keep_top_k(logits, 1)) == kept(keep_top_p(logits, 0.5)) == [[2], [0]]


@given(
    # Quarters: equal, or far enough apart for their probabilities to differ.
    st.lists(st.integers(-80, 80).map(lambda n: n / 4), min_size=1, max_size=30),
    st.integers(1, 40),
    st.floats(0.001, 0.999),
)
def test_filters_keep_the_smallest_set_of_most_likely_ids(values, k, p):
    logits = torch.tensor([values], dtype=torch.float64)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert kept(keep_top_k(logits, k)) == [sorted(order[:k])]
    weights = [math.exp(v - max(values)) for v in values]
    (nucleus,) = kept(keep_top_p(logits, p))
    mass = sum(weights[i] for i in nucleus) / sum(weights)
    assert nucleus == sorted(order[: len(nucleus)])
    assert mass > p - 1e-8
    smallest = weights[order[len(nucleus) - 1]] / sum(weights)
    assert len(nucleus) == 1 or mass - smallest < p + 1e-8


def probs(**settings):
    return next_probs(LOGITS, SamplingParams(**settings))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_divides_the_logits(temperature):
    powers = [p ** (1 / temperature) for p in (0.1, 0.4, 0.2, 0.3)]
    expected = [p / sum(powers) for p in powers]
    assert next_probs(LOGITS, SamplingParams(temperature))[0].tolist() == pytest.approx(
        expected, rel=1e-12
    )


def test_filters_come_after_temperature_and_top_k_before_top_p():
    # At temperature 2 the shares are 0.1^.5 : 0.4^.5 ...: the two most likely have 0.612 of all.
    assert kept(probs(temperature=2.0, top_p=0.62).log()) == [[1, 2, 3]]
    # Of the three that top_k keeps, the most likely has 4/9.
    assert kept(probs(top_k=3, top_p=0.44).log()) == [[1]]
    assert kept(probs(top_p=0.44).log()) == [[1, 3]]
    assert probs(top_k=2)[0].tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])


@pytest.mark.parametrize("temperature", [0, 1e-300, 5e-324])
def test_temperature_zero_and_nearly_zero_are_greedy(temperature):
    logits = torch.tensor([[1.0, 5.0, 5.0 - 1e-5], [3.0, -INF, 2.0]])
    probs = next_probs(logits, SamplingParams(temperature, top_k=50, top_p=0.9))
    assert probs.tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": INF}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": INF}, "repetition_penalty"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        SamplingParams(**settings)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, [0, 1, 2, 3]),
        (0.24, [0, 1, 2, 3]),
        (0.25, [0, 1, 2, 3]),  # 0.1 is exactly a quarter of 0.4
        (0.26, [1, 2, 3]),
        (0.51, [1, 3]),
        (0.76, [1]),
        (1.0, [1]),
    ],
)
def test_min_p_by_hand(p, expected):
    assert kept(keep_min_p(LOGITS, p)) == kept(keep_min_p(LOGITS + 5, p)) == [expected]


def test_min_p_comes_after_temperature():
    # At temperature 2 the shares are the square roots: 0.5 : 1 : 0.71 : 0.87.
    assert kept(probs(temperature=2.0, min_p=0.7).log()) == [[1, 2, 3]]
    assert kept(probs(min_p=0.7).log()) == [[1, 3]]


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=20),
    st.floats(0.1, 10),
)
def test_the_penalty_by_its_definition(pairs, penalty):
    logits = torch.tensor([[z for z, _ in pairs]], dtype=torch.float64)
    seen = torch.tensor([[is_seen for _, is_seen in pairs]])
    expected = [(z / penalty if z > 0 else z * penalty) if is_seen else z for z, is_seen in pairs]
    assert penalize(logits, seen, penalty)[0].tolist() == expected


def test_the_penalty_comes_before_temperature():
    logits, seen = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[True, True, False]])
    found = next_probs(logits, SamplingParams(temperature=0.5, repetition_penalty=2.0), seen)
    expected = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64) / 0.5
    assert torch.allclose(found, expected.softmax(-1))
    greedy = SamplingParams(temperature=0, repetition_penalty=10.0)
    assert next_probs(logits, greedy, seen).tolist() == [[0, 0, 1]]
    assert next_probs(logits, greedy).tolist() == [[1, 0, 0]]


def test_inverse_cdf_by_hand():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64)
    below_one = 1 - 2**-53
    uniforms = [0.0, 0.2499, 0.25, 0.7499, 0.75, below_one]
    uniform = torch.tensor(uniforms, dtype=torch.float64)
    expected = [1, 1, 3, 3, 4, 4]
    assert inverse_cdf(probs.expand(6, 6), uniform).tolist() == expected
    assert inverse_cdf(3 * probs.expand(6, 6), uniform).tolist() == expected


@given(st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.3, 1.0]), min_size=1, max_size=9))
def test_never_an_id_of_probability_zero(weights):
    if sum(weights) == 0:
        return
    uniforms = torch.tensor([0.0, 0.3, 1 - 2**-53], dtype=torch.float64)
    probs = torch.tensor([weights] * 3, dtype=torch.float64)
    assert all(weights[i] > 0 for i in inverse_cdf(probs, uniforms).tolist())


def test_sampled_ids_follow_the_distribution():
    n = 4000
    uniform = torch.rand(n, dtype=torch.float64)
    ids = sample_next(LOGITS.expand(n, 4), uniform, SamplingParams())
    shares = [(ids == i).sum().item() / n for i in range(4)]
    for share, p in zip(shares, (0.1, 0.4, 0.2, 0.3), strict=True):
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0), SamplingParams(top_k=1)])
@pytest.mark.parametrize("can_read", [True, False])
def test_damaged_logits_give_no_id_outside_the_vocabulary(params, can_read, monkeypatch):
    monkeypatch.setattr("model.sampling.sampler._host_can_read", lambda _: can_read)
    logits = torch.full((1, 3), math.nan)
    assert 0 <= sample_next(logits, torch.tensor([0.5]).double(), params).item() < 3


@pytest.mark.parametrize("bad", [[0.0, math.nan], [INF, 0.0], [-INF, -INF]])
def test_damaged_logits_have_no_log_probability(bad):
    logits = torch.tensor([[0.0, 1.0], bad])
    logprobs = chosen_logprobs(logits, torch.tensor([0, 0]))
    assert logprobs.isnan().tolist() == [False, True]


def test_log_probabilities_are_those_of_the_softmax():
    logprobs = chosen_logprobs(LOGITS.expand(4, 4), torch.arange(4))
    assert logprobs.exp().tolist() == pytest.approx([0.1, 0.4, 0.2, 0.3], rel=1e-12)


def test_seeds_do_not_overlap():
    seeds = [seed for first in range(50) for seed in sample_seeds(first, 50)]
    assert len(set(seeds)) == 2500
    assert sample_seeds(3, 8)[:2] == sample_seeds(3, 2)


@given(
    st.lists(st.lists(st.sampled_from([-1.5, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6)),
    st.integers(0, 7),
    st.sampled_from([0.0, 0.7, 1.0]),
    st.sampled_from([0.6, 1.0]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_sample_next_samples_from_next_probs(rows, top_k, temperature, top_p, min_p, penalty):
    # With and without ties: the fast paths for top_k and the general one.
    logits = torch.tensor([[2.25, 1.25, 0.75, -0.5, 3.0, 1.0], *rows])
    seen = logits > 0.6
    params = SamplingParams(temperature, top_k, top_p, min_p, penalty)
    probs = next_probs(logits, params, seen)
    for uniform_1 in torch.rand(8, dtype=torch.float64):
        uniform = uniform_1.expand(len(logits))
        for threshold, can_read in product((0, 256), (True, False)):
            with mock.patch.multiple(
                "model.sampling.sampler",
                SMALL_VOCAB_THRESHOLD=threshold,
                _host_can_read=mock.Mock(return_value=can_read),
            ):
                ids = sample_next(logits, uniform, params, seen)
            assert ids.tolist() == inverse_cdf(probs, uniform).tolist()


def test_k_largest_returns_what_top_k_keeps(monkeypatch):
    assert k_largest(torch.randn(1, 50), 7) is None
    monkeypatch.setattr("model.sampling.sampler.SMALL_VOCAB_THRESHOLD", 0)
    logits = torch.randn(20, 50)
    found, ids = k_largest(logits, 7)
    assert ids.tolist() == kept(keep_top_k(logits, 7))
    assert torch.equal(found, logits.gather(1, ids))
    logits[3, ids[3, 0]] = logits[3].sort(descending=True).values[7]  # now the 7th and 8th tie
    assert k_largest(logits, 7) is None
    assert k_largest(logits, 50) is k_largest(logits, 0) is k_largest(logits, None) is None
