"""Tiny models for the tests of model/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.layers import rope_table

TINY = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Give every test the same global random state, and restore the previous one.

    One thread: for tiny models a second one costs more than it saves, especially on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Callable[..., TinyGPT]:
    """Return a factory of models in eval mode, with weights so large that every part matters."""

    def make(*, double: bool = False, seed: int = 1, **settings: Any) -> TinyGPT:
        config = ModelConfig(**{**TINY, **settings})
        model = TinyGPT(config).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.5 * noise + (1.0 if parameter.ndim == 1 else 0.0))
        if double:
            model = model.double()
            if config.position == "rope":  # the model's own table is rounded to fp32
                table = rope_table(
                    config.block_size, config.head_dim, config.rope_theta, torch.float64
                )
                model.rope_cos_T1K, model.rope_sin_T1K = (part[:, None] for part in table)
        return model

    return make
