"""Settings of a model <-> config.json of Hugging Face: the classes that hold a TinyGPT exactly.

    gpt2      GPT2LMHeadModel        learned positions, layer norms
    gpt_neox  GPTNeoXForCausalLM     RoPE, layer norms
    llama     LlamaForCausalLM       RoPE, RMSNorm, SwiGLU
    qwen3     Qwen3ForCausalLM       the same with normed queries and keys, no biases
    nanochat  NanoChatForCausalLM    RoPE, RMSNorm without gain, also after the embedding; no SwiGLU

The keys and their defaults are those of transformers 5 (Apache-2.0), which reads those of 4 too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model.config import ModelConfig
from model.gpt import INIT_STD
from utils.config.schema import flatten
from utils.config.strict_yaml import format_value
from utils.errors import UserError

# Setting -> the values that a class can hold. What stands nowhere (sizes, bias, gains, norm_eps,
# rope_theta, tie_weights) every class can hold, and what only training reads needs no place.
PLAIN_MLP = ("gelu", "gelu_tanh", "relu2")
ROPE = {"position": ("rope",)}
NOTHING_MORE = {"embedding_norm": (False,), "qk_norm": (False,), "softcap": (0.0,)}
LAYER_NORMS = {"norm": ("layernorm",), "mlp": PLAIN_MLP} | NOTHING_MORE
LLAMA = ROPE | {"norm": ("rmsnorm",), "mlp": ("swiglu",)} | NOTHING_MORE
HOLDS: dict[str, dict[str, tuple[Any, ...]]] = {
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
IN_NO_CLASS = ("bigram_rows", "pointer")
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2", "swiglu": "silu"}
# gelu_new is the same function as gelu_pytorch_tanh, computed step by step.
OUR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_new": "gelu_tanh"}


def hf_model_type(config: ModelConfig) -> str:
    """The model type, a key of CLASSES, that computes what a TinyGPT of these settings computes.

    >>> hf_model_type(ModelConfig()), hf_model_type(ModelConfig(position="learned"))
    ('gpt_neox', 'gpt2')

    Raises:
        UserError: none does; names the settings that the nearest one lacks.
    """
    ours = flatten(config)
    for name in IN_NO_CLASS:
        if ours[name]:
            raise UserError(
                f"model.{name} {format_value(ours[name])}: no class of Hugging Face has it"
            )
    lacks = {
        kind: [name for name, values in held.items() if ours[name] not in values]
        for kind, held in HOLDS.items()
    }
    nearest = min(lacks, key=lambda kind: len(lacks[kind]))
    if not lacks[nearest]:
        return nearest
    reasons = [
        f"model.{name} {' or '.join(map(format_value, HOLDS[nearest][name]))} "
        f"(here {format_value(ours[name])})"
        for name in lacks[nearest]
    ]
    raise UserError(
        f"no class of Hugging Face holds this model; the nearest, {CLASSES[nearest]}, needs "
        f"{', '.join(reasons)}"
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """config.json without the ids of special tokens.

    Raises:
        UserError: as `hf_model_type`.
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
    """The keys of the classes with RoPE; where names changed, those of transformers 4 too."""
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
    """The settings that compute what the class named in config.json computes; dropout is ours.

    >>> config = ModelConfig(position="learned", bias=True)
    >>> from_hf(to_hf(config)) == config
    True

    Raises:
        UserError: names the first key that no setting of ours stands for.
    """
    kind = content.get("model_type")
    if kind not in CLASSES:
        raise UserError(f"model_type {kind!r:.40} is not one of {', '.join(CLASSES)}")
    get = _Reader(content)
    values = READERS[kind](get)
    tied = get("tie_word_embeddings", bool, kind == "gpt2")
    return ModelConfig(vocab_size=get("vocab_size", int), tie_weights=tied, **values)


class _Reader:
    """Reads keys of config.json, each of the type that it must have."""

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

    def require(self, key: str, wanted: Any, why: str) -> None:
        """A key that, where it stands, must have one value."""
        value = self.content.get(key)
        if value is not None and value != wanted:
            raise UserError(f"{key} is {value!r:.40}: {why}")

    def activation(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """Our name of the MLP's activation."""
        theirs = self(key, str, default)
        ours = OUR_ACTIVATIONS.get(theirs)
        if ours not in allowed:
            known = [name for name, our in OUR_ACTIVATIONS.items() if our in allowed]
            raise UserError(f"{key} is {theirs!r:.40}, not one of {', '.join(known)}")
        return ours

    def theta(self) -> float:
        """The base of the rotary frequencies, which must be plain ones over the whole head."""
        rope = self.content.get("rope_parameters") or self.content.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            raise UserError(f"rope_parameters is {rope!r:.40}, no object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f"rope_type is {kind!r:.40}; TinyGPT has the default one alone")
        parts = self.content.get("model_type") == "gpt_neox" and 0.25  # its default
        part = rope.get("partial_rotary_factor", self.content.get("rotary_pct", parts or 1.0))
        if part != 1:
            raise UserError(f"rotary_pct is {part!r:.40}: TinyGPT turns the whole head")
        if "rope_theta" in rope:
            return _Reader(rope)("rope_theta", float)
        old = "rotary_emb_base" if self.content.get("model_type") == "gpt_neox" else "rope_theta"
        return self(old, float, 10000.0)


def _gpt2(get: _Reader) -> dict[str, Any]:
    get.require("scale_attn_weights", True, "TinyGPT divides scores by the root of the head size")
    get.require("scale_attn_by_inverse_layer_idx", False, "TinyGPT scales all layers alike")
    get.require("add_cross_attention", False, "TinyGPT has no encoder to look at")
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
    """What Llama, Qwen3 and NanoChat share; `head_dim` is the default, else hidden_size / heads."""
    sizes = _rope_sizes(get)
    width, heads = sizes["n_embd"], sizes["n_head"]
    groups = get("num_key_value_heads", int, heads)
    if groups != heads:
        raise UserError(
            f"grouped-query attention ({heads} heads share {groups} keys and values): TinyGPT has "
            "keys and values for each head"
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
    get.require("mlp_bias", bias, f"attention_bias is {bias}; TinyGPT has biases everywhere or not")
    return values | {
        "mlp": get.activation("hidden_act", "silu", ("swiglu",)),
        # Three matrices: `ModelConfig.mlp_width` takes 2/3 of it.
        "mlp_ratio": 1.5 * get("intermediate_size", int) / values["n_embd"],
    }


def _qwen3(get: _Reader) -> dict[str, Any]:
    values = _llama(get, head_dim=128)
    get.require("attention_bias", False, "the MLP there has no biases, ours would")
    get.require("use_sliding_window", False, "TinyGPT's attention sees all its context")
    return values | {"qk_norm": True}


def _nanochat(get: _Reader) -> dict[str, Any]:
    values, cap = _rms_norm(get), "final_logit_softcapping"
    get.require("attention_bias", False, "the MLP there has no biases, ours would")
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
