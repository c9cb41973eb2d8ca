"""Weights of a TinyGPT as tensors of the Hugging Face classes; see model/hf/weights.py."""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.config import ModelConfig
from model.hf.weights import entries_of, meta_state_dict, to_hf_layout


def to_hf_weights(
    kind: str, config: ModelConfig, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors that a Hugging Face class loads, in fp32 on the CPU; none share memory.

    Where the class has biases and gains that the model lacks, they are zeros and ones.

    Args:
        kind: the model type from `hf_model_type`, a key of NAMES.
        weights: state dict of the TinyGPT.
    """
    found: dict[str, Tensor] = {}
    complete = fill_missing_weights(kind, config, weights)
    for name, entry in entries_of(kind, config, complete).items():
        parts = to_hf_layout(entry.layout, complete[name], config)
        for theirs, part in zip(entry.names, parts, strict=True):
            found[theirs] = part.clone(memory_format=torch.contiguous_format)
    return found


def fill_missing_weights(
    kind: str, config: ModelConfig, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a state dict with all weights that a class has, in fp32 on the CPU.

    Biases that the model lacks are zeros, gains are ones.
    """
    return {
        name: (
            weights[name].detach().float().cpu()
            if name in weights
            else torch.full(meta.shape, 1.0 if name.endswith("weight") else 0.0)
        )
        for name, meta in meta_state_dict(kind, config).items()
    }
