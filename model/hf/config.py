"""Model settings to and from a Hugging Face config.json.

Supported are the classes that compute the same function as TinyGPT:

    gpt2      GPT2LMHeadModel        learned positions, layer norms
    gpt_neox  GPTNeoXForCausalLM     RoPE, layer norms
    llama     LlamaForCausalLM       RoPE, RMSNorm, SwiGLU
    qwen3     Qwen3ForCausalLM       as llama, with QK-norm, no biases
    nanochat  NanoChatForCausalLM    RoPE, RMSNorm without gain and after embeddings, no SwiGLU

Keys and defaults are those of transformers 5 (Apache-2.0), which also reads those of version 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model.config import INIT_STD, ModelConfig
from model.hf.config_reader import Reader
from utils.config.schema import flatten
from utils.config.strict_yaml import format_value
from utils.errors import UserError

# Parts of SUPPORTED_VALUES below.
PLAIN_MLP = ("gelu", "gelu_tanh", "relu2")
ROPE = {"position": ("rope",)}
NO_EXTRAS = {"embedding_norm": (False,), "qk_norm": (False,), "softcap": (0.0,)}
EQUAL_HEADS = {"n_kv_head": (0,), "head_size": (0,)}
LAYER_NORMS = {"norm": ("layernorm",), "mlp": PLAIN_MLP} | NO_EXTRAS | EQUAL_HEADS
LLAMA = ROPE | {"norm": ("rmsnorm",), "mlp": ("swiglu",)} | NO_EXTRAS
# Model type -> setting -> supported values. A setting absent from a class's entry may have any
# value, except those of UNSUPPORTED. Settings for training are not exported.
SUPPORTED_VALUES: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {"position": ("learned",)} | LAYER_NORMS,
    "gpt_neox": ROPE | LAYER_NORMS,
    "llama": LLAMA,
    "qwen3": LLAMA | {"qk_norm": (True,), "bias": (False,)},
    "nanochat": ROPE
    | {"norm": ("rmsnorm",), "norm_gain": (False,), "embedding_norm": (True,)}
    | {"mlp": PLAIN_MLP, "qk_norm": (True,), "bias": (False,)},
}
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "nanochat": "NanoChatForCausalLM",
}
UNSUPPORTED = ("bigram_rows", "pointer")  # by every class
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


def hf_model_type(config: ModelConfig) -> str:
    """Return the key of CLASSES whose class computes the same function as TinyGPT with `config`.

    >>> hf_model_type(ModelConfig()), hf_model_type(ModelConfig(position="learned"))
    ('gpt_neox', 'gpt2')

    Raises:
        UserError: there is none; the message names what the most similar class does not support.
    """
    ours = flatten(config)
    if config.kv_heads == config.n_head:
        ours["n_kv_head"] = 0
    if config.head_dim * config.n_head == config.n_embd:
        ours["head_size"] = 0
    for name in UNSUPPORTED:
        if ours[name]:
            raise UserError(
                f"model.{name} {format_value(ours[name])}: no Hugging Face class supports it"
            )
    unsupported = {
        model_type: [name for name, values in supported.items() if ours[name] not in values]
        for model_type, supported in SUPPORTED_VALUES.items()
    }
    nearest = min(unsupported, key=lambda model_type: len(unsupported[model_type]))
    if not unsupported[nearest]:
        if nearest == "llama" and config.n_embd % config.n_head:  # the class checks it
            raise UserError(
                f"{CLASSES[nearest]} needs a model.n_embd that is a multiple of model.n_head "
                f"(here {config.n_embd} and {config.n_head}); train with other sizes, or with "
                "model.qk_norm true and model.bias false, as Qwen3ForCausalLM"
            )
        return nearest
    reasons = [
        f"model.{name} {' or '.join(map(format_value, SUPPORTED_VALUES[nearest][name]))} "
        f"(here {format_value(ours[name])})"
        for name in unsupported[nearest]
    ]
    raise UserError(
        f"no Hugging Face class supports this model; the nearest, {CLASSES[nearest]}, needs "
        f"{', '.join(reasons)}"
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the content of config.json, without the ids of special tokens.

    Raises:
        UserError: no Hugging Face class supports the settings.
    """
    model_type = hf_model_type(config)
    content = {
        "model_type": model_type,
        "architectures": [CLASSES[model_type]],
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_weights,
        "initializer_range": INIT_STD,
        "use_cache": True,
    }
    if model_type == "gpt2":
        return content | {
            "n_positions": config.block_size,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.mlp_width,
            "activation_function": HF_ACTIVATION[config.mlp],
            "layer_norm_epsilon": config.norm_eps,
            **dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), config.dropout),
        }
    return content | _rope_keys(config, model_type)


def _rope_keys(config: ModelConfig, model_type: str) -> dict[str, Any]:
    """Return the keys of the classes with RoPE, under the names of transformers 5 and 4."""
    content = {
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "intermediate_size": config.mlp_width,
        "hidden_act": HF_ACTIVATION[config.mlp],
        "attention_bias": config.bias,
        "attention_dropout": config.dropout,
    }
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if model_type == "gpt_neox":
        return content | {
            "rope_parameters": rope | {"partial_rotary_factor": 1.0},
            "rotary_pct": 1.0,
            "rotary_emb_base": config.rope_theta,
            "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": False,
            "hidden_dropout": config.dropout,
        }
    content |= {
        "rope_parameters": rope,
        "rope_theta": config.rope_theta,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
    }
    if model_type == "llama":
        content["mlp_bias"] = config.bias
    if model_type == "qwen3":
        content["use_sliding_window"] = False
    if model_type == "nanochat":
        content["final_logit_softcapping"] = config.softcap or None
    return content


def from_hf(content: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the equivalent TinyGPT; dropout keeps its default.

    >>> config = ModelConfig(position="learned", bias=True)
    >>> from_hf(to_hf(config)) == config
    True

    Raises:
        UserError: a key has no equivalent setting; the message names the first such key.
    """
    model_type = content.get("model_type")
    if model_type not in CLASSES:
        raise UserError(f"model_type {model_type!r:.40} is not one of {', '.join(CLASSES)}")
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
        raise UserError(f"{key} is {theirs!r:.40}, not one of {', '.join(known)}")
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
