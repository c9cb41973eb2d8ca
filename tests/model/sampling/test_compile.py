"""CompiledStep steps: what they draw, when they are compiled, and what happens where they can't be."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from model.sampling.compile import MAX_PROGRAMS
from model.sampling.generate import InferenceEngine, generate_ids
from model.sampling.sampler import SamplingParams, sample_seeds

GREEDY, FILTERED = SamplingParams(0), SamplingParams(0.9, 5, 0.9, 0.01, 1.2)
PROMPTS = [[1, 2, 3], [4], [5] * 8, [1, 2, 3]]
KINDS = [
    {"position": "learned", "tie_weights": True, "bias": True},
    {"pointer": True, "bigram_rows": 64, "qk_norm": True, "mlp": "swiglu", "norm": "rmsnorm"},
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=["gpt2", "pointer"])


@pytest.fixture(autouse=True)
def traced(request, monkeypatch):
    """Programs run as they were traced; to make them of C++ takes seconds each."""
    torch._dynamo.reset()
    counters.clear()
    if "slow" not in request.keywords:
        monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    yield
    torch._dynamo.reset()


def draw(engine, prompts=PROMPTS, params=FILTERED, seed=1, n=25, **settings):
    seeds = sample_seeds(seed, len(prompts))
    return generate_ids(
        engine.weights.model, prompts, seeds=seeds, max_new_tokens=n, params=params,
        engine=engine,
        **settings,
    )  # fmt: skip


def n_programs():
    return counters["stats"]["unique_graphs"]


@kinds
@pytest.mark.parametrize("params", [GREEDY, FILTERED], ids=["greedy", "filtered"])
@pytest.mark.parametrize("stop_id", [None, 7])
def test_compiled_steps_draw_what_others_draw(tiny, kind, params, stop_id, capsys):
    model = tiny(double=True, **kind)
    wanted = draw(InferenceEngine(model), params=params, stop_id=stop_id)
    assert draw(InferenceEngine(model), params=params, stop_id=stop_id, compiled=True) == wanted
    assert n_programs() == 1 and capsys.readouterr().err == ""


@kinds
def test_what_was_compiled_is_used_again(tiny, kind):
    engine, plain = InferenceEngine(tiny(double=True, **kind)), InferenceEngine(
        tiny(double=True, **kind)
    )
    for n_rows in (1, 4):
        for turn, prompt in enumerate(([1], [2, 3], [4, 5, 6])):
            settings = {"prompts": [prompt] * n_rows, "seed": turn, "n": 30 - 3 * turn}
            if turn == 2:  # not by what the last call left, but in new tensors
                engine.cached_batch = None
            assert draw(engine, compiled=True, **settings) == draw(plain, **settings)
            assert n_programs() == (1 if n_rows == 1 else 2)


def test_another_drawing_or_shape_of_model_is_another_program_other_weights_are_not(tiny):
    for model in (tiny(), tiny(seed=2), tiny(n_layer=1)):
        engine = InferenceEngine(model)
        for params in (GREEDY, FILTERED):
            for _ in range(2):
                draw(engine, params=params, compiled=True)
    assert n_programs() == 4


def test_more_programs_than_pytorch_keeps_by_itself(tiny):
    engine, plain = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    for k in range(1, 11):
        params = SamplingParams(top_k=k)
        assert draw(engine, params=params, compiled=True) == draw(plain, params=params)
    assert n_programs() == 10 and engine.compile_stats.works


def test_where_it_fails_one_line_says_so_and_the_text_is_the_same(tiny, monkeypatch, capsys):
    def fail(graph, inputs):
        raise RuntimeError("no compiler\nin the path")

    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": fail})
    engine, plain = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    for _ in range(2):
        assert draw(engine, compiled=True, stop_id=7) == draw(plain, stop_id=7)
    assert not engine.compile_stats.works
    err = capsys.readouterr().err
    assert err.startswith("warning: torch.compile failed, sampling goes on without it: ")
    assert err.count("\n") == 1 and "no compiler" in err


def test_an_error_of_the_program_itself_is_not_taken_for_the_compilers(tiny, monkeypatch):
    def broken(graph, inputs):
        def run(*args):
            graph(*args)
            raise RuntimeError("out of memory")

        return run

    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": broken})
    engine = InferenceEngine(tiny(double=True))
    with pytest.raises(RuntimeError, match="out of memory"):  # to do it again would count twice
        draw(engine, compiled=True)
    assert engine.compile_stats.works and engine.cached_batch is None


@pytest.mark.parametrize("most", [MAX_PROGRAMS, 10])
def test_a_program_is_compiled_anew_while_there_may_be_more(tiny, monkeypatch, capsys, most):
    monkeypatch.setattr("model.sampling.compile.MAX_PROGRAMS", most)
    engine, plain = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    with torch._dynamo.config.patch(recompile_limit=8):
        for k in range(1, 11):
            params = SamplingParams(top_k=k)
            draw(engine, params=params, compiled=True)
        torch.set_num_threads(2)  # what was compiled for one won't do
        for _ in range(2):
            assert draw(engine, params=params, compiled=True) == draw(plain, params=params)
    assert engine.compile_stats.works == (most > 10)
    assert ("FailOnRecompileLimitHit" in capsys.readouterr().err) == (most == 10)


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_programs_of_a_compiler_draw_the_same(tiny, kind, n_rows, capsys):
    engine, plain = InferenceEngine(tiny(double=True, **kind)), InferenceEngine(
        tiny(double=True, **kind)
    )
    for params in (GREEDY, FILTERED):
        settings = {"prompts": PROMPTS[:n_rows], "params": params}
        assert draw(engine, compiled=True, **settings) == draw(plain, **settings)
    assert engine.compile_stats.works and capsys.readouterr().err == ""
