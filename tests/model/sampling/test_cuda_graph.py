"""Steps that a CUDA graph can capture: the same operations on the same tensors, host-free."""

from __future__ import annotations

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.sampling.cuda_graph import WARMUP_CALLS, CudaGraphRunner
from model.sampling.naive import all_logits
from tests.model.sampling.helpers import (
    ONE,
    continued_logits,
    decoder_of,
    kinds,
    positions,
    prompts,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Tape(TorchDispatchMode):
    """Records operations with the identical tensors, as a CUDA graph does, and replays them."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host reads a value"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            several = isinstance(out, (tuple, list))
            for old, new in zip(*((out, again) if several else ([out], [again]))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)  # a graph writes to the same addresses


@kinds
@positions
@prompts
def test_a_replayed_step_gives_the_logits_of_the_model(tiny, kind, position, prompts):
    model = tiny(double=True, position=position, **kind)
    n = 3 * model.config.block_size
    ids_TB = torch.randint(0, 11, (n, len(prompts)))
    expected_BTV = continued_logits(model, prompts, ids_TB)
    with torch.inference_mode():
        decoder = decoder_of(model, prompts, n, static=True)
        if decoder.rope is not None:  # so that it never has to grow
            decoder.rope = decoder._rope_table(99)
        steps, ids_B, tape = [decoder.prefill(prompts)], torch.empty_like(ids_TB[0]), Tape()
        for i, new_B in enumerate(ids_TB):
            ids_B.copy_(new_B)
            decoder.prepare()
            if i == 0:
                with tape:
                    logits_BV = decoder.compute(ids_B)
            else:
                tape.replay()
            steps.append(logits_BV.clone())
    assert (torch.stack(steps, dim=1) - expected_BTV).abs().max() < 1e-9


def test_a_replayed_step_of_a_growing_cache_is_wrong(tiny):
    # Proves that the test above can fail: here the host decides the slot.
    model = tiny(double=True)
    with torch.inference_mode():
        decoder, tape = decoder_of(model, ONE, 9), Tape()
        decoder.prefill(ONE)
        ids_B = torch.tensor([3])
        decoder.prepare()
        with tape:
            logits_BV = decoder.compute(ids_B)
        before_BV = logits_BV.clone()
        decoder.prepare()
        tape.replay()
    expected = all_logits(model, [5, 3, 3])
    assert torch.allclose(before_BV[0], expected[1])
    assert not torch.allclose(logits_BV[0], expected[2])


def test_on_a_cpu_every_call_runs_the_function():
    calls, run = [], CudaGraphRunner(CPU)
    for _ in range(9):
        run(lambda: calls.append(1))
    assert len(calls) == 9


class FakeGraph:
    """Replaces torch.cuda.CUDAGraph, which needs a GPU."""

    n_replays = 0

    def replay(self):
        FakeGraph.n_replays += 1


def test_the_function_is_captured_after_a_few_calls_and_again_after_a_reset(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(FakeGraph, "n_replays", 0)
    calls, run = [], CudaGraphRunner(CUDA)
    for n_calls in range(1, 8):
        run(lambda: calls.append(1))
        captured = n_calls > WARMUP_CALLS
        assert len(calls) == min(n_calls, WARMUP_CALLS + 1)
        assert FakeGraph.n_replays == (n_calls - WARMUP_CALLS if captured else 0)
    run.reset()
    run(lambda: calls.append(1))
    assert len(calls) == WARMUP_CALLS + 2 and FakeGraph.n_replays == 7 - WARMUP_CALLS


def test_a_failed_capture_is_one_warning_and_the_function_runs(monkeypatch, capsys):
    def fail(graph):
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fail)
    calls, run = [], CudaGraphRunner(CUDA)
    for _ in range(9):
        run(lambda: calls.append(1))
    assert len(calls) == 9
    run.reset()
    assert capsys.readouterr().err == (
        "warning: no CUDA graph, sampling is slower: operation not permitted\n"
    )
