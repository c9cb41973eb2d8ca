"""Models with every combination of settings that a Hugging Face class supports."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.hf.folder import Pretrained, read_config, read_folder
from scripts.export.hf_config import hf_model_type
from scripts.export.hf_folder import folder_tokenizer_files, model_files
from tok.formats.convert import read_folder_tokenizer
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

ORACLE = "oracle: not installed (pip install transformers safetensors)"
SHAPE = {"block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 16}
UNUSUAL = {
    "mlp_ratio": 2.5,
    "norm_eps": 3e-5,
}  # not the defaults, so that tests notice if they are ignored
# Each setting on which the class or its computation depends, with all values that a class supports.
CHOICES: dict[str, tuple[Any, ...]] = {
    "position": ("learned", "rope"),
    "norm": ("layernorm", "rmsnorm"),
    "norm_gain": (True, False),
    "embedding_norm": (False, True),
    "mlp": ("gelu", "gelu_tanh", "relu2", "swiglu"),
    "qk_norm": (False, True),
    "bias": (True, False),
    "tie_weights": (False, True),
    "softcap": (0.0, 15.0),
}


def config_of(settings: dict[str, Any]) -> ModelConfig:
    theta = {"rope_theta": 500.0} if settings["position"] == "rope" else {}
    return ModelConfig(**{"vocab_size": 300} | SHAPE | UNUSUAL | theta | settings)


def exportable() -> list[dict[str, Any]]:
    """All combinations of CHOICES that a class supports."""
    found = []
    for values in product(*CHOICES.values()):
        settings = dict(zip(CHOICES, values))
        try:
            hf_model_type(config_of(settings))
        except UserError:
            continue
        found.append(settings)
    return found


# Grouped-query attention with 1, 2 and 4 heads of queries for each head of keys, and heads whose
# size is not n_embd / n_head.
GROUPED = [
    family | {"n_head": 4, "n_kv_head": n_kv_head, "head_size": head_size, "tie_weights": tie}
    for family in (
        {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": True},  # Llama
        {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "qk_norm": True},  # Qwen3
    )
    for n_kv_head, head_size, tie in product((4, 2, 1), (0, 6), (False, True))
    if (n_kv_head, head_size) != (4, 0)  # that is ordinary attention
]
NANOCHAT = {"norm_gain": False, "embedding_norm": True, "mlp": "relu2", "softcap": 15.0}
GROUPED.append(GROUPED[-1] | NANOCHAT)
COMBINATIONS = exportable() + GROUPED


def name_of(settings: dict[str, Any]) -> str:
    words = [name if value is True else f"{value}" for name, value in settings.items() if value]
    return "-".join([hf_model_type(config_of(settings)), *words])


def make_model(config: ModelConfig) -> TinyGPT:
    """A model with weights so large that each of them affects the logits; gains are near 1."""
    model, generator = TinyGPT(config).eval(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def files_of(
    config: ModelConfig, weights: dict[str, torch.Tensor], tokenizer: BPETokenizer
) -> dict[str, bytes]:
    """The files of an exported folder."""
    files = model_files(config, weights, tokenizer.eot_id)
    return files | folder_tokenizer_files(tokenizer, config.block_size)


def read(folder: Path) -> tuple[Pretrained, BPETokenizer]:
    """The model and the tokenizer of a folder, read in the same order as by a run."""
    tokenizer = read_folder_tokenizer(folder, read_config(folder).vocab_size)
    return read_folder(folder), tokenizer


def write(folder: Path, model: TinyGPT, tokenizer: BPETokenizer) -> Path:
    pytest.importorskip("safetensors", reason=ORACLE)
    for name, content in files_of(model.config, model.state_dict(), tokenizer).items():
        (folder / name).write_bytes(content)
    return folder
