"""Runs that start from another project's model: `train.init_from`, a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import ModelConfig
from model.hf.folder import read_config, read_folder, read_tokenizer
from settings import Config
from tok.tokenizer import BPETokenizer
from utils.config.load import build, flatten
from utils.errors import UserError
from utils.run.folder import RunFolder

OWN = ("dropout", "attention")  # settings of the model that are the run's, not the folder's


def adopt(config: Config, given: Mapping[str, Any]) -> Config:
    """The settings with the model that `train.init_from` names; unchanged where it names none.

    Args:
        given: the settings that stand in files and flags, by name.

    Raises:
        UserError: a given setting contradicts the folder, or TinyGPT can't be its model.
    """
    folder = config.train.init_from
    if not folder:
        return config
    values, theirs = flatten(config), flatten(read_config(Path(folder)))
    if config.data.tokenizer:
        raise UserError("train.init_from brings its own tokenizer; drop data.tokenizer")
    for leaf, value in theirs.items():
        name = f"model.{leaf}"
        shorter = leaf == "block_size" and name in given and given[name] <= value
        if leaf in OWN or shorter:
            continue
        if name in given and given[name] != value:
            raise UserError(f"{name} is {given[name]}, but {value} in {folder}; leave it out")
        values[name] = value
    return build(Config, values)


def starting_point(
    config: Config, run: RunFolder, state: object | None
) -> tuple[dict[str, Tensor] | None, BPETokenizer | None]:
    """The weights to begin with, and the tokenizer that belongs to them; none without init_from.

    Args:
        run: of a run that goes on, it holds the tokenizer; the other folder may be gone by now.
        state: the checkpoint to go on from, whose weights are further.

    Raises:
        UserError: the folder is damaged, or no longer the one that the settings came from.
    """
    folder = config.train.init_from
    if not folder:
        return None, None
    if state:
        return None, (
            BPETokenizer.load(run.tokenizer)
            if run.tokenizer.exists()
            else read_tokenizer(Path(folder))
        )
    found = read_folder(folder)
    ours, theirs = flatten(config.model), flatten(found.config)
    for name, value in theirs.items():
        if name not in (*OWN, "block_size") and ours[name] != value:
            raise UserError(
                f"model.{name} is {ours[name]}, but {value} in {folder}: put the folder back that "
                "the run was begun with"
            )
    return shortened(found.weights, found.config, config.model), found.tokenizer


def shortened(
    weights: Mapping[str, Tensor], theirs: ModelConfig, ours: ModelConfig
) -> dict[str, Tensor]:
    """The weights for a block_size that is at most theirs."""
    if ours.block_size > theirs.block_size:
        raise UserError(
            f"model.block_size is {ours.block_size}, but {theirs.block_size} in the folder of "
            "train.init_from"
        )
    name = "position_embedding.weight"
    cut = {name: weights[name][: ours.block_size]} if name in weights else {}
    return {**weights, **cut}
