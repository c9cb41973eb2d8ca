"""The model with a KV cache gives the results of the model without one."""

from __future__ import annotations

import pytest
import torch

from model.sampling.generate import InferenceEngine, generate
from model.sampling.inference_weights import PACKING_THRESHOLD, count_weights_read
from model.sampling.matmul import default_attention, default_matmul
from model.sampling.naive import all_logits
from model.sampling.sampler import SamplingParams, sample_seeds
from tests.model.sampling.helpers import (
    EIGHT,
    ONE,
    continued_logits,
    decoder_of,
    kinds,
    positions,
    prompts,
)


@kinds
@positions
@prompts
def test_greedy_ids_equal_those_without_a_cache(tiny, kind, position, prompts):
    model = tiny(double=True, position=position, **kind)
    n = 3 * model.config.block_size
    settings = {"seeds": range(len(prompts)), "max_new_tokens": n, "params": SamplingParams(0)}
    steps = list(generate(model, prompts, **settings))
    assert len(steps) == n
    for row, prompt in enumerate(prompts):
        ids = [step.ids[row] for step in steps]
        # Each token is the most likely one after those before it: by induction all ids are right.
        logits_TV = all_logits(model, [*prompt, *ids])[len(prompt) - 1 : -1]
        assert ids == logits_TV.argmax(-1).tolist()
        logprobs = torch.tensor([step.logprobs[row] for step in steps], dtype=torch.float64)
        assert (logits_TV.log_softmax(-1).amax(-1) - logprobs).abs().max() < 1e-9


@kinds
@positions
@prompts
@pytest.mark.parametrize("form", ["", "static", "as on a GPU", "packed"])
def test_logits_equal_those_without_a_cache(tiny, kind, position, prompts, form, monkeypatch):
    if form == "packed":
        monkeypatch.setattr("model.sampling.inference_weights.PACKING_THRESHOLD", 0)
    if form == "as on a GPU":
        monkeypatch.setattr("model.sampling.matmul.batch_invariant_matmul", default_matmul)
        monkeypatch.setattr("model.sampling.matmul.batch_invariant_attention", default_attention)
    for double, atol in ((True, 1e-9), (False, 1e-4)):
        model = tiny(double=double, position=position, **kind)
        n = 3 * model.config.block_size
        new_TB = torch.randint(0, 11, (n, len(prompts)))
        expected_BTV = continued_logits(model, prompts, new_TB)
        with torch.inference_mode():
            decoder = decoder_of(model, prompts, n, static=form in ("static", "as on a GPU"))
            steps = [decoder.prefill(prompts), *map(decoder.step, new_TB)]
        found_BTV = torch.stack(steps, dim=1)
        assert (found_BTV - expected_BTV).abs().max() < atol


@positions
@pytest.mark.parametrize("n_embd", [20, 128])  # with 20, no matrix has rows of full vectors
@pytest.mark.parametrize("kind", [{}, {"mlp": "gelu_tanh", "softcap": 5.0}, {"mlp": "swiglu"}])
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="MKL's order of addition")
def test_no_bit_depends_on_the_other_samples(tiny, position, n_embd, kind):
    check_bits(tiny, position, n_embd, kind)


@positions
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="oneDNN's order of addition")
def test_no_bit_of_a_large_model_depends_on_the_other_samples(tiny, position):
    check_bits(tiny, position, 544, {"softcap": 5.0, "block_size": 40})


@positions
def test_no_bit_depends_on_the_thread_that_computes_it(tiny, position):
    torch.set_num_threads(2)
    check_bits(tiny, position, 128, {"n_head": 4, "block_size": 40})


def check_bits(tiny, position, n_embd, kind):
    settings = {"pointer": True, "bigram_rows": 64, "qk_norm": True, "bias": True, "n_embd": n_embd}
    model = tiny(position=position, **{"block_size": 16, **settings, **kind})
    prompt = [i % 11 for i in range(model.config.block_size - 13)]
    assert (count_weights_read(model) > PACKING_THRESHOLD) == (n_embd == 544)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.3)  # otherwise so wide a model would always sample the same id
    columns, engine = {}, InferenceEngine(model)
    for n in (1, 2, 3, 8, 16, 37):
        steps = generate(
            model, [prompt] * n, seeds=sample_seeds(1, n), max_new_tokens=20, engine=engine
        )
        columns[n] = [[step.ids[:1], step.logprobs[:1]] for step in steps]
    assert all(column == columns[37] for column in columns.values())
    assert len({str(ids) for ids, _ in columns[1]}) > 3


@positions
@pytest.mark.parametrize("block_size", [1, 2, 3, 7])
@pytest.mark.parametrize("static", [False, True], ids=["", "static"])
def test_very_short_contexts(tiny, position, block_size, static):
    model = tiny(double=True, position=position, block_size=block_size, pointer=True, bigram_rows=9)
    prompts = [[5], [1, 2, 3, 4, 5, 6, 7][:block_size]]
    ids_TB = torch.randint(0, 11, (12, 2))
    with torch.inference_mode():
        decoder = decoder_of(model, prompts, 12, static=static)
        found = torch.stack([decoder.prefill(prompts), *map(decoder.step, ids_TB)], dim=1)
    for row, prompt in enumerate(prompts):
        expected = all_logits(model, [*prompt, *ids_TB[:, row].tolist()])[len(prompt) - 1 :]
        assert (found[row] - expected).abs().max() < 1e-9


@positions
@pytest.mark.parametrize("static", [False, True], ids=["", "static"])
def test_slots_that_are_never_filled(tiny, position, static, monkeypatch):
    # Uninitialised memory in its worst case.
    monkeypatch.setattr("model.sampling.generate.supports_cuda_graphs", lambda device: static)
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *shape: self.new_full(shape, torch.nan)
    )
    model = tiny(double=True, position=position, pointer=True, bias=True)
    for several in (ONE, EIGHT):
        steps = list(generate(model, several, seeds=range(len(several)), max_new_tokens=20))
        for row, prompt in enumerate(several):
            ids = [step.ids[row] for step in steps]
            logprobs_TV = all_logits(model, [*prompt, *ids])[len(prompt) - 1 : -1].log_softmax(-1)
            expected = logprobs_TV.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
            assert [step.logprobs[row] for step in steps] == pytest.approx(expected, abs=1e-9)
