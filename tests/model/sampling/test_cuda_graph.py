"""Steps that a GPU could record: the same operations on the same tensors, without the host."""

from __future__ import annotations

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.sampling.cuda_graph import CALLS_BEFORE, CudaGraphRunner
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
    """Records operations with their very tensors, as a CUDA graph does, and plays them again."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for a number"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            several = isinstance(out, (tuple, list))
            for old, new in zip(*((out, again) if several else ([out], [again]))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)  # a graph writes where it wrote before


@kinds
@positions
@prompts
def test_a_step_that_is_played_again_is_that_of_the_model(tiny, kind, position, prompts):
    model = tiny(double=True, position=position, **kind)
    n = 3 * model.config.block_size
    ids_NB = torch.randint(0, 11, (n, len(prompts)))
    wanted_BNV = continued_logits(model, prompts, ids_NB)
    with torch.inference_mode():
        decoder = decoder_of(model, prompts, n, fixed=True)
        if decoder.rope is not None:  # so that no larger one takes its place
            decoder.rope = decoder._rope_table(99)
        steps, ids_B, tape = [decoder.prefill(prompts)], torch.empty_like(ids_NB[0]), Tape()
        for place, more_B in enumerate(ids_NB):
            ids_B.copy_(more_B)
            decoder.prepare()
            if place == 0:
                with tape:
                    logits_BV = decoder.compute(ids_B)
            else:
                tape.play()
            steps.append(logits_BV.clone())
    assert (torch.stack(steps, dim=1) - wanted_BNV).abs().max() < 1e-9


def test_a_step_of_other_shapes_is_not_the_same_each_time(tiny):
    # What the test above would see if a step asked the host where it stands.
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
        tape.play()
    wanted = all_logits(model, [5, 3, 3])
    assert torch.allclose(before_BV[0], wanted[1])
    assert not torch.allclose(logits_BV[0], wanted[2])


def test_on_a_cpu_work_is_done_as_it_is_written():
    done, work = [], CudaGraphRunner(CPU)
    for _ in range(9):
        work(lambda: done.append(1))
    assert len(done) == 9


class FakeGraph:
    """Stands for torch.cuda.CUDAGraph, which needs a GPU."""

    played = 0

    def replay(self):
        FakeGraph.played += 1


def test_work_is_recorded_after_a_few_calls_and_anew_when_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(FakeGraph, "played", 0)
    done, work = [], CudaGraphRunner(CUDA)
    for n_calls in range(1, 8):
        work(lambda: done.append(1))
        recorded = n_calls > CALLS_BEFORE
        assert len(done) == min(n_calls, CALLS_BEFORE + 1)
        assert FakeGraph.played == (n_calls - CALLS_BEFORE if recorded else 0)
    work.forget()
    work(lambda: done.append(1))
    assert len(done) == CALLS_BEFORE + 2 and FakeGraph.played == 7 - CALLS_BEFORE


def test_where_recording_fails_work_goes_on_with_one_line(monkeypatch, capsys):
    def fail(graph):
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fail)
    done, work = [], CudaGraphRunner(CUDA)
    for _ in range(9):
        work(lambda: done.append(1))
    assert len(done) == 9
    work.forget()
    assert capsys.readouterr().err == (
        "warning: no CUDA graph, sampling is slower: operation not permitted\n"
    )
