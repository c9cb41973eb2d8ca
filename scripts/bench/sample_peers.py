"""Other projects' samplers for `scripts.bench sample`: the same shape, random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.config import ModelConfig
from scripts.bench.checkout import make_model
from utils.errors import UserError

Sampler = Callable[[int, int], None]  # called with (samples, new tokens per sample)


def make_nanogpt(path: str, config: ModelConfig, top_k: int, device: torch.device) -> Sampler:
    """Return nanoGPT's `GPT.generate`. The model.py of the user's checkout is run.

    Raises:
        UserError: there is no model.py.
    """
    with torch.random.fork_rng(devices=[]):
        model = make_model(Path(path), config).to(device).eval()

    def generate(n_samples: int, n_tokens: int) -> None:
        prompts_B1 = torch.zeros(n_samples, 1, dtype=torch.int64, device=device)
        model.generate(prompts_B1, n_tokens, top_k=min(top_k, config.vocab_size))

    return generate


def make_hf(config: ModelConfig, top_k: int, device: torch.device) -> Sampler:
    """Return `generate` of Hugging Face's GPT-2, with its KV cache.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        raise UserError("--hf needs transformers: pip install transformers") from None
    settings = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        bos_token_id=None,
        eos_token_id=None,  # an end token would end a sample early
    )
    with torch.random.fork_rng(devices=[]):
        model: Any = GPT2LMHeadModel(settings)
        model.to(device).eval()

    def generate(n_samples: int, n_tokens: int) -> None:
        prompts_B1 = torch.zeros(n_samples, 1, dtype=torch.int64, device=device)
        model.generate(
            prompts_B1,
            attention_mask=torch.ones_like(prompts_B1),
            max_new_tokens=n_tokens,
            do_sample=True,
            top_k=min(top_k, config.vocab_size),
            use_cache=True,
            pad_token_id=0,
        )

    return generate
