"""Loading a TinyGPT from a checkpoint, with strict checks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.flops import check_size
from model.gpt import TinyGPT
from utils.config.load import cast, unknown_key
from utils.config.schema import flat_fields
from utils.errors import UserError, errors_at

# Settings that checkpoints of older versions lack. Their defaults are what models did before.
ADDED_LATER = "n_kv_head head_size norm_gain embedding_norm embedding_std".split()
ADDED_LATER += ["bigram_rows", "bigram_dropout", "pointer"]


def load_model(checkpoint: Mapping[str, Any], device: torch.device | str = "cpu") -> TinyGPT:
    """Build the model of a checkpoint, in eval mode, on `device`.

    The global random state is not changed.

    Args:
        checkpoint: {"model": state dict, "config": {"model": {name: value}}}. The state dict is of
            the unwrapped module. Other keys are ignored.

    Raises:
        UserError: a key is missing; a setting is unknown, missing or wrong; or a weight is missing,
            unexpected or not of the shape that the settings imply. The message names the first.
    """
    settings = _section(_section(checkpoint, "config", "checkpoint"), "model", "checkpoint config")
    weights = _section(checkpoint, "model", "checkpoint")
    config = model_config(settings)
    check_size(config, len(weights))
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):  # shapes without memory
            check_weights(TinyGPT(config), weights)
        model = TinyGPT(config)
    model.load_state_dict(weights)
    return model.to(device).eval()


def model_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the ModelConfig of {name: value}, which must hold its settings and no others.

    Raises:
        UserError: a setting is unknown, missing, of the wrong type or out of range.
    """
    fields = flat_fields(ModelConfig, "model.")
    values: dict[str, Any] = {}
    for name, value in settings.items():
        where = f"model.{name}"
        if where not in fields:
            raise UserError(f"checkpoint config: {unknown_key(where, fields)}")
        values[name] = cast(value, fields[where][0], f"checkpoint config: {where}")
    for where, (_, field) in fields.items():
        if field.name not in (*values, *ADDED_LATER):
            raise UserError(f"checkpoint config: {where} is missing; another version wrote it")
    with errors_at("checkpoint config"):
        return ModelConfig(**values)


def load_weights(model: TinyGPT, weights: Mapping[str, Any]) -> None:
    """Copy a state dict into the model. On an error the model is unchanged.

    Raises:
        UserError: a weight is missing, unexpected, of another shape or not a tensor of floats.
    """
    check_weights(model, weights)
    model.load_state_dict(weights)


def check_weights(model: TinyGPT, weights: Mapping[str, Any]) -> None:
    """Check that a state dict has the model's names and shapes, and holds tensors of floats.

    Raises:
        UserError: a weight is missing, unexpected, of another shape or not a tensor of floats.
    """
    expected = model.state_dict()
    for name, parameter in expected.items():
        if name not in weights:
            raise UserError(f"weight {name} is missing, but the checkpoint's config asks for it")
        value = weights[name]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise UserError(f"weight {name} is not a tensor of floats")
        if value.shape != parameter.shape:
            raise UserError(
                f"weight {name} has shape {tuple(value.shape)}, "
                f"but the checkpoint's config asks for {tuple(parameter.shape)}"
            )
    for name in weights:
        if name not in expected:
            raise UserError(f"weight {name} is unknown to the model of the checkpoint's config")


def _section(container: Any, key: str, name: str) -> Mapping[str, Any]:
    section = container.get(key) if isinstance(container, Mapping) else None
    if not isinstance(section, Mapping):
        raise UserError(f"{name}: no key {key!r}; name a checkpoint of llm-tiny")
    return section
