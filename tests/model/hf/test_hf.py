"""Round trips of settings and weights, for any sizes; they need no library besides torch."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import ModelConfig
from model.flops import count_parameters
from model.gpt import TinyGPT
from model.hf.config import from_hf
from model.hf.weights import from_hf_weights
from scripts.export.hf_config import SUPPORTED_VALUES, hf_model_type, to_hf
from scripts.export.hf_weights import to_hf_weights
from utils.errors import UserError

kinds = st.sampled_from(sorted(SUPPORTED_VALUES))


@st.composite
def configs(draw):
    """A config of any sizes that some class supports."""
    supported = SUPPORTED_VALUES[draw(kinds)]
    chosen = {name: draw(st.sampled_from(values)) for name, values in supported.items()}
    n_head, half = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    chosen.setdefault("bias", draw(st.booleans()))
    if "n_kv_head" not in chosen:
        divisors = [n for n in range(1, n_head) if n_head % n == 0]
        chosen["n_kv_head"] = draw(st.sampled_from([0, *divisors]))
        chosen["head_size"] = draw(st.sampled_from([0, 2 * half + 2]))
    if not chosen["bias"] or chosen["norm"] == "rmsnorm":
        chosen.setdefault("norm_gain", draw(st.booleans()))
    return ModelConfig(
        vocab_size=draw(st.integers(2, 20)),
        block_size=draw(st.integers(1, 9)),
        n_layer=draw(st.integers(1, 3)),
        n_head=n_head,
        n_embd=2 * half * n_head,
        mlp_ratio=draw(st.floats(0.3, 6)),
        norm_eps=draw(st.floats(1e-8, 1e-2)),
        rope_theta=draw(st.floats(2, 1e6)) if chosen["position"] == "rope" else 10000.0,
        tie_weights=draw(st.booleans()),
        **chosen,
    )


@settings(max_examples=40)
@given(configs())
def test_settings_survive_a_round_trip_through_json(config):
    back = from_hf(json.loads(json.dumps(to_hf(config))))
    kind = hf_model_type(config)
    assert hf_model_type(back) == kind and back.mlp_width == config.mlp_width
    complete = {"norm_gain": kind != "nanochat", "bias": config.bias or kind == "gpt2"}
    assert back == replace(config, **complete, mlp_ratio=back.mlp_ratio)


@settings(max_examples=40)
@given(configs())
def test_weights_survive_a_round_trip_bit_for_bit(config):
    with torch.random.fork_rng(devices=[]):
        weights = TinyGPT(config).state_dict()
    kind = hf_model_type(config)
    theirs = to_hf_weights(kind, config, weights)
    back = from_hf_weights(kind, from_hf(to_hf(config)), theirs)
    for name, weight in back.items():
        filled = torch.ones_like if name.endswith("weight") else torch.zeros_like
        assert torch.equal(weight, weights.get(name, filled(weight)))
    assert back.keys() >= weights.keys()
    exported = to_hf_weights(kind, from_hf(to_hf(config)), back)
    assert exported.keys() == theirs.keys()
    assert all(torch.equal(exported[name], theirs[name]) for name in theirs)
    storages = [one.untyped_storage().data_ptr() for one in theirs.values()]
    assert len(storages) == len(set(storages)), "safetensors refuses shared tensors"


# config.json of published models: the keys that determine the model.
SMOLLM2_135M = {
    "model_type": "llama", "attention_bias": False, "hidden_act": "silu", "hidden_size": 576,
    "intermediate_size": 1536, "max_position_embeddings": 8192, "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
    "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "vocab_size": 49152,
}  # fmt: skip
QWEN3_600M = {
    "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000,
    "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "heads", "total"),
    [(SMOLLM2_135M, (9, 3, 64), 134_515_008), (QWEN3_600M, (16, 8, 128), 596_049_920)],
    ids=["SmolLM2-135M", "Qwen3-0.6B"],
)
def test_published_models_with_grouped_query_attention_are_read(content, heads, total):
    """The totals are those of the published weights."""
    config = from_hf(content)
    assert (config.n_head, config.kv_heads, config.head_dim) == heads
    assert count_parameters(config).total == total
    exported = to_hf(config)
    assert {key for key in content if exported.get(key, content[key]) != content[key]} == set()


@pytest.mark.parametrize("value", [None, True, "x", [], 0, -3, 1.5])
def test_a_size_that_is_not_a_positive_integer_is_refused(value):
    content = to_hf(ModelConfig()) | {"hidden_size": value}
    with pytest.raises(UserError, match="^hidden_size is "):
        from_hf(content)
