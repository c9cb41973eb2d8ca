"""A model's settings as a Hugging Face config.json; model/hf/config.py reads these files."""

from pathlib import Path
from typing import Any

from model.config import INIT_STD, ModelConfig
from model.hf.config import CLASSES, HF_ACTIVATION
from utils.config.schema import flatten
from utils.config.strict_yaml import format_value
from utils.config.tables import read_table
from utils.errors import UserError

TABLES = read_table(Path(__file__).with_name("hf_keys.yaml"))
SUPPORTED_VALUES: dict[str, dict[str, list[Any]]] = TABLES["supported"]
UNSUPPORTED = ("bigram_rows", "pointer")  # by every class


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
                f"model.{name} {format_value(ours[name])}: no Hugging Face class supports it; "
                "train a model without it"
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
    content: dict[str, Any] = {"model_type": model_type, "architectures": [CLASSES[model_type]]}
    content |= {"initializer_range": INIT_STD, **TABLES["constants"]["all"]}
    content |= TABLES["constants"].get(model_type, {})
    for key, name in TABLES["keys"][model_type].items():
        value = getattr(config, name)
        content[key] = HF_ACTIVATION[value] if name == "mlp" else value
    if config.position == "rope":
        content["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if model_type == "gpt_neox":
        content["rope_parameters"]["partial_rotary_factor"] = 1.0
    if model_type == "nanochat":
        content["final_logit_softcapping"] = config.softcap or None
    return content
