from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.generate import (
    generate,
    generate_ids,
    inverse_cdf,
    keep_top_k,
    keep_top_p,
    next_probs,
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


def test_of_equals_the_smaller_ids_stay():
    flat = torch.zeros(2, 1000)
    assert kept(keep_top_k(flat, 3)) == [[0, 1, 2]] * 2
    assert kept(keep_top_p(flat, 0.0035)) == [[0, 1, 2, 3]] * 2
    some = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0]])
    assert kept(keep_top_k(some, 4)) == [[0, 1, 2, 3]]


def test_rows_are_filtered_apart():
    logits = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    assert kept(keep_top_k(logits, 1)) == kept(keep_top_p(logits, 0.5)) == [[2], [0]]


@given(
    # Quarters: either equal, or apart enough for their probabilities to differ.
    st.lists(st.integers(-80, 80).map(lambda n: n / 4), min_size=1, max_size=30),
    st.integers(1, 40),
    st.floats(0.001, 0.999),
)
def test_filters_keep_the_smallest_set_of_the_likeliest(values, k, p):
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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_divides_the_logits(temperature):
    powers = [p ** (1 / temperature) for p in (0.1, 0.4, 0.2, 0.3)]
    expected = [p / sum(powers) for p in powers]
    assert next_probs(LOGITS, temperature)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_filters_come_after_temperature_and_top_k_before_top_p():
    # At temperature 2 the shares are 0.1^.5 : 0.4^.5 ...: the two likeliest hold 0.612 of all.
    assert kept(next_probs(LOGITS, 2.0, None, 0.62).log()) == [[1, 2, 3]]
    # Of the three that top_k leaves, the likeliest holds 4/9.
    assert kept(next_probs(LOGITS, 1.0, 3, 0.44).log()) == [[1]]
    assert kept(next_probs(LOGITS, 1.0, None, 0.44).log()) == [[1, 3]]
    assert next_probs(LOGITS, 1.0, 2)[0].tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])


@pytest.mark.parametrize("temperature", [0, 1e-300, 5e-324])
def test_temperature_zero_and_next_to_it_are_greedy(temperature):
    logits = torch.tensor([[1.0, 5.0, 5.0 - 1e-5], [3.0, -INF, 2.0]])
    probs = next_probs(logits, temperature, top_k=50, top_p=0.9)
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
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        next_probs(LOGITS, **settings)


def test_inverse_cdf_by_hand():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64)
    below_one = 1 - 2**-53
    draws = [0.0, 0.2499, 0.25, 0.7499, 0.75, below_one]
    uniform = torch.tensor(draws, dtype=torch.float64)
    expected = [1, 1, 3, 3, 4, 4]
    assert inverse_cdf(probs.expand(6, 6), uniform).tolist() == expected
    assert inverse_cdf(3 * probs.expand(6, 6), uniform).tolist() == expected


@given(st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.3, 1.0]), min_size=1, max_size=9))
def test_never_an_id_of_probability_zero(weights):
    if sum(weights) == 0:
        return
    draws = torch.tensor([0.0, 0.3, 1 - 2**-53], dtype=torch.float64)
    probs = torch.tensor([weights] * 3, dtype=torch.float64)
    assert all(weights[i] > 0 for i in inverse_cdf(probs, draws).tolist())


def test_draws_follow_the_distribution():
    n = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    ids = sample_next(LOGITS.expand(n, 4), generators)
    shares = [(ids == i).sum().item() / n for i in range(4)]
    for share, p in zip(shares, (0.1, 0.4, 0.2, 0.3), strict=True):
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_each_row_takes_one_number_of_its_own_generator():
    generators = [torch.Generator().manual_seed(5) for _ in range(3)]
    sample_next(LOGITS.expand(3, 4), generators)
    expected = torch.Generator().manual_seed(5)
    torch.rand((), generator=expected, dtype=torch.float64)
    assert all(torch.equal(g.get_state(), expected.get_state()) for g in generators)


@pytest.mark.parametrize("bad", [math.nan, -INF])
def test_damaged_logits_are_refused(bad):
    logits = torch.tensor([[0.0, 1.0], [bad, bad if bad == -INF else 0.0]])
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="not finite"):
            sample_next(logits, [torch.Generator()] * 2, temperature)


def test_seeds_do_not_overlap():
    seeds = [seed for first in range(50) for seed in sample_seeds(first, 50)]
    assert len(set(seeds)) == 2500
    assert sample_seeds(3, 8)[:2] == sample_seeds(3, 2)


def draw(model, n_samples=3, **settings):
    settings = {"prompt_ids": [1, 2], "max_new_tokens": 12, "seeds": sample_seeds(4, n_samples)} | (
        settings
    )
    return generate_ids(model, **settings)


@pytest.mark.parametrize("settings", [{}, {"pointer": True}, {"bigram_rows": 64}])
def test_greedy_is_the_argmax_again_and_again(tiny, settings):
    model = tiny(**settings)
    ids = [1, 2]
    for _ in range(12):  # beyond block_size 8: the last 8 are the context
        ids.append(model(torch.tensor([ids[-8:]]))[0, -1].argmax().item())
    assert draw(model, 2, temperature=0) == [ids[2:]] * 2
    assert len(set(ids[2:])) > 1


def test_a_long_prompt_is_cut_to_its_end(tiny):
    model = tiny()
    prompt = [i % 11 for i in range(30)]
    assert draw(model, prompt_ids=prompt) == draw(model, prompt_ids=prompt[-8:])
    assert draw(model, prompt_ids=prompt) != draw(model, prompt_ids=prompt[-7:])


def test_same_seed_same_ids_and_another_seed_others(tiny):
    model = tiny()
    assert draw(model) == draw(model)
    assert draw(model) != draw(model, seeds=sample_seeds(5, 3))
    assert len({tuple(sample) for sample in draw(model, 8)}) == 8


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}])
def test_a_sample_does_not_depend_on_the_others(tiny, settings):
    model = tiny()
    stop_id = draw(model, 1, **settings)[0][5]
    many = draw(model, 8, stop_id=stop_id, **settings)
    assert len({len(sample) for sample in many}) > 1  # some stopped early
    assert draw(model, 2, stop_id=stop_id, **settings) == many[:2]
    for sample, seed in zip(many, sample_seeds(4, 8), strict=True):
        assert draw(model, seeds=[seed], stop_id=stop_id, **settings) == [sample]


def test_a_sample_ends_with_the_stop_id(tiny):
    model = tiny()
    free, stopped = draw(model, 8), draw(model, 8, stop_id=3)
    for long, short in zip(free, stopped, strict=True):
        end = long.index(3) + 1 if 3 in long else len(long)
        assert short == long[:end]


def test_ended_samples_are_none_and_leave_the_batch(tiny):
    model = tiny()
    rows = []
    model.final_norm.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    seeds = sample_seeds(4, 8)
    steps = list(generate(model, [1], seeds=seeds, max_new_tokens=40, stop_id=3))
    assert rows == [sum(token is not None for token in step) for step in steps]
    assert rows[0] == 8 and rows[-1] < 8
    for column in zip(*steps, strict=True):
        ids = [token for token in column if token is not None]
        assert list(column) == ids + [None] * (len(column) - len(ids))
        assert ids[-1] == 3 or len(ids) == len(steps) == 40
    assert any(token is not None for token in steps[-1])


def test_nothing_to_draw(tiny):
    assert draw(tiny(), max_new_tokens=0) == [[], [], []]
    assert draw(tiny(), seeds=[]) == []


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="prompt is empty"):
        draw(tiny(), prompt_ids=[])


def test_mode_gradients_and_random_state_stay_as_they_were(tiny):
    model = tiny(dropout=0.5).train()
    state = torch.get_rng_state()
    steps = generate(model, [1], seeds=[1, 2], max_new_tokens=5)
    for _ in steps:
        # The caller has the turn: it could train here.
        assert model.training and model.blocks[0].mlp.dropout.training
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert draw(model) == draw(tiny(dropout=0.0))  # no dropout while it draws
    model.eval()
    next(generate(model, [1], seeds=[1], max_new_tokens=1))
    assert not model.training


def test_an_abandoned_generator_leaves_the_mode(tiny):
    model = tiny().train()
    steps = generate(model, [1], seeds=[1], max_new_tokens=5)
    next(steps)
    steps.close()
    assert model.training and not torch.is_inference_mode_enabled()


def test_wrapped_models_draw_the_same(tiny):
    model = tiny()
    assert draw(torch.compile(model)) == draw(model)
