"""Tests that need a GPU, skipped without one. `make gpu-check` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import train
from model.config import ModelConfig
from model.gpt import TinyGPT
from model.sampling.generate import InferenceEngine, generate_ids
from model.sampling.sampler import SamplingParams, sample_seeds
from model.training.trainer import Trainer
from tests.helpers.runs import build, make_corpus, step
from utils.distributed import Distributed
from utils.run import checkpoint

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    return make_corpus(tmp_path) | {"model.dropout": 0.0, "optim.lr": 0.01}


def losses(one: Trainer, steps: int) -> list[float]:
    return [step(one)["train_loss"] for _ in range(steps)]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_gpu_losses_equal_cpu_losses(name, settings, tmp_path):
    settings |= {"train.amp": "off"} | ({"optim.name": name} if name == "muon" else {})
    cpu = build(tmp_path / "a", settings, train__device="cpu")
    cuda = build(tmp_path / "b", settings, train__device="cuda")
    # On a GPU Muon orthogonalises in bf16.
    assert losses(cuda, 10) == pytest.approx(losses(cpu, 10), rel=1e-3 if name == "adamw" else 0.05)


def test_steps_do_not_synchronize_and_batches_are_on_the_gpu(settings, tmp_path):
    one = build(tmp_path, settings, train__device="cuda", train__amp="bf16")
    one.train_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            one.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert one.batches.training_batch(0)[0].x_BT.is_cuda
    assert one.flush_metrics()["train_loss"] > 0


def test_a_resumed_run_repeats_the_same_losses(settings, tmp_path):
    one = build(tmp_path, settings, train__device="cuda")
    losses(one, 3)
    checkpoint.save(tmp_path / "x.pt", one.state())
    other, _ = train.build_trainer(one.config, one.run, checkpoint.load(tmp_path / "x.pt"))
    assert losses(other, 3) == losses(one, 3)


def test_compiled_and_eager_losses_agree_in_bf16(settings, tmp_path):
    eager = build(tmp_path / "a", settings, train__device="cuda", train__amp="bf16")
    compiled = build(
        tmp_path / "b", settings, train__device="cuda", train__amp="bf16", train__compile=True
    )
    assert compiled.compiled, "torch.compile does not work here"
    assert losses(compiled, 10) == pytest.approx(losses(eager, 10), rel=0.02)


def test_an_evaluation_on_the_gpu_equals_the_cpus(settings, tmp_path):
    cpu = build(tmp_path / "a", settings, train__device="cpu", train__amp="off").evaluate()
    cuda = build(tmp_path / "b", settings, train__device="cuda", train__amp="off").evaluate()
    assert (cpu.tokens, cpu.bytes) == (cuda.tokens, cuda.bytes)
    assert cuda.nats == pytest.approx(cpu.nats, rel=1e-5)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[torch.cuda.CUDAGraph]:
    """A list that receives the CUDA graph of every replayed step."""
    graphs, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (graphs.append(self), replay(self))
    )
    return graphs


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_cuda_graphs_sample_the_same_ids_as_the_cpu(position, replayed, capsys):
    config = ModelConfig(
        vocab_size=300, block_size=16, n_layer=2, n_head=2, n_embd=32, position=position,
        pointer=True, bigram_rows=64,
    )  # fmt: skip
    torch.manual_seed(1)
    model = TinyGPT(config).double().eval()
    prompts = [[1, 2, 3], [4], [5] * 16, [1, 2, 3]]
    for params in (SamplingParams(0), SamplingParams(0.9, 20, 0.9, 0.01, 1.2)):
        settings = {"seeds": sample_seeds(1, 4), "max_new_tokens": 50, "params": params}
        cpu = generate_ids(model.cpu(), prompts, stop_id=7, **settings)
        replayed.clear()
        cuda = generate_ids(model.cuda(), prompts, stop_id=7, **settings)
        assert cuda == cpu
        assert len(replayed) > 30
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("compiled", [False, True])
def test_a_cuda_graph_is_reused_eager_and_compiled(compiled, replayed, capsys):
    torch.manual_seed(1)
    config = ModelConfig(vocab_size=65, block_size=32, n_head=2, n_embd=32, position="learned")
    model = TinyGPT(config).double().eval()
    calls = [[[1]], [[2, 3]], [[4, 5, 6]] * 3, [[7], [8, 9, 10], [11]]]
    settings = {"max_new_tokens": 28, "params": SamplingParams(top_k=20)}
    cpu = [generate_ids(model, c, seeds=sample_seeds(1, len(c)), **settings) for c in calls]
    engine, graphs = InferenceEngine(model.cuda()), []
    for prompts, wanted in zip(calls, cpu, strict=True):
        seeds = sample_seeds(1, len(prompts))
        found = generate_ids(
            model, prompts, seeds=seeds, engine=engine, compiled=compiled, **settings
        )
        assert found == wanted
        graphs.append(replayed[-1])
    assert engine.compile_stats.works and capsys.readouterr().err == ""
    if compiled:  # the cache sizes are powers of two
        assert graphs[0] is graphs[1]
    assert graphs[2] is graphs[3] and graphs[1] is not graphs[2]


def test_a_replayed_step_does_not_synchronize():
    torch.manual_seed(1)
    model = TinyGPT(ModelConfig(vocab_size=300, block_size=64)).cuda().eval()
    with torch.inference_mode():
        params = SamplingParams(top_k=50, top_p=0.9)
        engine = InferenceEngine(model)
        batch = engine.acquire_batch([[1, 2], [3]], [1, 2], 50, params)
        sampled = [batch.step() for _ in range(5)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            sampled += [batch.step() for _ in range(20)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(token is not None for one in sampled for token in one.wait(2, set()).ids)


def test_all_reduce_of_gradients_on_the_gpu():
    """A group of one process, where sums equal the inputs: NCCL and gloo work in one group."""
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        one = Distributed(size=2)  # with size 1 it would not communicate
        weight = torch.nn.Parameter(torch.zeros(2, 3, device="cuda"))
        weight.grad = torch.arange(6.0, device="cuda").view(2, 3)
        assert one.all_reduce_gradients([weight], torch.tensor(3.0, device="cuda")).item() == 3.0
        assert weight.grad.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert one.all_reduce_max(4, -1) == [4, -1] and one.all_reduce_sum((0.5, 2)) == [0.5, 2.0]
        one.check_weights_in_sync([weight])
    finally:
        dist.destroy_process_group()
