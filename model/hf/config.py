"""Model settings from a Hugging Face config.json; scripts/export/hf_config.py writes these files.

Supported are the classes that compute the same function as TinyGPT:

    gpt2      GPT2LMHeadModel        learned positions, layer norms
    gpt_neox  GPTNeoXForCausalLM     RoPE, layer norms
    llama     LlamaForCausalLM       RoPE, RMSNorm, SwiGLU
    qwen3     Qwen3ForCausalLM       as llama, with QK-norm, no biases
    nanochat  NanoChatForCausalLM    RoPE, RMSNorm without gain and after embeddings, no SwiGLU

Keys and defaults are those of transformers 5 (Apache-2.0), which also reads those of version 4.
"""

from collections.abc import Callable, Mapping
from typing import Any

from model.config import ModelConfig
from model.hf.config_reader import Reader
from utils.errors import UserError, brief

PLAIN_MLP = ("gelu", "gelu_tanh", "relu2")
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "nanochat": "NanoChatForCausalLM",
}
NO_MLP_BIAS = "this class's MLP has no biases; TinyGPT with bias: true would have them"
HF_ACTIVATION = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu2": "relu2",
    "swiglu": "silu",
}
MLP_BY_HF_ACTIVATION = {theirs: ours for ours, theirs in HF_ACTIVATION.items()}
# gelu_new is the function of gelu_pytorch_tanh, computed operation by operation.
MLP_BY_HF_ACTIVATION["gelu_new"] = "gelu_tanh"


def from_hf(content: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the equivalent TinyGPT; dropout keeps its default.

    >>> sizes = {"n_positions": 64, "n_layer": 2, "n_head": 2, "n_embd": 32}
    >>> config = from_hf({"model_type": "gpt2", "vocab_size": 300} | sizes)
    >>> config.position, config.mlp, config.tie_weights
    ('learned', 'gelu_tanh', True)

    Raises:
        UserError: a key has no equivalent setting; the message names the first such key.
    """
    model_type = content.get("model_type")
    if model_type not in CLASSES:
        raise UserError(f"model_type {brief(model_type)} is not one of {', '.join(CLASSES)}")
    reader = Reader(content)
    values = READERS[model_type](reader)
    tied = reader.read("tie_word_embeddings", bool, model_type == "gpt2")
    vocab_size = reader.read("vocab_size", int)
    if reader.content.get("layer_types") == ["full_attention"] * values["n_layer"]:
        reader.keys_read.add("layer_types")
    reader.check_keys()
    return ModelConfig(vocab_size=vocab_size, tie_weights=tied, **values)


def _activation(reader: Reader, key: str, default: str, allowed: tuple[str, ...]) -> str:
    """Return the value of the setting model.mlp for an activation."""
    theirs = reader.read(key, str, default)
    ours = MLP_BY_HF_ACTIVATION.get(theirs)
    if ours not in allowed:
        known = [name for name, our in MLP_BY_HF_ACTIVATION.items() if our in allowed]
        raise UserError(f"{key} is {brief(theirs)}, not one of {', '.join(known)}")
    return ours


GPT2_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def _read_gpt2(reader: Reader) -> dict[str, Any]:
    reader.require("scale_attn_weights", True, "TinyGPT divides scores by sqrt(head size)")
    reader.require("scale_attn_by_inverse_layer_idx", False, "TinyGPT scales all layers equally")
    reader.require("add_cross_attention", False, "TinyGPT has no encoder")
    for alias, key in GPT2_ALIASES.items():  # an alias would override the key
        reader.require(alias, reader.content.get(key), f"{key} says otherwise; remove one of them")
    width = reader.read("n_embd", int)
    return {
        "block_size": reader.read("n_positions", int, reader.content.get("n_ctx")),
        "n_layer": reader.read("n_layer", int),
        "n_head": reader.read("n_head", int),
        "n_embd": width,
        "bias": True,
        "position": "learned",
        "norm_eps": reader.read("layer_norm_epsilon", float, 1e-5),
        "mlp": _activation(reader, "activation_function", "gelu_new", PLAIN_MLP),
        "mlp_ratio": reader.read("n_inner", int, 4 * width) / width,
    }


def _read_rope_sizes(reader: Reader) -> dict[str, Any]:
    return {
        "block_size": reader.read("max_position_embeddings", int, 2048),
        "n_layer": reader.read("num_hidden_layers", int),
        "n_head": reader.read("num_attention_heads", int),
        "n_embd": reader.read("hidden_size", int),
        "position": "rope",
        "rope_theta": reader.theta(),
        "mlp_ratio": reader.read("intermediate_size", int) / reader.read("hidden_size", int),
    }


def _read_gpt_neox(reader: Reader) -> dict[str, Any]:
    sizes = _read_rope_sizes(reader)
    head_dim = sizes["n_embd"] // sizes["n_head"]
    reader.require("head_dim", head_dim, f"TinyGPT has heads of {head_dim} for these sizes")
    if reader.read("use_parallel_residual", bool, True):
        raise UserError(
            "use_parallel_residual is true: TinyGPT has sequential residuals, not parallel ones"
        )
    return sizes | {
        "bias": reader.read("attention_bias", bool, True),
        "norm_eps": reader.read("layer_norm_eps", float, 1e-5),
        "mlp": _activation(reader, "hidden_act", "gelu", PLAIN_MLP),
    }


def _read_rmsnorm_family(reader: Reader, head_dim: int | None = None) -> dict[str, Any]:
    """Return the settings that Llama, Qwen3 and NanoChat have in common.

    Args:
        head_dim: the default; None = hidden_size / heads.
    """
    sizes = _read_rope_sizes(reader)
    width, heads = sizes["n_embd"], sizes["n_head"]
    kv_heads = reader.read("num_key_value_heads", int, heads)
    size = reader.read("head_dim", int, head_dim or width // heads)
    return sizes | {
        "n_kv_head": 0 if kv_heads == heads else kv_heads,
        "head_size": 0 if size * heads == width else size,
        "norm": "rmsnorm",
        "norm_eps": reader.read("rms_norm_eps", float, 1e-6),
        "bias": reader.read("attention_bias", bool, False),
    }


def _read_llama(reader: Reader, head_dim: int | None = None) -> dict[str, Any]:
    values = _read_rmsnorm_family(reader, head_dim)
    bias = values["bias"]
    reader.require(
        "mlp_bias", bias, f"attention_bias is {bias}; TinyGPT has biases everywhere or nowhere"
    )
    return values | {
        "mlp": _activation(reader, "hidden_act", "silu", ("swiglu",)),
        # SwiGLU: `ModelConfig.mlp_width` takes 2/3 of mlp_ratio * n_embd.
        "mlp_ratio": 1.5 * reader.read("intermediate_size", int) / values["n_embd"],
    }


def _read_qwen3(reader: Reader) -> dict[str, Any]:
    # A missing key means 32, the class's default; null means num_attention_heads.
    reader.content = {"num_key_value_heads": 32, **reader.content}
    values = _read_llama(reader, head_dim=128)
    reader.require("attention_bias", False, NO_MLP_BIAS)
    reader.require("use_sliding_window", False, "TinyGPT's attention has no window")
    return values | {"qk_norm": True}


def _read_nanochat(reader: Reader) -> dict[str, Any]:
    values, cap = _read_rmsnorm_family(reader), "final_logit_softcapping"
    reader.require("attention_bias", False, NO_MLP_BIAS)
    return values | {
        "norm_gain": False,
        "embedding_norm": True,
        "qk_norm": True,
        "softcap": 0.0 if reader.content.get(cap, 15.0) is None else reader.read(cap, float, 15.0),
        "mlp": _activation(reader, "hidden_act", "relu2", PLAIN_MLP),
    }


READERS: dict[str, Callable[[Reader], dict[str, Any]]] = {
    "gpt2": _read_gpt2,
    "gpt_neox": _read_gpt_neox,
    "llama": _read_llama,
    "qwen3": _read_qwen3,
    "nanochat": _read_nanochat,
}
