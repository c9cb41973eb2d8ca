"""Checkpoint -> TinyGPT, strictly."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.gpt import TinyGPT
from utils.config.load import cast, unknown_key
from utils.errors import UserError


def load_model(checkpoint: Mapping[str, Any], device: torch.device | str = "cpu") -> TinyGPT:
    """Builds the model that a checkpoint holds, in eval mode, on `device`.

    The global random state stays as it is.

    Args:
        checkpoint: {"model": state dict of the raw module, "config": {"model": {name: value}}},
            whatever else it holds.

    Raises:
        UserError: a part is missing, a setting unknown, missing or wrong, or a weight missing,
            superfluous or of another shape than the settings say; names the first.
    """
    settings = _part(_part(checkpoint, "config", "checkpoint"), "model", "checkpoint config")
    weights = _part(checkpoint, "model", "checkpoint")
    config = model_config(settings)
    with torch.random.fork_rng(devices=[]):
        model = TinyGPT(config)
    load_weights(model, weights)
    return model.to(device).eval()


def model_config(settings: Mapping[str, Any]) -> ModelConfig:
    """ModelConfig from name -> value; every setting must be there, and no other.

    Raises:
        UserError: names the first that is unknown, missing, of a wrong type or out of range.
    """
    hints = typing.get_type_hints(ModelConfig)
    known = {f"model.{field.name}": field for field in dataclasses.fields(ModelConfig)}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        where = f"model.{name}"
        if where not in known:
            raise UserError(f"checkpoint config: {unknown_key(where, known)}")
        values[name] = cast(value, hints[name], f"checkpoint config: {where}")
    for where, field in known.items():
        if field.name not in values:
            raise UserError(f"checkpoint config: {where} is missing; another version wrote it")
    try:
        return ModelConfig(**values)
    except UserError as error:
        raise UserError(f"checkpoint config: {error}") from None


def load_weights(model: TinyGPT, weights: Mapping[str, Any]) -> None:
    """Copies a state dict into the model; all or nothing.

    Raises:
        UserError: names the first that is missing, superfluous, of another shape, or no tensor.
    """
    own = model.state_dict()
    for name, parameter in own.items():
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
        if name not in own:
            raise UserError(f"weight {name} is unknown to the model of the checkpoint's config")
    model.load_state_dict(weights)


def _part(container: Any, key: str, name: str) -> Mapping[str, Any]:
    part = container.get(key) if isinstance(container, Mapping) else None
    if not isinstance(part, Mapping):
        raise UserError(f"{name}: no part named {key!r}; this is no checkpoint of ours")
    return part
