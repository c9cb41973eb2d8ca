"""Judge an exercise of docs/exercises.md: `python -m tests.exercises.judges 3`."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from model.config import ModelConfig
from model.gpt import Block, TinyGPT
from model.layers import apply_rope, rope_table
from model.sampling.sampler import SamplingParams, next_probs
from model.training.loss import cross_entropy_sum
from model.training.optim import OptimConfig
from tok import bpe
from tok.patterns import GPT2
from utils.errors import UserError, run_cli

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "data" / "tiny.txt").read_bytes()
Judge = Callable[[Any], str]  # a module -> the figure; AssertionError: what is wrong


def same(given: object, expected: object, what: str) -> None:
    assert given == expected, f"{what}: got {given}, expected {expected}"


def close(given: Any, expected: torch.Tensor, what: str, within: float = 1e-5) -> None:
    """Check a tensor's shape and values."""
    assert isinstance(given, torch.Tensor), f"{what}: got a {type(given).__name__}, not a tensor"
    same(tuple(given.shape), tuple(expected.shape), f"{what}, shape")
    difference = (given.double() - expected.double()).abs().max().item()
    assert difference == difference, f"{what}: the result has a nan, which is not a number"
    assert difference <= within, f"{what}: differs by up to {difference:.3g}"


def words_of(raw: bytes) -> list[list[int]]:
    return [list(word) for word in bpe.pretokens(raw, GPT2)]


def randoms(*shape: int, n: int = 1, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(n)]


def judge_1(mine: Any) -> str:
    for ids, pair in (([], (1, 2)), ([1, 2], (1, 2)), ([1, 2, 1], (1, 2)), ([3, 1], (1, 2))):
        same(mine.merge(list(ids), pair, 9), bpe.merge(ids, pair, 9), f"merge({ids}, {pair}, 9)")
    ids = list(TEXT[:2000])
    for pair in pairwise(ids[:50]):
        assert mine.merge(list(ids), pair, 256) == bpe.merge(ids, pair, 256), f"merge(.., {pair})"
    return f"merge([1, 1, 1, 2], (1, 1), 256) = {mine.merge([1, 1, 1, 2], (1, 1), 256)}"


def judge_2(mine: Any) -> str:
    for raw, n in ((b"aaab aaab", 9), (b"abab cdcd", 3), (b"a", 2), (TEXT[:3000], 30)):
        same(mine.learn(words_of(raw), n), bpe.train(raw, n), f"learn({raw[:20]!r}.., {n})")
    merges = mine.learn(words_of(TEXT[:20_000]), 3)
    pieces = [bpe.decode([256 + i], merges) for i in range(3)]
    return f"the first three pieces of data/tiny.txt: {', '.join(map(repr, pieces))}"


def judge_3(mine: Any) -> str:
    merges = bpe.train(TEXT[:20_000], 100)
    tricky = [(98, 99), (97, 98), (256, 100), (257, 258)]
    for word in (b"", b"a", b"abcd", b"abab", b"bcdab"):
        same(mine.encode(word, tricky), bpe.encode_pretoken(word, tricky), f"encode({word!r})")
    ids = [i for word in bpe.pretokens(TEXT[:5000], GPT2) for i in mine.encode(word, merges)]
    assert ids == bpe.encode(TEXT[:5000], merges), "other ids for data/tiny.txt"
    return f"data/tiny.txt, first 5,000 bytes: {len(ids)} tokens with 100 merges"


def judge_4(mine: Any) -> str:
    (logits_NV,), targets_N = randoms(6, 11), torch.tensor([0, 3, 10, 5, 5, 2])
    for scale in (1.0, 1000.0):
        expected = F.cross_entropy(scale * logits_NV, targets_N)
        what = f"logits times {scale:.0f}"
        close(mine.loss(scale * logits_NV, targets_N), expected, what, 1e-5 * scale)
    uniform = mine.loss(torch.zeros(1, 2048), torch.tensor([7])).item()
    return f"equal logits for 2,048 tokens: {uniform:.4f} = ln 2048"


def judge_5(mine: Any) -> str:
    (x,) = randoms(2, 3, 8)
    close(mine.rms_norm(x, 1e-5), F.rms_norm(x, (8,), None, 1e-5), "random vectors")
    close(mine.rms_norm(x, 1.0), F.rms_norm(x, (8,), None, 1.0), "eps 1")
    close(mine.rms_norm(torch.zeros(1, 4), 1e-5), torch.zeros(1, 4), "a vector of zeros")
    root = mine.rms_norm(100 * x, 1e-9).square().mean().sqrt().item()
    return f"the root mean square of the output: {root:.4f}"


def judge_6(mine: Any) -> str:
    q, k, v = randoms(7, 4, n=3)
    y = mine.attention(q, k, v)
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    close(y, expected, "random q, k and v")
    return f"the first token's output is its own value, up to {(y[0] - v[0]).abs().max():.0f}"


def judge_7(mine: Any) -> str:
    (x,), (cos, sin) = randoms(12, 8), rope_table(12, 8, 10000.0)
    close(mine.rotate(x), apply_rope(x, cos, sin), "random vectors")
    q, k = (mine.rotate(one.expand(12, 8)) for one in randoms(1, 8, n=2))
    assert abs(q[5] @ k[3] - q[9] @ k[7]) < 1e-5, "scores depend on more than the distance"
    return "q at 5 with k at 3 scores as q at 9 with k at 7: difference below 1e-05"


def judge_8(mine: Any) -> str:
    (logits_V,) = randoms(9)
    for temperature, top_k in ((1.0, 0), (0.7, 3), (2.0, 1), (1.0, 50), (0.0, 0), (1e-3, 0)):
        params = SamplingParams(temperature, top_k)
        what = f"temperature {temperature}, top_k {top_k}"
        given = mine.probabilities(logits_V.clone(), temperature, top_k)
        close(given, next_probs(logits_V[None], params)[0], what)
    p = mine.probabilities(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5, 2).tolist()
    shown = ", ".join(f"{one:.3g}" for one in p)
    return f"logits 1, 2, 3, 4 at temperature 0.5, top-k 2: {shown}"


def judge_9(mine: Any) -> str:
    for warmup, n in ((2, 7), (5, 100), (1, 10)):
        config = OptimConfig(lr=3e-3, warmup_steps=warmup, schedule="cosine", min_lr_ratio=0.0)
        for step in range(n):
            given, expected = mine.lr_at(step, 3e-3, warmup, n), config.lr_at(step, n)
            what = f"step {step} of {n}, warmup {warmup}"
            assert abs(given - expected) < 1e-9, f"{what}: got {given}, expected {expected}"
    shown = ", ".join(str(round(mine.lr_at(step, 1.0, 2, 7), 3)) for step in range(7))
    return f"lr 1, warmup 2, 7 steps: {shown}"


def judge_10(mine: Any) -> str:
    (start, *grads), lr = randoms(3, 4, n=21), 0.01
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([theirs], lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    ours, m, v = start.clone(), torch.zeros(3, 4), torch.zeros(3, 4)
    for step, grad in enumerate(grads, start=1):
        theirs.grad = grad.clone()
        optimizer.step()
        ours, m, v = mine.adamw(ours, grad, m, v, step, lr, 0.1)
        close(ours, theirs.detach(), f"the weight after step {step}", 1e-6)
    return "20 steps as torch.optim.AdamW: difference below 1e-06"


def judge_11(mine: Any) -> str:
    q, k, v = randoms(12, 4, n=3)
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    for _ in range(2):  # two caches are independent
        cache = mine.Cache()
        for t in range(12):
            close(cache.step(q[t], k[t], v[t]), expected[t], f"the output of token {t}")
    return "12 tokens as with attention over the whole sequence: difference below 1e-05"


def alibi(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slope: float = 1.0) -> torch.Tensor:
    """ALiBi by PyTorch's attention; with slope 0, attention without positions."""
    H, T = q.shape[1], q.shape[2]
    slopes_H = slope * 2.0 ** (-8.0 * torch.arange(1, H + 1) / H)
    distance_TT = torch.arange(T)[:, None] - torch.arange(T)
    bias_HTT = -slopes_H[:, None, None] * distance_TT
    bias_HTT = bias_HTT.masked_fill(distance_TT < 0, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HTT)


def loss_with(attend: Callable[..., torch.Tensor]) -> float:
    """Train a TinyGPT with this attention on x[t] = (2 x[t-1] + x[t-2] + 1) mod 5; its last loss.

    A tenth of the tokens are random. One layer without positions cannot know the order of its past.
    """
    torch.manual_seed(1)
    model = TinyGPT(
        ModelConfig(
            vocab_size=5,
            block_size=16,
            n_layer=1,
            n_head=8,
            n_embd=32,
            position="learned",
            attention="manual",
        )
    )
    torch.nn.init.zeros_(model.position_embedding.weight).requires_grad_(False)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.attn._attend_manual = lambda q, k, v, mask: attend(q, k, v)  # type: ignore
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    total = 0.0
    for step in range(160):
        ids = torch.randint(5, (32, 2))
        for _ in range(15):
            rule = (2 * ids[:, -1] + ids[:, -2] + 1) % 5
            noise = torch.where(torch.rand(32) < 0.1, torch.randint(5, (32,)), rule)
            ids = torch.cat((ids, noise[:, None]), dim=1)
        loss = cross_entropy_sum(model(ids[:, :-1]), ids[:, 1:]) / ids[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() if step >= 140 else 0.0
    return total / 20


def judge_12(mine: Any) -> str:
    q, k, v = randoms(2, 4, 9, 8, n=3)
    close(mine.attention(q, k, v), alibi(q, k, v), "random q, k and v")
    with_positions, without = loss_with(mine.attention), loss_with(lambda *qkv: alibi(*qkv, 0.0))
    losses = f"loss {with_positions:.2f} nats; without positions {without:.2f}"
    assert with_positions < 0.7 and without > 0.9, losses
    return "loss below 0.7 nats; without positions above 0.9"


JUDGES: dict[int, Judge] = {
    int(name.removeprefix("judge_")): judge
    for name, judge in list(globals().items())
    if name.startswith("judge_")
}


def sections(text: str) -> dict[int, str]:
    """The sections of docs/exercises.md by number."""
    return {
        int(n): body for n, body in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", text, re.M | re.S)
    }


def exercise(n: int) -> tuple[str, str]:
    """The skeleton and the figure of an exercise."""
    body = sections((ROOT / "docs" / "exercises.md").read_text(encoding="utf-8"))[n]
    (skeleton,) = re.findall(r"^```python\n(.*?)^```", body, re.M | re.S)
    (figure,) = re.findall(r"^Figure: `(.*)`$", body, re.M)
    return skeleton, figure


def load(path: Path) -> ModuleType:
    """Run a learner's file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Write the skeleton of an exercise, or judge the file; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1 or words[0] not in map(str, JUDGES):
        raise UserError(f"exercise: name one of 1 to {len(JUDGES)}: make exercise N=1")
    n = int(words[0])
    skeleton, figure = exercise(n)
    path = Path("exercises") / f"ex{n:02}.py"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(skeleton, encoding="utf-8")
        print(f"wrote {path}: replace NotImplementedError, then call this again")
        return 0
    try:
        found = JUDGES[n](load(path))
    except NotImplementedError:
        raise UserError(f"{path}: not written yet: replace NotImplementedError") from None
    except AssertionError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # of the learner's code: its line is enough
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {error}") from None
    if found != figure:
        raise UserError(f"{path}: got `{found}`, expected `{figure}`")
    print(f"exercise {n} is right: {found}")
    return 0


if __name__ == "__main__":
    run_cli(main)
