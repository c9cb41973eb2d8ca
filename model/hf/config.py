"""Model settings to and from config.json, for Hugging Face classes that equal a TinyGPT exactly.

    gpt2      GPT2LMHeadModel        learned positions, layer norms
    gpt_neox  GPTNeoXForCausalLM     RoPE, layer norms
    llama     LlamaForCausalLM       RoPE, RMSNorm, SwiGLU
    qwen3     Qwen3ForCausalLM       as llama, with normed queries and keys, no biases
    nanochat  NanoChatForCausalLM    RoPE, RMSNorm without gain and after embeddings, no SwiGLU

Keys and defaults are those of transformers 5 (Apache-2.0), which also reads those of version 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model.config import ModelConfig
from model.gpt import INIT_STD
from utils.config.schema import flatten
from utils.config.strict_yaml import format_value
from utils.errors import UserError

# Setting -> the values that a class supports. Settings not listed (sizes, bias, gains, norm_eps,
# rope_theta, tie_weights) are supported by every class. Settings for training are not exported.
PLAIN_MLP = ("gelu", "gelu_tanh", "relu2")
ROPE = {"position": ("rope",)}
NO_EXTRAS = {"embedding_norm": (False,), "qk_norm": (False,), "softcap": (0.0,)}
LAYER_NORMS = {"norm": ("layernorm",), "mlp": PLAIN_MLP} | NO_EXTRAS
LLAMA = ROPE | {"norm": ("rmsnorm",), "mlp": ("swiglu",)} | NO_EXTRAS
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
UNSUPPORTED = ("bigram_rows", "pointer")
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2", "swiglu": "silu"}
# gelu_new is the function of gelu_pytorch_tanh, computed operation by operation.
MLP_SETTINGS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_new": "gelu_tanh"}


def hf_model_type(config: ModelConfig) -> str:
    """Return the Hugging Face model type, a key of CLASSES, that equals a TinyGPT with `config`.

    >>> hf_model_type(ModelConfig()), hf_model_type(ModelConfig(position="learned"))
    ('gpt_neox', 'gpt2')

    Raises:
        UserError: there is none; the message names what the most similar class does not support.
    """
    ours = flatten(config)
    for name in UNSUPPORTED:
        if ours[name]:
            raise UserError(
                f"model.{name} {format_value(ours[name])}: no Hugging Face class supports it"
            )
    unsupported = {
        kind: [name for name, values in supported.items() if ours[name] not in values]
        for kind, supported in SUPPORTED_VALUES.items()
    }
    nearest = min(unsupported, key=lambda kind: len(unsupported[kind]))
    if not unsupported[nearest]:
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
    kind = hf_model_type(config)
    content = {
        "model_type": kind,
        "architectures": [CLASSES[kind]],
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_weights,
        "initializer_range": INIT_STD,
        "use_cache": True,
    }
    if kind == "gpt2":
        return content | {
            "n_positions": config.block_size,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.mlp_width,
            "activation_function": ACTIVATIONS[config.mlp],
            "layer_norm_epsilon": config.norm_eps,
            **dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), config.dropout),
        }
    return content | _rope_keys(config, kind)


def _rope_keys(config: ModelConfig, kind: str) -> dict[str, Any]:
    """Return the keys of the classes with RoPE, under the names of transformers 5 and 4."""
    content = {
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "intermediate_size": config.mlp_width,
        "hidden_act": ACTIVATIONS[config.mlp],
        "attention_bias": config.bias,
        "attention_dropout": config.dropout,
    }
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if kind == "gpt_neox":
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
        "num_key_value_heads": config.n_head,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_eps,
    }
    if kind == "llama":
        content["mlp_bias"] = config.bias
    if kind == "qwen3":
        content["use_sliding_window"] = False
    if kind == "nanochat":
        content["final_logit_softcapping"] = config.softcap or None
    return content


def from_hf(content: Mapping[str, Any]) -> ModelConfig:
    """Return the settings that equal the class named in config.json; dropout keeps its default.

    >>> config = ModelConfig(position="learned", bias=True)
    >>> from_hf(to_hf(config)) == config
    True

    Raises:
        UserError: a key has no equivalent setting; the message names the first such key.
    """
    kind = content.get("model_type")
    if kind not in CLASSES:
        raise UserError(f"model_type {kind!r:.40} is not one of {', '.join(CLASSES)}")
    get = _Reader(content)
    values = READERS[kind](get)
    tied = get("tie_word_embeddings", bool, kind == "gpt2")
    return ModelConfig(vocab_size=get("vocab_size", int), tie_weights=tied, **values)


class _Reader:
    """Reads keys of config.json and checks their types."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def __call__(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.content.get(key)
        if value is None:
            value = default
        if value is None:
            raise UserError(f"{key} is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise UserError(f"{key} is {value!r:.40}, not of type {kind.__name__}")
        if type(value) is int and value < 1:
            raise UserError(f"{key} is {value}, not 1 or more")
        return value

    def require(self, key: str, expected: Any, why: str) -> None:
        """Check that a key has the expected value, if it is present."""
        value = self.content.get(key)
        if value is not None and value != expected:
            raise UserError(f"{key} is {value!r:.40}: {why}")

    def activation(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """Return the value of the setting model.mlp for an activation."""
        theirs = self(key, str, default)
        ours = MLP_SETTINGS.get(theirs)
        if ours not in allowed:
            known = [name for name, our in MLP_SETTINGS.items() if our in allowed]
            raise UserError(f"{key} is {theirs!r:.40}, not one of {', '.join(known)}")
        return ours

    def theta(self) -> float:
        """Return the base of the rotary frequencies; check that no scaling is configured."""
        rope = self.content.get("rope_parameters") or self.content.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            raise UserError(f"rope_parameters is {rope!r:.40}, not an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f"rope_type is {kind!r:.40}; TinyGPT supports only the default")
        parts = self.content.get("model_type") == "gpt_neox" and 0.25  # its default
        part = rope.get("partial_rotary_factor", self.content.get("rotary_pct", parts or 1.0))
        if part != 1:
            raise UserError(f"rotary_pct is {part!r:.40}: TinyGPT rotates the whole head")
        if "rope_theta" in rope:
            return _Reader(rope)("rope_theta", float)
        old = "rotary_emb_base" if self.content.get("model_type") == "gpt_neox" else "rope_theta"
        return self(old, float, 10000.0)


def _gpt2(get: _Reader) -> dict[str, Any]:
    get.require("scale_attn_weights", True, "TinyGPT divides scores by sqrt(head size)")
    get.require("scale_attn_by_inverse_layer_idx", False, "TinyGPT scales all layers equally")
    get.require("add_cross_attention", False, "TinyGPT has no encoder")
    width = get("n_embd", int)
    return {
        "block_size": get("n_positions", int, get.content.get("n_ctx")),
        "n_layer": get("n_layer", int),
        "n_head": get("n_head", int),
        "n_embd": width,
        "bias": True,
        "position": "learned",
        "norm_eps": get("layer_norm_epsilon", float, 1e-5),
        "mlp": get.activation("activation_function", "gelu_new", PLAIN_MLP),
        "mlp_ratio": get("n_inner", int, 4 * width) / width,
    }


def _rope_sizes(get: _Reader) -> dict[str, Any]:
    return {
        "block_size": get("max_position_embeddings", int, 2048),
        "n_layer": get("num_hidden_layers", int),
        "n_head": get("num_attention_heads", int),
        "n_embd": get("hidden_size", int),
        "position": "rope",
        "rope_theta": get.theta(),
        "mlp_ratio": get("intermediate_size", int) / get("hidden_size", int),
    }


def _gpt_neox(get: _Reader) -> dict[str, Any]:
    sizes = _rope_sizes(get)
    if get("use_parallel_residual", bool, True):
        raise UserError("use_parallel_residual is true: TinyGPT's MLP reads what attention adds")
    return sizes | {
        "bias": get("attention_bias", bool, True),
        "norm_eps": get("layer_norm_eps", float, 1e-5),
        "mlp": get.activation("hidden_act", "gelu", PLAIN_MLP),
    }


def _rms_norm(get: _Reader, head_dim: int | None = None) -> dict[str, Any]:
    """Return what Llama, Qwen3 and NanoChat share.

    Args:
        head_dim: the default; None = hidden_size / heads.
    """
    sizes = _rope_sizes(get)
    width, heads = sizes["n_embd"], sizes["n_head"]
    groups = get("num_key_value_heads", int, heads)
    if groups != heads:
        raise UserError(
            f"grouped-query attention ({heads} heads share {groups} keys and values): TinyGPT has "
            "separate keys and values for each head"
        )
    size = get("head_dim", int, head_dim or width // heads)
    if size * heads != width:
        raise UserError(f"head_dim is {size}: TinyGPT's is hidden_size / heads, {width / heads:g}")
    return sizes | {
        "norm": "rmsnorm",
        "norm_eps": get("rms_norm_eps", float, 1e-6),
        "bias": get("attention_bias", bool, False),
    }


def _llama(get: _Reader, head_dim: int | None = None) -> dict[str, Any]:
    values = _rms_norm(get, head_dim)
    bias = values["bias"]
    get.require(
        "mlp_bias", bias, f"attention_bias is {bias}; TinyGPT has biases everywhere or nowhere"
    )
    return values | {
        "mlp": get.activation("hidden_act", "silu", ("swiglu",)),
        # Three matrices: `ModelConfig.mlp_width` takes 2/3 of it.
        "mlp_ratio": 1.5 * get("intermediate_size", int) / values["n_embd"],
    }


def _qwen3(get: _Reader) -> dict[str, Any]:
    values = _llama(get, head_dim=128)
    get.require("attention_bias", False, "the class has no biases in the MLP, TinyGPT would")
    get.require("use_sliding_window", False, "TinyGPT's attention has no window")
    return values | {"qk_norm": True}


def _nanochat(get: _Reader) -> dict[str, Any]:
    values, cap = _rms_norm(get), "final_logit_softcapping"
    get.require("attention_bias", False, "the class has no biases in the MLP, TinyGPT would")
    return values | {
        "norm_gain": False,
        "embedding_norm": True,
        "qk_norm": True,
        "softcap": 0.0 if get.content.get(cap, 15.0) is None else get(cap, float, 15.0),
        "mlp": get.activation("hidden_act", "relu2", PLAIN_MLP),
    }


READERS: dict[str, Callable[[_Reader], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "qwen3": _qwen3,
    "nanochat": _nanochat,
}
