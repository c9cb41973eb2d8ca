from __future__ import annotations

import math

import pytest
import torch

from model.draw import Drawing, sample_seeds
from model.generate import generate, generate_ids


def draw(model, n_samples=3, prompt=(1, 2), **settings):
    settings = {"max_new_tokens": 12, "seeds": sample_seeds(4, n_samples)} | settings
    return generate_ids(model, [prompt] * len(settings["seeds"]), **settings)


@pytest.mark.parametrize("settings", [{}, {"pointer": True}, {"bigram_rows": 64}])
def test_greedy_is_the_argmax_again_and_again(tiny, settings):
    model = tiny(**settings)
    ids = [1, 2]
    for _ in range(12):  # beyond block_size 8: the last 8 are the context
        ids.append(model(torch.tensor([ids[-8:]]))[0, -1].argmax().item())
    assert draw(model, 2, drawing=Drawing(0)) == [ids[2:]] * 2
    assert len(set(ids[2:])) > 1


def test_a_long_prompt_is_cut_to_its_end(tiny):
    model = tiny()
    prompt = [i % 11 for i in range(30)]
    assert draw(model, prompt=prompt) == draw(model, prompt=prompt[-8:])
    assert draw(model, prompt=prompt) != draw(model, prompt=prompt[-7:])


def test_same_seed_same_ids_and_another_seed_others(tiny):
    model = tiny()
    assert draw(model) == draw(model)
    assert draw(model) != draw(model, seeds=sample_seeds(5, 3))
    assert len({tuple(sample) for sample in draw(model, 8)}) == 8


@pytest.mark.parametrize("settings", [{}, {"drawing": Drawing(0.7, top_k=5, top_p=0.9)}])
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
    steps = list(generate(model, [[1]] * 8, seeds=seeds, max_new_tokens=40, stop_id=3))
    assert rows == [sum(token is not None for token in step.ids) for step in steps]
    assert rows[0] == 8 and rows[-1] < 8
    for column in zip(*(step.ids for step in steps), strict=True):
        ids = [token for token in column if token is not None]
        assert list(column) == ids + [None] * (len(column) - len(ids))
        assert ids[-1] == 3 or len(ids) == len(steps) == 40
    assert any(token is not None for token in steps[-1].ids)


def test_the_caller_may_let_samples_go_and_the_others_do_not_change(tiny):
    model, seeds = tiny(), sample_seeds(4, 5)
    whole, gone, found = draw(model, 5), set(), [[] for _ in seeds]
    settings = {"seeds": seeds, "max_new_tokens": 12, "gone": gone}
    for place, step in enumerate(generate(model, [[1, 2]] * 5, **settings)):
        for sample, token in zip(found, step.ids):
            sample += [] if token is None else [token]
        gone |= {2: {1}, 4: {0, 4}, 9: {2, 3}}.get(place, set())
    assert found == [sample[:n] for sample, n in zip(whole, (5, 3, 10, 10, 5))]


def test_nothing_to_draw(tiny):
    assert draw(tiny(), max_new_tokens=0) == [[], [], []]
    assert draw(tiny(), seeds=[]) == []


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="prompt is empty"):
        draw(tiny(), prompt=[])


def test_as_many_seeds_as_prompts(tiny):
    with pytest.raises(ValueError, match="2 prompts need as many seeds, got 1"):
        generate_ids(tiny(), [[1], [2]], seeds=[1], max_new_tokens=1)


def test_damaged_weights_are_refused(tiny):
    model = tiny()
    with torch.no_grad():
        model.head.weight[3] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        draw(model)


def test_mode_gradients_and_random_state_stay_as_they_were(tiny):
    model = tiny(dropout=0.5).train()
    state = torch.get_rng_state()
    steps = generate(model, [[1]] * 2, seeds=[1, 2], max_new_tokens=5)
    for _ in steps:
        # The caller has the turn: it could train here.
        assert model.training and model.blocks[0].mlp.dropout.training
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert draw(model) == draw(tiny(dropout=0.0))  # no dropout while it draws
    model.eval()
    next(generate(model, [[1]], seeds=[1], max_new_tokens=1))
    assert not model.training


def test_an_abandoned_generator_leaves_the_mode(tiny):
    model = tiny().train()
    steps = generate(model, [[1]], seeds=[1], max_new_tokens=5)
    next(steps)
    steps.close()
    assert model.training and not torch.is_inference_mode_enabled()


def test_wrapped_models_draw_the_same(tiny):
    model = tiny()
    assert draw(torch.compile(model)) == draw(model)
