"""scripts.bench sample: timed calls of ours and of other projects, and the derived figures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.sampling.generate import DecodeBatch
from model.sampling.inference_weights import count_weights_read
from scripts.bench import __main__ as script
from scripts.bench import sample as bench_sample
from scripts.bench.sample_peers import in_own_process
from utils.errors import UserError

SIZES = {"vocab_size": 11, "n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16}
SMALL = ModelConfig(**SIZES, position="learned", tie_weights=True)
FEW = ["sample", "--shape", "0.8M", "--batch-sizes", "1", "3", "--runs", "2", "--new-tokens", "5"]

NANOGPT = """
import torch
from dataclasses import dataclass


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool


class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config == GPTConfig(16, 11, 1, 2, 8, 0.0, False)
        print("number of parameters: 0.00M")

    def generate(self, ids, n, top_k):
        assert ids.tolist() == [[0]] * len(ids) and top_k == 11 and not self.training
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(bench_sample.SHAPES, "0.8M", SMALL)
    monkeypatch.setattr(bench_sample, "BANDWIDTH_BYTES", 2**20)


def test_figures_are_consistent(printed, tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(NANOGPT, encoding="utf-8")
    state = torch.get_rng_state()
    record, people = printed(script.main, *FEW, "--nanogpt", str(tmp_path), "--json")
    assert torch.equal(torch.get_rng_state(), state)
    assert (record["command"], record["model"], record["new_tokens"]) == ("sample", "0.8M", 5)
    model = TinyGPT(SMALL)
    assert record["weight_bytes"] == 4 * count_weights_read(model)
    assert [batch["samples"] for batch in record["batches"]] == [1, 3]
    for batch in record["batches"]:
        mine, theirs = batch["rows"]
        assert (mine["who"], theirs["who"]) == ("ours", "nanoGPT") and batch["left_out_s"] == {}
        for row in (mine, theirs):
            for name in ("tokens_per_s", "first_s"):
                assert 0 < row[name]["low"] <= row[name]["median"] <= row[name]["high"]
        assert theirs["ratio"]["low"] > 0 and "ratio" not in mine
    assert record["bandwidth_bytes_per_s"]["low"] > 0
    share = record["weight_bytes"] * record["batches"][0]["rows"][0]["tokens_per_s"]["median"]
    share /= record["bandwidth_bytes_per_s"]["median"]
    assert f"{share:.0%} of that bandwidth" in people
    assert "batch 3, run 2/2, nanoGPT:" in people


def test_number_of_weights_read_per_step():
    shape = {"vocab_size": 11, "block_size": 16, "n_layer": 1, "n_head": 1, "n_embd": 4}
    block = 4 * 12 + 4 * 4 + 4 * 16 * 2 + 4 * 2
    for settings, more in (
        ({"position": "learned"}, 0),
        ({"tie_weights": True}, 0),
        ({"bigram_rows": 50}, 0),
        ({"pointer": True}, 3 * 16 + 4 + 1),
    ):
        model = TinyGPT(ModelConfig(**shape, **settings))
        assert count_weights_read(model) == block + 4 + 11 * 4 + more


def test_a_run_is_measured_with_its_own_shape(printed, story_run):
    argv = ["sample", "--run", str(story_run), "--batch-sizes", "1", "--runs", "1"]
    record, _ = printed(script.main, *argv, "--new-tokens", "3", "--json")
    assert record["model"] == str(story_run) and record["new_tokens"] == 3


def test_an_engine_over_the_time_limit_is_left_out(printed, tmp_path):
    (tmp_path / "model.py").write_text(NANOGPT, encoding="utf-8")
    argv = [*FEW, "--nanogpt", str(tmp_path), "--limit-s", "1e-9"]
    record, people = printed(script.main, *argv, "--json")
    for batch in record["batches"]:
        assert [row["who"] for row in batch["rows"]] == ["ours"]
        assert list(batch["left_out_s"]) == ["nanoGPT"]
    assert "left out: about 0 s per call (--limit-s)" in people


def test_compiled_steps_have_a_separate_row(printed, tmp_path, monkeypatch):
    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    (tmp_path / "model.py").write_text(NANOGPT, encoding="utf-8")
    argv = [*FEW, "--compiled", "--nanogpt", str(tmp_path), "--json"]
    record, people = printed(script.main, *argv)
    for batch in record["batches"]:
        eager, compiled, theirs = batch["rows"]
        assert compiled["who"] == "ours, compiled" and compiled["warm_up_s"] > 0
        assert "ratio" not in eager and "ratio" not in compiled
        assert "ratio_compiled" in eager and "ratio_compiled" not in compiled
        assert theirs["ratio"]["low"] > 0 and theirs["ratio_compiled"]["low"] > 0
    assert "eager and compiled" in people and "ratio, compiled" in people
    assert "compilation, not in these times: batch 1 " in people


def test_ours_records_in_the_warm_up_what_is_timed(printed, monkeypatch):
    slots, real = [], DecodeBatch.__init__

    def make(batch, weights, stats, key, *args):
        slots.append(key.cache_size[0])
        real(batch, weights, stats, key, *args)

    monkeypatch.setattr(DecodeBatch, "__init__", make)
    monkeypatch.setattr("model.sampling.generate.supports_cuda_graphs", lambda device: True)
    argv = ["sample", "--shape", "0.8M", "--batch-sizes", "1", "--new-tokens", "7", "--runs", "2"]
    printed(script.main, *argv, "--json")
    assert slots == [
        8,
        2,
        2,
        2,
    ]  # the full-length call is made once and reused; calls of one token need another cache size


def test_a_failing_compiler_has_no_row(printed, monkeypatch):
    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": lambda graph, inputs: 1 / 0})
    record, people = printed(script.main, *FEW, "--compiled", "--json")
    assert [[row["who"] for row in batch["rows"]] for batch in record["batches"]] == [["ours"]] * 2
    assert people.count("warning: torch.compile failed") == 1 and "and compiled" not in people


def test_transformers_has_a_row(printed):
    pytest.importorskip("transformers")
    record, _ = printed(script.main, *FEW, "--hf", "--json")
    assert [row["who"] for row in record["batches"][1]["rows"]] == ["ours", "transformers"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--runs", "0"], "--runs: must be at least 1"),
        (["--limit-s", "0"], "--limit-s: must be above 0"),
        (["--new-tokens", "-1"], "--new-tokens: must be at least 0"),
        (["--batch-sizes", "0"], "--batch-sizes: must be at least 1"),
        (
            ["--nanogpt", "nowhere"],
            "nowhere: not a nanoGPT checkout, it has no model.py; git clone",
        ),
        (["--run", "runs/x"], "give one of --run FOLDER and --shape"),
    ],
)
def test_bad_arguments_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        script.main(["sample", "--shape", "0.8M", *argv])


def test_a_run_or_a_shape_is_required():
    with pytest.raises(UserError, match="give one of --run FOLDER and --shape"):
        script.main(["sample"])


def test_without_transformers_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        script.main([*FEW, "--hf"])


LLAMA_CPP = """
import sys
from types import SimpleNamespace

from gguf import GGUFReader


class CommonParams(SimpleNamespace):
    def __init__(self):
        super().__init__(model=SimpleNamespace(), cpuparams=SimpleNamespace())
        self.cpuparams_batch = SimpleNamespace()


class Server:
    def __init__(self, params):
        self.params = params
        tensors = GGUFReader(params.model.path).tensors
        kinds = {one.name: one.tensor_type.name for one in tensors if "norm" not in one.name}
        assert kinds.pop("position_embd.weight") == "F32"
        self.kinds = {kind for name, kind in kinds.items() if name.endswith("weight")}
        assert (params.n_parallel, params.n_ctx) == (3, 3 * (9 + 5 + 1))

    def handle_completions(self, request):
        prompts = request["prompt"]
        prompts = prompts if isinstance(prompts[0], list) else [prompts]
        assert request["top_k"] == 50 and request["ignore_eos"] and not request["cache_prompt"]
        assert prompts[0] == [0] * len(prompts[0]) and len(prompts[0]) in (1, 9)
        print(len(prompts), len(prompts[0]), request["n_predict"], self.kinds, file=sys.stderr)
        return {"choices": prompts, "usage": {"completion_tokens": request["n_predict"]}}
"""


def test_llama_cpp_has_rows_in_fp32_and_q8_0(capfd, tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setitem(bench_sample.SHAPES, "0.8M", replace(SMALL, n_embd=32))
    (tmp_path / "xllamacpp.py").write_text(LLAMA_CPP, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    script.main([*FEW, "--llama-cpp", "--prompt-tokens", "1", "9", "--json"])
    out, people = capfd.readouterr()  # also of the processes that run llama.cpp
    record = json.loads(out.splitlines()[-1])
    assert "3 9 5 {'F32'}" in people and "1 1 5 {'Q8_0'}" in people
    shapes = [(batch["prompt_tokens"], batch["samples"]) for batch in record["batches"]]
    assert shapes == [(1, 1), (1, 3), (9, 1), (9, 3)]
    for batch in record["batches"]:
        names = [row["who"] for row in batch["rows"]]
        assert names == ["ours", "llama.cpp f32", "llama.cpp q8_0"]
        assert all(row["ratio"]["low"] > 0 for row in batch["rows"][1:])


def make_exit_or_fail(status: int) -> Callable[[list[list[int]], int], None]:
    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        if n_tokens == 0:
            os._exit(status)
        raise UserError(f"in process {os.getpid()}: {prompts}, {n_tokens} tokens")

    return generate


def test_a_sampler_in_its_own_process_tells_its_errors_and_its_end():
    generate = in_own_process(make_exit_or_fail, 1)
    with pytest.raises(UserError, match=r"in process (\d+): \[\[1\]\], 2 tokens") as first:
        generate([[1]], 2)
    assert f"process {os.getpid()}:" not in str(first.value)
    with pytest.raises(UserError) as second:
        generate([[1]], 2)
    assert str(second.value) == str(first.value)  # it goes on
    for _ in range(2):
        with pytest.raises(UserError, match=r"process of make_exit_or_fail has ended"):
            generate([[1]], 0)


def test_a_missing_llama_cpp_is_left_out_with_a_hint(printed, monkeypatch):
    monkeypatch.setattr(bench_sample, "find_spec", lambda name: None)
    record, people = printed(script.main, *FEW, "--llama-cpp", "--json")
    assert [[row["who"] for row in batch["rows"]] for batch in record["batches"]] == [["ours"]] * 2
    assert people.count("without llama.cpp: pip install xllamacpp gguf") == 1


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(UserError, match="--prompt-tokens 16: block_size is 16; give less"):
        script.main([*FEW, "--prompt-tokens", "16"])
