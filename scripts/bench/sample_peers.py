"""Other projects' samplers for `scripts.bench sample`: the same shape, random weights."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from model.config import ModelConfig
from model.gpt import TinyGPT
from scripts.bench.checkout import make_model
from scripts.export.gguf import FILE_NAME, write_gguf
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

Sampler = Callable[[list[list[int]], int], None]  # called with (prompts, new tokens per sample)
LLAMA_CPP = ("xllamacpp", "gguf")


def in_own_process(make: Callable[..., Sampler], *args: object) -> Sampler:
    """Return a sampler that another process makes with `make(*args)` and calls.

    In a process that has more threads than cores, libgomp's threads wait less patiently: our
    products would be slower beside the threads of another library, even while these are idle.

    Raises:
        UserError: the process has ended, or `make` raises one; from the first call on.
    """
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, make, *args), daemon=True).start()
    theirs.close()  # so that `recv` ends if the process does

    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        try:
            connection.send((prompts, n_tokens))
            error = connection.recv()
        except (EOFError, OSError):
            error = UserError(f"the process of {make.__name__} has ended; use a smaller --shape")
        if error:
            raise error

    return generate


def serve(connection: Connection, make: Callable[..., Sampler], *args: object) -> None:
    """Make a sampler; answer each call of it that arrives with None or the error."""
    sampler: Sampler | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files are removed
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the other process has ended
        while True:
            call = connection.recv()
            try:
                sampler = sampler or make(*args)
                connection.send(sampler(*call))
            except Exception as error:  # the other process shows it
                connection.send(error)


def make_nanogpt(path: str, config: ModelConfig, top_k: int, device: torch.device) -> Sampler:
    """Return nanoGPT's `GPT.generate`. The model.py of the user's checkout is run.

    Raises:
        UserError: there is no model.py.
    """
    with torch.random.fork_rng(devices=[]):
        model = make_model(Path(path), config).to(device).eval()

    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        prompts_BT = torch.tensor(prompts, device=device)
        model.generate(prompts_BT, n_tokens, top_k=min(top_k, config.vocab_size))

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

    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        prompts_BT = torch.tensor(prompts, device=device)
        model.generate(
            prompts_BT,
            attention_mask=torch.ones_like(prompts_BT),
            max_new_tokens=n_tokens,
            do_sample=True,
            top_k=min(top_k, config.vocab_size),
            use_cache=True,
            pad_token_id=0,
        )

    return generate


def make_llama_cpp(
    config: ModelConfig, top_k: int, n_samples: int, n_tokens: int, threads: int, quantized: bool
) -> Sampler:
    """Return llama.cpp with our export of a model of this shape, in fp32 or Q8_0, on a CPU.

    Its tokenizer needs all bytes, a merge and an end-of-text token, 258 ids.

    Args:
        n_samples: the largest number of prompts.
        n_tokens: the largest number of tokens of a prompt and its continuation.

    Raises:
        UserError: llama.cpp does not support the model.
    """
    import xllamacpp

    config = replace(config, vocab_size=max(config.vocab_size, 258))
    merges = islice(product(range(config.vocab_size), range(256)), config.vocab_size - 257)
    with torch.random.fork_rng(devices=[]):
        model = TinyGPT(config)
    params = xllamacpp.CommonParams()
    params.n_parallel, params.warmup, params.verbosity = n_samples, False, 0
    params.n_ctx = n_samples * (n_tokens + 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # llama.cpp maps the file; where a mapped file cannot be deleted, it stays.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / FILE_NAME
        write_gguf(path, model, BPETokenizer(list(merges)), "bench", quantized)
        params.model.path = str(path)
        server = xllamacpp.Server(params)
    settings = {"temperature": 1.0, "samplers": ["top_k", "temperature"], "top_k": top_k}
    settings |= {"ignore_eos": True, "cache_prompt": False}

    def generate(prompts: list[list[int]], n_tokens: int) -> None:
        request = {"prompt": prompts if len(prompts) > 1 else prompts[0], "n_predict": n_tokens}
        answer = server.handle_completions(settings | request)
        found = len(answer["choices"]), answer["usage"]["completion_tokens"]
        assert found == (len(prompts), n_tokens), answer

    return generate
