"""Runs that start from a Hugging Face folder: `train.init_from`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import ModelConfig
from model.hf.folder import read_config, read_folder
from utils.config.schema import flatten
from utils.errors import UserError

RUN_OWNED = ("dropout", "attention")  # model settings that the run decides, not the folder


def pretrained_settings(folder: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings (`model.x` -> value) of the model in a folder.

    Args:
        given: the settings in files and flags, by name.

    Raises:
        UserError: a given setting contradicts the folder, or TinyGPT does not support its model.
    """
    values: dict[str, Any] = {}
    config = read_config(Path(folder))
    # What 0 stands for in these settings; a user may give the number instead.
    derived = {"n_kv_head": config.kv_heads, "head_size": config.head_dim}
    for leaf, value in flatten(config).items():
        name = f"model.{leaf}"
        shorter = leaf == "block_size" and name in given and given[name] <= value
        if leaf in RUN_OWNED or shorter:
            continue
        if name in given and given[name] not in (value, derived.get(leaf, value)):
            raise UserError(f"{name} is {given[name]}, but {value} in {folder}; leave it out")
        values[name] = value
    return values


def load_initial_weights(folder: str, config: ModelConfig) -> dict[str, Tensor]:
    """Read the weights of the model in a folder, cut to the block_size of `config`.

    Raises:
        UserError: the folder is damaged, or its model has other settings than `config`.
    """
    found = read_folder(folder)
    ours, theirs = flatten(config), flatten(found.config)
    for name, value in theirs.items():
        if name not in (*RUN_OWNED, "block_size") and ours[name] != value:
            raise UserError(
                f"model.{name} is {ours[name]}, but {value} in {folder}: put back the folder "
                "that the run started from"
            )
    return truncate_positions(found.weights, found.config.block_size, config.block_size)


def truncate_positions(weights: Mapping[str, Tensor], theirs: int, ours: int) -> dict[str, Tensor]:
    """Return the weights for block_size `ours`; refuse an `ours` above `theirs`, the folder's."""
    if ours > theirs:
        raise UserError(
            f"model.block_size is {ours}, but {theirs} in the folder of train.init_from"
        )
    name = "position_embedding.weight"
    cut = {name: weights[name][:ours]} if name in weights else {}
    return {**weights, **cut}
