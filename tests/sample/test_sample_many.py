"""sample.py with several prompts and samples, as text and as lines of JSON."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
import types

import pytest
import torch

import sample
from model.config import ModelConfig
from sample import load_run
from utils.errors import UserError


@pytest.fixture
def records(text):
    """records("--seed", "2", ...): the JSON object of each sample."""
    return lambda *argv: [json.loads(line) for line in text("--json", *argv).splitlines()]


def test_samples_of_a_prompt_do_not_depend_on_other_prompts(text, tmp_path):
    argv = ["--steps", "20", "--num-samples", "2"]
    prompts = ["the cat", "", "a", "Grüße 世界 🙂 and old Anna until night came"]
    alone = [text("--prompt", prompt, *argv) for prompt in prompts]
    given = [word for prompt in prompts for word in ("--prompt", prompt)]
    assert text(*given, *argv) == "\n".join(alone)


def test_several_batches_give_the_same_samples_as_one(text, monkeypatch):
    argv = ["--steps", "10", "--num-samples", "5", "--prompt", "a", "--prompt", "the"]
    expected = text(*argv)
    monkeypatch.setattr(sample, "MAX_BATCH", 3)
    assert text(*argv) == expected
    monkeypatch.setattr(sample, "MAX_CACHE_BYTES", 1)
    assert text(*argv) == expected


def test_the_batch_fits_the_cache_limit():
    assert sample.batch_size_for(ModelConfig(n_layer=2, block_size=256, n_embd=128, n_head=4)) == 64
    gpt2 = ModelConfig(n_layer=12, block_size=1024, n_embd=768, n_head=12)
    assert sample.batch_size_for(gpt2) == 2**30 // (2 * 12 * 1024 * 768 * 4) == 14


def test_prompts_from_a_file(text, tmp_path, monkeypatch):
    path, argv = tmp_path / "prompts.txt", ["--steps", "8"]
    path.write_bytes("the cat\r\n\nGrüße 🙂\n".encode())
    expected = text("--prompt", "first", "--prompt", "the cat", "--prompt", "Grüße 🙂", *argv)
    assert text("--prompt", "first", "--prompt-file", str(path), *argv) == expected
    path.write_bytes("the cat%Grüße 🙂".encode())
    file = ["--prompt", "first", "--prompt-file", str(path)]
    assert text(*file, "--prompt-sep", "%", *argv) == expected
    path.write_text("one\ntwo\n\nthree\n", encoding="utf-8")
    blocks = text("--prompt-file", str(path), "--prompt-sep", "blank-line", *argv)
    assert blocks == text("--prompt", "one\ntwo", "--prompt", "three", *argv)
    stdin = types.SimpleNamespace(buffer=io.BytesIO("the cat\nGrüße 🙂".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert text("--prompt", "first", "--prompt-file", "-", *argv) == expected


@pytest.mark.parametrize(
    "raw, message",
    [(b"", "no prompt in it"), (b"\n\n", "no prompt in it"), (None, "No such file")]
    + [(b"a\nb\xff", "p.txt: not UTF-8 at byte 3 .*; convert it to UTF-8$")],
)
def test_a_bad_prompt_file_is_refused(run, tmp_path, monkeypatch, raw, message):
    if raw is not None:
        (tmp_path / "p.txt").write_bytes(raw)
    monkeypatch.setattr(sample, "load_run", None)  # not called: prompts are read before the model
    with pytest.raises(UserError, match=message):
        sample.main(["--run", str(run), "--prompt-file", str(tmp_path / "p.txt")])


def test_a_long_prompt_takes_little_memory(run, capsys):
    loaded, n = load_run(run), 8_000_000
    cut = loaded.model.config.block_size
    for n_ids in (cut - 2, cut - 1, cut, cut + 1):
        prompt = loaded.tokenizer.decode([98] * n_ids)
        assert (
            sample.encode_prompt(loaded, prompt) == [loaded.tokenizer.eot_id, *[98] * n_ids][-cut:]
        )
    tracemalloc.start()
    sample.encode_prompt(loaded, "b" * n)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 14 * n, "a list of ids takes 16 bytes for each id"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"warning: the prompt has {cut + 1} tokens, only its last {cut} are read"
    assert len(lines) == 2


def test_too_many_prompts_are_refused(text, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "MAX_PROMPTS", 2)
    (tmp_path / "p.txt").write_bytes(b"a\nb\n")
    assert text("--prompt-file", str(tmp_path / "p.txt"), "--steps", "1")
    (tmp_path / "p.txt").write_bytes(b"a\nb\n\nc")
    with pytest.raises(UserError, match="p.txt: more than 2 prompts; split the file"):
        text("--prompt-file", str(tmp_path / "p.txt"))


def test_stop_strings_and_tokens_accept_newlines(run, records):
    argv = ["--steps", "900", "--seed", "2"]
    (free,) = records(*argv, "--stop-token", "")
    newline = load_run(run).tokenizer.encode("\n")[0]
    end = free["ids"].index(newline)
    (by_text,) = records(*argv, "--stop-token", "", "--stop", r"\n")
    (by_token,) = records(*argv, "--stop-token", r"\n")
    assert by_token["ids"] == by_text["ids"] == free["ids"][: end + 1]
    assert by_token["text"] == by_text["text"] == free["text"].split("\n")[0]
    assert (by_token["ended"], by_text["ended"]) == ("stop-token", "stop")


def test_without_a_stop_token_the_text_continues(run, records):
    end = load_run(run).tokenizer.eot_id
    seed, record = next(
        (seed, record)
        for seed in range(99)
        for record in records("--steps", "60", "--seed", str(seed))
        if record["ended"] == "stop-token"
    )
    (longer,) = records("--steps", "60", "--seed", str(seed), "--stop-token", "")
    assert record["ids"][-1] == end and len(longer["ids"]) == 60 and longer["ended"] == "steps"
    assert longer["text"].startswith(record["text"] + "<|endoftext|>")


def test_json_has_all_figures_of_every_sample(run, records):
    found = records("--prompt", "the", "--prompt", "世", "--num-samples", "2", "--steps", "20")
    assert [(one["prompt"], one["sample"]) for one in found] == [
        ("the", 0), ("the", 1), ("世", 0), ("世", 1),
    ]  # fmt: skip
    loaded = load_run(run)
    for one in found:
        ids = [i for i in one["ids"] if i != loaded.tokenizer.eot_id]
        assert one["text"] == loaded.tokenizer.decode(ids)
        prompt = [loaded.tokenizer.eot_id, *loaded.tokenizer.encode(one["prompt"])]
        whole_ids = torch.tensor([[*prompt, *one["ids"]]])[:, : loaded.model.config.block_size]
        with torch.inference_mode():
            logprobs = loaded.model(whole_ids[:, :-1])[0].double().log_softmax(-1)
        picked = logprobs.gather(1, whole_ids[0, 1:, None])[len(prompt) - 1 :, 0]
        assert one["logprobs"][: len(picked)] == pytest.approx(picked.tolist(), abs=1e-4)
