"""Every key of a config.json is read, known to be harmless, or refused."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pytest
import torch

from model.gpt import TinyGPT
from model.hf.config import CLASSES, from_hf
from model.hf.config_reader import HARMLESS, HARMLESS_VALUES
from scripts.export.hf_config import hf_model_type, to_hf
from tests.helpers.hf import COMBINATIONS, ORACLE, config_of, make_model, read, write
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

SETTINGS = {hf_model_type(config_of(one)): one for one in reversed(COMBINATIONS)}
ROPE_KINDS = [kind for kind in CLASSES if kind != "gpt2"]
LINEAR = {"type": "linear", "factor": 4.0}


def content_of(kind: str) -> dict[str, Any]:
    """A config.json as it is exported."""
    return to_hf(config_of(SETTINGS[kind]))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logit_scale": 0.5}, "logit_scale is 0.5: TinyGPT does not read this key"),
        ({"embedding_multiplier": 12}, "embedding_multiplier is 12: TinyGPT does not read"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0: TinyGPT does not"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is"),
        ({"auto_map": {"AutoModelForCausalLM": "code.Net"}}, "auto_map is"),
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window is True"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types is"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is True"),
        ({"rope_interleaved": True}, "rope_interleaved is True"),
        ({"no_such_key": False}, "no_such_key is False"),
        ({"long": ["word", "text"] * 9}, r"long is \['word', 'text', 'wo….*'\]: TinyGPT does not"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_key_that_could_change_the_numbers_is_refused(kind, change, message):
    with pytest.raises(UserError, match=message):
        from_hf(content_of(kind) | change)


@pytest.mark.parametrize("kind", ROPE_KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": LINEAR}, "rope_scaling: type is 'linear'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling: rope_type is"),
        ({"rope_parameters": {"rope_type": "default", "type": "linear"}}, "type is 'linear'"),
        ({"rope_parameters": None, "rope_scaling": LINEAR}, "rope_scaling: type is 'linear'"),
        ({"rope_scaling": {"type": "default", "factor": 2.0}}, "rope_scaling: factor is 2.0"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "full_attention is"),
        (
            {"rope_scaling": {"rope_theta": 7.0, "partial_rotary_factor": 1}},
            "rope_theta is|emb_base",
        ),
        ({"rope_theta": 7.0}, "rope_theta is 7.0: elsewhere it is 500.0"),
        ({"rotary_emb_base": 7.0}, "rotary_emb_base is 7.0: elsewhere it is 500.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: TinyGPT rotates"),
        ({"rotary_pct": 0.25}, "rotary_pct is 0.25: TinyGPT rotates the whole head"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear', not an object"),
    ],
)
def test_what_changes_the_rotary_frequencies_is_refused(kind, change, message):
    with pytest.raises(UserError, match=message):
        from_hf(content_of(kind) | change)


def test_other_names_of_the_same_keys_are_compared():
    content = content_of("gpt2")
    names = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    assert from_hf(content | names) == from_hf(content)
    for name in names:
        with pytest.raises(UserError, match=f"{name} is 1: n_.* says otherwise"):
            from_hf(content | {name: 1})
    with pytest.raises(UserError, match="head_dim is 4: TinyGPT has heads of 8"):
        from_hf(content_of("gpt_neox") | {"head_dim": 4})


# Values that differ from the defaults, for the keys whose types transformers checks.
ODD_VALUES: dict[str, Any] = {
    "architectures": ["Other"],
    "_name_or_path": "a/b",
    "dtype": "float32",
    "initializer_range": 0.5,
    "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1},
    "chunk_size_feed_forward": 2,
    "use_cache": False,
    "reorder_and_upcast_attn": True,
    "is_decoder": True,
    "output_hidden_states": True,
    "summary_type": "mean",
    "summary_use_proj": False,
    "summary_activation": "tanh",
    "summary_proj_to_labels": False,
    "n_ctx": 8,
    "sliding_window": 3,
    "max_window_layers": 1,
    "num_labels": 2,
    "pretraining_tp": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "repetition_penalty": 2.0,
    "temperature": 0.1,
    "pruned_heads": {},
    "rope_interleaved": False,
    "use_sliding_window": False,
    "quantization_config": None,
    "layer_types": ["full_attention"] * 2,
} | dict.fromkeys(
    (
        "attn_pdrop resid_pdrop embd_pdrop attention_dropout hidden_dropout classifier_dropout "
        "summary_first_dropout"
    ).split(),
    0.5,
)


@pytest.mark.parametrize("kind", CLASSES)
def test_harmless_keys_do_not_change_transformers_logits_nor_ours(kind, tmp_path):
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers", reason=ORACLE)
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"oracle: this transformers has no {kind}")
    model = make_model(config_of(SETTINGS[kind]))
    tokenizer = BPETokenizer.train([make_text(50)], vocab_size=300)
    path = write(tmp_path, model, tokenizer) / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | ODD_VALUES), encoding="utf-8")
    found, _ = read(tmp_path)
    imported = TinyGPT(found.config).eval()
    imported.load_state_dict(found.weights)
    loader = transformers.AutoModelForCausalLM
    theirs = loader.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids_BT = torch.arange(20)[None]
    with torch.no_grad():
        ours_BTV, theirs_BTV = imported(ids_BT), theirs(ids_BT).logits
    assert torch.equal(ours_BTV, model(ids_BT))
    torch.testing.assert_close(ours_BTV, theirs_BTV, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_key_of_transformers_own_class_is_known_or_refused(kind):
    """With its default, no key is refused, except where TinyGPT can't compute the default."""
    transformers = pytest.importorskip("transformers", reason=ORACLE)
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"oracle: this transformers has no {kind}")
    config_class = transformers.CONFIG_MAPPING[kind]
    if not dataclasses.is_dataclass(config_class):
        pytest.skip("oracle: this transformers has no dataclasses of settings")
    content = content_of(kind)
    known = {name for names in HARMLESS.values() for name in names.split()} | HARMLESS_VALUES.keys()
    for field in dataclasses.fields(config_class):
        if field.name in content or field.name in known:
            continue
        with pytest.raises(UserError, match=f"^{field.name} is"):
            from_hf(content | {field.name: "odd"})


def test_configs_of_published_models_are_read():
    smol = {
        "_name_or_path": "/fsx/elie_bakouch/checkpoints/final-149B",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": 576,
        "initializer_range": 0.02,
        "intermediate_size": 1536,
        "is_llama_config": True,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"dtype": {"q4": "x"}},
        "transformers_version": "4.42.3",
        "use_cache": True,
        "vocab_size": 49152,
    }
    assert from_hf(smol).n_kv_head == 3
    gpt2 = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    }
    assert from_hf(gpt2).block_size == 1024
