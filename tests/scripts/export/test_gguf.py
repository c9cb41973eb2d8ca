"""GGUF files in llama.cpp: log-probabilities and token ids equal ours."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams
from scripts.export import gguf as gguf_file
from scripts.export.hf_config import hf_model_type
from tests.helpers.hf import COMBINATIONS, GROUPED, config_of, make_model, name_of
from tests.helpers.hostile import hostile_strings
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

ORACLE = "oracle: not installed (pip install gguf)"
EXTRA = "extra: not installed (pip install xllamacpp)"
# Largest difference of a log-probability. llama.cpp computes GELU from a table in fp16.
TOLERANCE = {"gpt2": 5e-3, "gpt_neox": 5e-3, "llama": 1e-4, "qwen3": 1e-4}
N_POSITIONS = 5


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train([make_text(50), "année 年 🙂"], vocab_size=300)


def supported() -> list[dict[str, Any]]:
    """Return the combinations of settings that llama.cpp supports."""
    return [
        one
        for one in COMBINATIONS
        if hf_model_type(config_of(one)) in gguf_file.ARCHITECTURES and one["mlp"] != "relu2"
    ]


def serve(path: Path) -> Any:
    """Return a llama.cpp server in this process, on a local port."""
    llama = pytest.importorskip("xllamacpp", reason=EXTRA)
    params = llama.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 24, 1, False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # fp32 instead of llama.cpp's default, a KV cache in fp16.
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.Server(params)


def post(server: Any, path: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the server's answer to a JSON request."""
    body = json.dumps(content).encode()
    request = urllib.request.Request(f"{server.listening_address}/{path}", body)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def write(folder: Path, model: TinyGPT, tokenizer: BPETokenizer) -> Path:
    pytest.importorskip("gguf", reason=ORACLE)
    path = folder / gguf_file.FILE_NAME
    kind = gguf_file.write_gguf(path, model, tokenizer, "tiny")
    assert kind == gguf_file.ARCHITECTURES[hf_model_type(model.config)]
    return path


@pytest.mark.slow
@pytest.mark.parametrize("settings", supported(), ids=name_of)
def test_llama_cpp_computes_the_same(settings, tokenizer, tmp_path):
    model = make_model(config_of(settings))
    server = serve(write(tmp_path, model, tokenizer))
    # llama.cpp reports a token only if its bytes are whole characters. The logit bias makes it
    # sample such a token and does not affect the reported log-probabilities.
    request = {"n_predict": 1, "logprobs": 300, "samplers": [], "cache_prompt": False}
    request["logit_bias"] = [[ord("a"), 1e6]]
    ids_T = torch.randint(299, (20,), generator=torch.Generator().manual_seed(3))
    for n in torch.linspace(1, 20, N_POSITIONS).int().tolist():
        answer = server.handle_completions(request | {"prompt": ids_T[:n].tolist()})
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        logprobs_V = torch.empty(300)
        assert len(found) == 300
        for one in found:
            logprobs_V[one["id"]] = one["logprob"]
        with torch.no_grad():
            expected_V = model(ids_T[None, :n])[0, -1].log_softmax(-1)
        difference = (logprobs_V - expected_V).abs().max()
        assert difference <= TOLERANCE[hf_model_type(model.config)]
        assert logprobs_V.argmax() == expected_V.argmax()


@pytest.mark.slow
@pytest.mark.parametrize("settings", GROUPED[:-1], ids=name_of)
def test_llama_cpp_generates_the_same_text(settings, tokenizer, tmp_path):
    """Greedy, with a cache on both sides, for grouped-query attention."""
    model = make_model(config_of(settings))
    server = serve(write(tmp_path, model, tokenizer))
    prompt = [5, 9, 200, 7]
    settings = {"n_predict": 16, "samplers": ["top_k"], "top_k": 1, "return_tokens": True}
    found = post(server, "completion", settings | {"prompt": prompt})["tokens"]
    greedy = SamplingParams(temperature=0.0)
    stop = {"max_new_tokens": 16, "stop_id": tokenizer.eot_id}
    (expected,) = generate_ids(model, [prompt], seeds=[1], params=greedy, **stop)
    assert found == expected


# Where llama.cpp differs: letters and digits that are new in Unicode 16 (it has the classes of 15),
# and with cl100k the contraction 's with a long s, which it compares without case folding.
NEW_IN_UNICODE_16 = (
    "\u1c89-\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc\U000105c0-\U000105f3\U00010d40-\U00010d85\U00010ec2-\U00010ec4"
    "\U00011380-\U000113d3\U000116d0-\U000116e3\U00011bc0-\U00011bf9\U00013460-\U000143fa\U00016100-\U00016139"
    "\U00016d40-\U00016d79\U00018cff\U0001ccf0-\U0001ccf9\U0001e5d0-\U0001e5fa"
)
DIFFERENT = {"gpt2": f"[{NEW_IN_UNICODE_16}]", "cl100k": f"'\u017f|[{NEW_IN_UNICODE_16}]"}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", DIFFERENT)
def test_llama_cpp_gives_the_same_ids(pattern, tmp_path):
    """With merges learned on the hostile strings themselves, so that each boundary matters."""
    texts = hostile_strings(1500)
    learned = BPETokenizer.train(texts, vocab_size=1500, pattern=pattern)
    config = replace(config_of(supported()[0]), vocab_size=learned.vocab_size)
    server = serve(write(tmp_path, make_model(config), learned))
    compared = [text for text in texts if not re.search(DIFFERENT[pattern], text)]
    assert len(compared) > 1400
    for text in compared:
        ids = post(server, "tokenize", {"content": text, "parse_special": True})["tokens"]
        assert ids == learned.encode(text, allowed_special=True), repr(text)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", DIFFERENT)
def test_llama_cpp_has_the_same_class_for_each_character(pattern, tmp_path):
    """Merges of every byte with a letter, a digit and a sign make the class of a character show."""
    pairs = [(byte, other) for byte in range(256) for other in b"a1!" if byte != other]
    classes = BPETokenizer([*pairs, *((other, other) for other in b"a1!")], pattern=pattern)
    config = replace(config_of(supported()[0]), vocab_size=classes.vocab_size)
    server = serve(write(tmp_path, make_model(config), classes))
    characters = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xF900]
    characters = [one for one in characters if not re.match(DIFFERENT[pattern], one)]
    for start in range(0, len(characters), 2048):
        chosen = characters[start : start + 2048]
        text = "x".join(f"{c}a {c}1 {c}! a{c}a 1{c}1 !{c}! \n{c}\n '{c}a" for c in chosen)
        ids = post(server, "tokenize", {"content": text})["tokens"]
        assert ids == classes.encode(text), f"U+{ord(chosen[0]):04X} and the next 2047"


def test_the_name_of_the_split_pattern_is_in_the_file(tmp_path):
    gguf = pytest.importorskip("gguf", reason=ORACLE)
    for pattern, name in {"gpt2": "gpt-2", "cl100k": "dbrx"}.items():
        learned = BPETokenizer.train([make_text(50)], vocab_size=300, pattern=pattern)
        reader = gguf.GGUFReader(write(tmp_path, make_model(config_of(supported()[0])), learned))
        assert reader.fields["tokenizer.ggml.pre"].contents() == name


def test_the_file_holds_what_it_should(tokenizer, tmp_path):
    """Reads the file with the library's own reader, as the cheap alternative to llama.cpp."""
    gguf = pytest.importorskip("gguf", reason=ORACLE)
    settings = next(one for one in supported() if hf_model_type(config_of(one)) == "llama")
    model = make_model(config_of(settings))
    reader = gguf.GGUFReader(write(tmp_path, model, tokenizer))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["llama.context_length"] == 24 and fields["llama.rope.freq_base"] == 500.0
    assert fields["llama.feed_forward_length"] == model.config.mlp_width
    assert fields["tokenizer.ggml.tokens"][tokenizer.eot_id] == "<|endoftext|>"
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eot_id
    assert len(fields["tokenizer.ggml.merges"]) == len(tokenizer.merges)
    tensors = {one.name: torch.tensor(one.data) for one in reader.tensors}
    qkv = model.state_dict()["blocks.1.attn.qkv.weight"]
    assert torch.equal(tensors["blk.1.attn_v.weight"], qkv[32:])
    q = tensors["blk.1.attn_q.weight"]  # heads of 8: RoPE rotates rows 0 and 4 as a pair
    assert torch.equal(q[:4], qkv[[0, 4, 1, 5]]) and torch.equal(q[8:10], qkv[[8, 12]])


@pytest.mark.parametrize(
    ("change", "pattern", "message"),
    [
        ({"mlp": "relu2"}, "gpt2", "model.mlp relu2: llama.cpp's gptneox computes GELU"),
        ({"pointer": True}, "gpt2", "model.pointer true: no Hugging Face class supports it"),
        (
            {"norm": "rmsnorm", "norm_gain": False, "embedding_norm": True, "qk_norm": True},
            "gpt2",
            "llama.cpp has no NanoChatForCausalLM with these settings; export --to hf",
        ),
    ],
)
def test_what_llama_cpp_cannot_run_is_refused(change, pattern, message):

    tokenizer = BPETokenizer([(97, 98)], pattern=pattern)
    with pytest.raises(UserError) as caught:
        gguf_file.gguf_kind(ModelConfig(**change), tokenizer)
    assert message in str(caught.value)
