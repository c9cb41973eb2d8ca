"""Other projects' samplers for `scripts.bench sample`: the same shape, random weights."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from model.config import ModelConfig
from utils.errors import UserError

Engine = Callable[[int, int], None]


def make_nanogpt(path: str, config: ModelConfig, top_k: int, device: torch.device) -> Engine:
    """nanoGPT's `GPT.generate`, from a checkout that the user names; its model.py is run.

    Raises:
        UserError: there is no model.py.
    """
    file = Path(path) / "model.py"
    if not file.is_file():
        raise UserError(
            f"--nanogpt: {file}: no such file; "
            "git clone https://github.com/karpathy/nanoGPT and name the folder"
        )
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = module.GPTConfig(
        block_size=config.block_size,
        vocab_size=config.vocab_size,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        dropout=0.0,
        bias=config.bias,
    )
    # It prints to stdout, which is for our own figures.
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(sys.stderr):
        model = module.GPT(settings).to(device).eval()

    def draw(n_samples: int, n_tokens: int) -> None:
        prompts_B1 = torch.zeros(n_samples, 1, dtype=torch.int64, device=device)
        model.generate(prompts_B1, n_tokens, top_k=min(top_k, config.vocab_size))

    return draw


def make_hf(config: ModelConfig, top_k: int, device: torch.device) -> Engine:
    """`generate` of Hugging Face's GPT-2, with its cache.

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
        eos_token_id=None,  # it would end a sample
    )
    with torch.random.fork_rng(devices=[]):
        model = GPT2LMHeadModel(settings).to(device).eval()

    def draw(n_samples: int, n_tokens: int) -> None:
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

    return draw
