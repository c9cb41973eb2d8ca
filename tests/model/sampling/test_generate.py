"""generate: its samples, when they finish, and what an engine keeps between calls."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch

from model.sampling.decoder import Decoder
from model.sampling.generate import InferenceEngine, generate, generate_ids
from model.sampling.sampler import SamplingParams, sample_seeds


@pytest.fixture
def captured(monkeypatch):
    """Steps as on a GPU: in tensors of static size, one step ahead of the reader."""
    monkeypatch.setattr("model.sampling.generate.supports_cuda_graphs", lambda device: True)


@pytest.fixture(params=["", "captured"])
def both_ways(request):
    """Run the test with growing and with static caches."""
    if request.param:
        request.getfixturevalue("captured")


both = pytest.mark.usefixtures("both_ways")


def sample_ids(model, n_samples=3, prompt=(1, 2), **settings):
    settings = {"max_new_tokens": 12, "seeds": sample_seeds(4, n_samples)} | settings
    return generate_ids(model, [prompt] * len(settings["seeds"]), **settings)


@both
def test_a_long_prompt_is_cut_to_its_end(tiny):
    model = tiny()
    prompt = [i % 11 for i in range(30)]
    assert sample_ids(model, prompt=prompt) == sample_ids(model, prompt=prompt[-8:])
    assert sample_ids(model, prompt=prompt) != sample_ids(model, prompt=prompt[-7:])


@both
def test_the_seed_decides_the_ids(tiny):
    model = tiny()
    assert sample_ids(model) == sample_ids(model)
    assert sample_ids(model) != sample_ids(model, seeds=sample_seeds(5, 3))
    assert len({tuple(sample) for sample in sample_ids(model, 8)}) == 8


MIXED_PROMPTS = [
    [1, 2],
    [3],
    [1, 2],
    [4] * 8,
    [5, 6, 7],
    [1, 2],
    [9] * 5,
    [3],
]  # some equal, some full


@both
@pytest.mark.parametrize(
    ("position", "params", "prompts"),
    [
        ("rope", SamplingParams(), [[1, 2]] * 8),
        ("rope", SamplingParams(0.7, 5, 0.9), MIXED_PROMPTS),
        ("learned", SamplingParams(0.7, 5, 0.9), [[1, 2]] * 8),
        ("learned", SamplingParams(repetition_penalty=1.5, min_p=0.05), MIXED_PROMPTS),
    ],
)
def test_a_sample_does_not_depend_on_the_others(tiny, position, params, prompts):
    model = tiny(double=True, position=position, pointer=True, bigram_rows=64)
    settings = {"max_new_tokens": 30, "params": params}
    seeds = sample_seeds(4, 8)
    stop_id = generate_ids(model, prompts[:1], seeds=seeds[:1], **settings)[0][12]
    many = generate_ids(model, prompts, seeds=seeds, stop_id=stop_id, **settings)
    assert len({len(sample) for sample in many}) > 2  # some finish early, and rows are moved
    two = generate_ids(model, prompts[:2], seeds=seeds[:2], stop_id=stop_id, **settings)
    assert two == many[:2]
    for sample, prompt, seed in zip(many, prompts, seeds):
        alone = generate_ids(model, [prompt], seeds=[seed], stop_id=stop_id, **settings)
        assert alone == [sample]


@both
def test_equal_prompts_are_prefilled_once(tiny, monkeypatch):
    model, read = tiny(), []
    model.blocks[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:2]))
    generate_ids(model, MIXED_PROMPTS, seeds=range(8), max_new_tokens=3)
    assert read == [(1, 2), (1, 1), (1, 8), (1, 3), (1, 5)]


@both
def test_the_penalty_applies_to_the_prompt_and_to_sampled_ids(tiny):
    # So strong that no id is repeated while another is left: 11 ids, one of them in the prompt.
    params = SamplingParams(0, repetition_penalty=1e6)
    model = tiny()
    with torch.no_grad():
        model.head.weight.abs_()  # with these, all logits are positive
        model.final_norm.weight.fill_(0.0)
        model.final_norm.register_parameter("bias", torch.nn.Parameter(torch.ones(8)))
    (ids,) = generate_ids(model, [[4]], seeds=[1], max_new_tokens=10, params=params)
    assert sorted([4, *ids]) == list(range(11))


@both
def test_a_sample_ends_with_the_stop_id(tiny):
    model = tiny()
    free, stopped = sample_ids(model, 8), sample_ids(model, 8, stop_id=3)
    for long, short in zip(free, stopped, strict=True):
        end = long.index(3) + 1 if 3 in long else len(long)
        assert short == long[:end]


def steps_and_rows(model, monkeypatch):
    """Return per step the unfinished samples and computed rows, of eight samples that end at 3."""
    rows, real = [8], Decoder.compute
    monkeypatch.setattr(
        Decoder, "compute", lambda self, ids: rows.append(len(ids)) or real(self, ids)
    )
    seeds = sample_seeds(4, 8)
    steps = list(generate(model, [[1]] * 8, seeds=seeds, max_new_tokens=40, stop_id=3))
    for column in zip(*(step.ids for step in steps), strict=True):
        ids = [token for token in column if token is not None]
        assert list(column) == ids + [None] * (len(column) - len(ids))
        assert ids[-1] == 3 or len(ids) == len(steps) == 40
    for step in steps:
        assert [p is None for p in step.logprobs] == [token is None for token in step.ids]
    assert any(token is not None for token in steps[-1].ids)
    assert rows[0] == 8 and rows[-1] < 8
    return [sum(token is not None for token in step.ids) for step in steps], rows


def test_finished_samples_are_none_and_leave_the_batch(tiny, monkeypatch):
    unfinished, rows = steps_and_rows(tiny(), monkeypatch)
    assert rows == unfinished


def test_captured_rows_are_dropped_once_half_of_them_are_idle(tiny, monkeypatch, captured):
    unfinished, rows = steps_and_rows(tiny(), monkeypatch)
    assert all(n <= r <= 8 for n, r in zip(unfinished, rows)) and len(set(rows)) < len(
        set(unfinished)
    )


@both
def test_the_caller_can_finish_samples_and_the_others_do_not_change(tiny):
    model, seeds = tiny(), sample_seeds(4, 5)
    full, finished, found = sample_ids(model, 5), set(), [[] for _ in seeds]
    settings = {"seeds": seeds, "max_new_tokens": 12, "is_finished": finished.__contains__}
    for i, step in enumerate(generate(model, [[1, 2]] * 5, **settings)):
        for sample, token in zip(found, step.ids):
            sample += [] if token is None else [token]
        finished |= {2: {1}, 4: {0, 4}, 9: {2, 3}}.get(i, set())
    assert found == [sample[:n] for sample, n in zip(full, (5, 3, 10, 10, 5))]


def batches_after_calls(engine):
    """Return the batch the engine keeps after each of four calls; check the ids of each call."""
    batches, model = [], engine.weights.model
    params = SamplingParams(0.9, 5, repetition_penalty=1.5)
    for prompts, n in (([[1, 2], [3]], 20), ([[4] * 8, [5]], 9), ([[6], [7, 8]], 30), ([[1]], 30)):
        settings = {"seeds": range(len(prompts)), "max_new_tokens": n, "params": params}
        expected = generate_ids(model, prompts, **settings)
        assert generate_ids(model, prompts, engine=engine, **settings) == expected
        batches.append(engine.cached_batch)
    stop_id = expected[0][6]
    assert generate_ids(model, prompts, engine=engine, stop_id=stop_id, **settings) == [
        expected[0][: expected[0].index(stop_id) + 1]
    ]
    assert generate_ids(model, prompts, engine=engine, **settings) == expected
    # It is kept although all samples had finished.
    assert engine.cached_batch is batches[3]
    return batches


def test_the_next_call_reuses_the_batch_and_gives_the_same_ids(tiny, captured):
    engine = InferenceEngine(tiny(double=True, pointer=True, bigram_rows=64))
    batches = batches_after_calls(engine)  # equal numbers of rows, all slots of a block
    assert batches[0] is batches[1] is batches[2] and batches[3] is not batches[2]
    assert None not in batches


def test_a_call_that_captures_nothing_keeps_no_batch(tiny):
    engine = InferenceEngine(tiny(double=True, pointer=True, bigram_rows=64))
    assert batches_after_calls(engine) == [None] * 4


def test_a_cached_batch_keeps_no_values_of_the_last_call(tiny, captured):
    model = tiny(double=True, pointer=True)
    engine, expected = InferenceEngine(model), sample_ids(model)
    sample_ids(model, engine=engine)
    with torch.inference_mode():
        cache = engine.cached_batch.decoder.cache
        cache._kv.fill_(math.nan)
        cache._pointer.fill_(math.nan)
    assert sample_ids(model, engine=engine) == expected


@pytest.mark.parametrize("prompt", [[1, 2], [3] * 8], ids=["other size", "same size"])
def test_a_call_of_one_token_keeps_the_cached_batch(tiny, captured, prompt):
    model = tiny()
    engine = InferenceEngine(model)
    sample_ids(model, engine=engine)
    batch = engine.cached_batch
    sample_ids(model, engine=engine, prompt=prompt, max_new_tokens=1)
    assert engine.cached_batch is batch is not None


def test_a_closed_call_keeps_its_batch_but_a_failed_one_does_not(tiny, captured):
    model = tiny(double=True)
    engine, expected = InferenceEngine(model), sample_ids(model)
    settings = {"seeds": sample_seeds(4, 3), "max_new_tokens": 12, "engine": engine}
    for error in (ValueError, KeyboardInterrupt):
        steps = generate(model, [[1, 2]] * 3, **settings)
        next(steps)
        with pytest.raises(error):
            steps.throw(error())
        assert engine.cached_batch is None
    steps = generate(model, [[1, 2]] * 3, **settings)
    next(steps)
    steps.close()
    assert engine.cached_batch is not None
    assert sample_ids(model, engine=engine) == expected


@both
@pytest.mark.parametrize("compiled", [False, True])
def test_a_cached_batch_is_freed_immediately(tiny, monkeypatch, compiled):
    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    model = tiny()
    engine = InferenceEngine(model)
    sample_ids(model, engine=engine, compiled=compiled)
    gc.collect()
    gc.disable()
    try:
        batch = engine.cached_batch
        reference = weakref.ref(batch.decoder.cache._kv) if batch else lambda: None
        del batch
        engine.cached_batch = None
        assert reference() is None
    finally:
        gc.enable()


def test_a_compiled_batch_is_kept_where_none_is_captured(tiny, monkeypatch):
    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    model = tiny()
    engine = InferenceEngine(model)
    sample_ids(model, engine=engine, compiled=True)
    assert engine.cached_batch is not None


def test_the_engine_of_another_model_is_refused(tiny):
    engine = InferenceEngine(tiny())
    sample_ids(engine.weights.model, engine=engine)
    with pytest.raises(AssertionError, match="another model"):
        sample_ids(tiny(seed=2), engine=engine)


@both
def test_no_step_follows_once_all_are_finished(tiny):
    model = tiny()
    (ids,) = sample_ids(model, 1)
    n = max(i for i in range(12) if ids[i] not in ids[:i]) + 1
    for extra in (0, 1, 2):
        settings = {"seeds": sample_seeds(4, 1), "max_new_tokens": n + extra, "stop_id": ids[n - 1]}
        assert len(list(generate(model, [[1, 2]], **settings))) == n


@both
def test_two_generators_share_an_engine(tiny):
    model = tiny(double=True)
    engine, expected = InferenceEngine(model), sample_ids(model)
    settings = {"seeds": sample_seeds(4, 3), "max_new_tokens": 12, "engine": engine}
    sample_ids(model, engine=engine)
    pair = [generate(model, [[1, 2]] * 3, **settings) for _ in range(2)]
    for i, steps in enumerate(zip(*pair, strict=True)):
        assert [step.ids for step in steps] == [[ids[i] for ids in expected]] * 2


@both
def test_nothing_to_sample(tiny):
    assert sample_ids(tiny(), max_new_tokens=0) == [[], [], []]
    assert sample_ids(tiny(), seeds=[]) == []


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="prompt is empty"):
        sample_ids(tiny(), prompt=[])


def test_a_prompt_with_an_id_outside_the_vocabulary_is_refused(tiny):
    for wrong in (-1, 11):
        with pytest.raises(ValueError, match=f"token id {wrong} in a prompt is not one of 0 to 10"):
            sample_ids(tiny(), prompt=[1, wrong, 2])


def test_too_few_seeds_are_refused(tiny):
    with pytest.raises(ValueError, match="2 prompts need as many seeds, got 1"):
        generate_ids(tiny(), [[1], [2]], seeds=[1], max_new_tokens=1)


@both
def test_damaged_weights_are_refused(tiny):
    model = tiny()
    with torch.no_grad():
        model.head.weight[3] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        sample_ids(model)


@both
def test_mode_gradients_and_random_state_are_unchanged(tiny):
    model = tiny(dropout=0.5).train()
    state = torch.get_rng_state()
    steps = generate(model, [[1]] * 2, seeds=[1, 2], max_new_tokens=5)
    for _ in steps:
        # Between steps the caller could train.
        assert model.training and model.blocks[0].mlp.dropout.training
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_ids(model) == sample_ids(tiny(dropout=0.0))  # no dropout during generation
    model.eval()
    next(generate(model, [[1]], seeds=[1], max_new_tokens=1))
    assert not model.training


@both
def test_a_closed_generator_restores_the_mode(tiny):
    model = tiny().train()
    steps = generate(model, [[1]], seeds=[1], max_new_tokens=5)
    next(steps)
    steps.close()
    assert model.training and not torch.is_inference_mode_enabled()


def test_wrapped_models_give_the_same_ids(tiny):
    model = tiny()
    assert sample_ids(torch.compile(model)) == sample_ids(model)
