"""Compiled steps: their samples, when they are compiled, and what happens where compiling fails."""

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
def eager_backend(request, monkeypatch):
    """Programs run as they were traced; generating C++ code takes seconds for each."""
    torch._dynamo.reset()
    counters.clear()
    if "slow" not in request.keywords:
        monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    yield
    torch._dynamo.reset()


def sample_ids(engine, prompts=PROMPTS, params=FILTERED, seed=1, n=25, **settings):
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
def test_compiled_and_eager_steps_give_the_same_ids(tiny, kind, params, stop_id, capsys):
    model = tiny(double=True, **kind)
    expected = sample_ids(InferenceEngine(model), params=params, stop_id=stop_id)
    assert (
        sample_ids(InferenceEngine(model), params=params, stop_id=stop_id, compiled=True)
        == expected
    )
    assert n_programs() == 1 and capsys.readouterr().err == ""


@kinds
def test_a_compiled_program_is_reused(tiny, kind):
    engine, eager = InferenceEngine(tiny(double=True, **kind)), InferenceEngine(
        tiny(double=True, **kind)
    )
    for n_rows in (1, 4):
        for call, prompt in enumerate(([1], [2, 3], [4, 5, 6])):
            settings = {"prompts": [prompt] * n_rows, "seed": call, "n": 30 - 3 * call}
            if call == 2:  # the program is reused even with a new batch
                engine.cached_batch = None
            assert sample_ids(engine, compiled=True, **settings) == sample_ids(eager, **settings)
            assert n_programs() == (1 if n_rows == 1 else 2)


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="2.6 compiles no filters: sampling goes on without the compiler, and says so",
)
def test_other_params_or_shapes_need_another_program_other_weights_do_not(tiny):
    for model in (tiny(), tiny(seed=2), tiny(n_layer=1)):
        engine = InferenceEngine(model)
        for params in (GREEDY, FILTERED):
            for _ in range(2):
                sample_ids(engine, params=params, compiled=True)
    assert n_programs() == 4


def test_more_programs_than_pytorchs_limit(tiny):
    engine, eager = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    with torch._dynamo.config.patch(cache_size_limit=2):
        for k in range(1, 5):
            params = SamplingParams(top_k=k)
            expected = sample_ids(eager, params=params)
            assert sample_ids(engine, params=params, compiled=True) == expected
    assert n_programs() == 4 and engine.compile_stats.works


def test_a_failed_compilation_is_one_warning_and_the_ids_are_the_same(tiny, monkeypatch, capsys):
    def fail(graph, inputs):
        raise RuntimeError("no compiler\nin the path")

    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": fail})
    engine, eager = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    for _ in range(2):
        assert sample_ids(engine, compiled=True, stop_id=7) == sample_ids(eager, stop_id=7)
    assert not engine.compile_stats.works
    err = capsys.readouterr().err
    assert err.startswith("warning: torch.compile failed, sampling continues without it: ")
    assert err.count("\n") == 1 and "no compiler" in err


def test_an_error_of_the_program_is_not_mistaken_for_a_compiler_error(tiny, monkeypatch):
    def broken(graph, inputs):
        def run(*args):
            graph(*args)
            raise RuntimeError("out of memory")

        return run

    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": broken})
    engine = InferenceEngine(tiny(double=True))
    with pytest.raises(RuntimeError, match="out of memory"):  # running it again would advance twice
        sample_ids(engine, compiled=True)
    assert engine.compile_stats.works and engine.cached_batch is None


@pytest.mark.parametrize("max_programs", [MAX_PROGRAMS, 4])
def test_a_program_is_compiled_again_within_the_limit(tiny, monkeypatch, capsys, max_programs):
    monkeypatch.setattr("model.sampling.compile.MAX_PROGRAMS", max_programs)
    engine, eager = InferenceEngine(tiny(double=True)), InferenceEngine(tiny(double=True))
    with torch._dynamo.config.patch(cache_size_limit=2):
        for k in range(1, 5):
            params = SamplingParams(top_k=k)
            sample_ids(engine, params=params, compiled=True)
        torch.set_num_threads(2)  # programs compiled for one thread are not reused
        for _ in range(2):
            assert sample_ids(engine, params=params, compiled=True) == sample_ids(
                eager, params=params
            )
    assert engine.compile_stats.works == (max_programs > 4)
    assert ("RecompileLimit" in capsys.readouterr().err) == (max_programs == 4)


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_programs_of_inductor_give_the_same_ids(tiny, kind, n_rows, capsys):
    engine, eager = InferenceEngine(tiny(double=True, **kind)), InferenceEngine(
        tiny(double=True, **kind)
    )
    for params in (GREEDY, FILTERED):
        settings = {"prompts": PROMPTS[:n_rows], "params": params}
        assert sample_ids(engine, compiled=True, **settings) == sample_ids(eager, **settings)
    assert engine.compile_stats.works and capsys.readouterr().err == ""
