"""llm-tiny in one file: byte-level BPE, a GPT, AdamW, sampling. Read it, then run it:

    python docs/one_file.py

It trains on data/tiny.txt for about two minutes and prints the loss and a sample. The rest of the
repository does the same, faster, with more settings, and with checkpoints. A test copies this
file's weights and batches into the real trainer and compares the losses.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB_SIZE = 512
BLOCK_SIZE = 96  # the most tokens that the model sees together
N_LAYER, N_HEAD, N_EMBD = 3, 4, 128
BATCH_SIZE, STEPS, WARMUP_STEPS = 16, 600, 30
LR, BETAS, WEIGHT_DECAY, GRAD_CLIP = 3e-3, (0.9, 0.95), 0.1, 1.0

# 1. The tokenizer: text to ids. Ids 0 to 255 are the bytes; each merge of two ids makes a new one.

Pair = tuple[int, int]


def pretokens(text: str) -> list[bytes]:
    """Split text into words (with the space before), numbers, punctuation and white space."""
    return [piece.encode() for piece in re.findall(r" ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+", text)]


def pairs_of(ids: list[int]) -> list[Pair]:
    """Return all pairs of neighbours."""
    return list(zip(ids[:-1], ids[1:], strict=True))


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replace a pair from left to right: merge([1, 2, 3, 1, 2], (1, 2), 4) is [4, 3, 4]."""
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def learn_merges(text: str, vocab_size: int) -> dict[Pair, int]:
    """Return pair -> new id. The most frequent pair is merged, again and again (Sennrich 2016)."""
    words = [(list(word), count) for word, count in Counter(pretokens(text)).items()]
    merges: dict[Pair, int] = {}
    for new_id in range(256, vocab_size):
        counts: Counter[Pair] = Counter()
        for ids, count in words:
            for pair in pairs_of(ids):
                counts[pair] += count
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))  # ties: lowest ids
        merges[best] = new_id
        words = [(merge(ids, best, new_id), count) for ids, count in words]
    return merges


def encode(text: str, merges: dict[Pair, int]) -> list[int]:
    """Apply the merges to each pre-token, in the order in which they were learned."""
    ids_of_word: dict[bytes, list[int]] = {}
    encoded: list[int] = []
    for word in pretokens(text):
        if word not in ids_of_word:
            ids = list(word)
            while pairs := [pair for pair in pairs_of(ids) if pair in merges]:
                first = min(pairs, key=merges.__getitem__)
                ids = merge(ids, first, merges[first])
            ids_of_word[word] = ids
        encoded += ids_of_word[word]
    return encoded


def decode(ids: list[int], merges: dict[Pair, int]) -> str:
    """Concatenate the bytes of the ids."""
    token_bytes = {i: bytes([i]) for i in range(256)}
    for (left, right), new_id in merges.items():
        token_bytes[new_id] = token_bytes[left] + token_bytes[right]
    return b"".join(token_bytes[i] for i in ids).decode("utf-8", errors="replace")


# 2. The model: ids to logits. Axes: B batch, T time, D width, H heads, K head size, V vocabulary.


class Attention(nn.Module):
    """Each position mixes its own and earlier values by how well their keys match its query."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(N_EMBD, 3 * N_EMBD, bias=False)
        self.proj = nn.Linear(N_EMBD, N_EMBD, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        B, T, D = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = (
            part.view(B, T, N_HEAD, D // N_HEAD).transpose(1, 2)
            for part in self.qkv(x_BTD).split(D, dim=2)
        )
        scores_BHTT = q_BHTK @ k_BHTK.transpose(2, 3) / math.sqrt(D // N_HEAD)
        future_TT = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
        weights_BHTT = scores_BHTT.masked_fill(future_TT, -math.inf).softmax(dim=3)
        return self.proj((weights_BHTT @ v_BHTK).transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    """Two matrices with a GELU between them, applied to each position separately."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(N_EMBD, 4 * N_EMBD, bias=False)
        self.proj = nn.Linear(4 * N_EMBD, N_EMBD, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.proj(F.gelu(self.fc(x_BTD)))


class Block(nn.Module):
    """One layer: attention and MLP, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm, self.attn = nn.LayerNorm(N_EMBD, bias=False), Attention()
        self.mlp_norm, self.mlp = nn.LayerNorm(N_EMBD, bias=False), MLP()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self.attn(self.attn_norm(x_BTD))
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class GPT(nn.Module):
    """Embeddings, blocks, a last norm, and a head that is the token embedding (tied weights)."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCAB_SIZE, N_EMBD)
        self.position_embedding = nn.Embedding(BLOCK_SIZE, N_EMBD)
        self.blocks = nn.ModuleList(Block() for _ in range(N_LAYER))
        self.final_norm = nn.LayerNorm(N_EMBD, bias=False)
        for name, weight in self.named_parameters():
            # GPT-2's scheme: smaller for matrices whose results are added to the residual stream.
            if weight.dim() == 2:
                std = 0.02 / math.sqrt(2 * N_LAYER) if name.endswith("proj.weight") else 0.02
                nn.init.normal_(weight, std=std)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Ids (B, T) to logits (B, T, V): those at position t score what follows ids 0 to t."""
        T = ids_BT.shape[1]
        x_BTD = self.token_embedding(ids_BT) + self.position_embedding.weight[:T]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.final_norm(x_BTD) @ self.token_embedding.weight.t()


# 3. Training: predict each next token, and follow the gradient. Axis N: all ids of the text.


def get_batch(ids_N: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (B, T): the targets are the inputs, one token later."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(len(ids_N) - BLOCK_SIZE, (BATCH_SIZE,), generator=generator).tolist()
    x_BT = torch.stack([ids_N[start : start + BLOCK_SIZE] for start in starts])
    y_BT = torch.stack([ids_N[start + 1 : start + BLOCK_SIZE + 1] for start in starts])
    return x_BT, y_BT


def lr_at(step: int) -> float:
    """Return the learning rate: a linear warmup, then half a cosine down to 0 at the last step."""
    if step < WARMUP_STEPS:
        return LR * (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS + 1) / (STEPS - WARMUP_STEPS)
    return LR * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW. Matrices decay, gains of norms do not. `train_step` sets the learning rate."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, ids_N: Tensor, step: int
) -> float:
    """Take one step; return the loss before it, in nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = lr_at(step)
    x_BT, y_BT = get_batch(ids_N, step)
    loss = F.cross_entropy(model(x_BT).flatten(0, 1), y_BT.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
    optimizer.step()
    return loss.item()


# 4. Sampling: choose the next token at random by its probability, append it, and repeat.


@torch.no_grad()
def sample(model: nn.Module, ids: list[int], n_tokens: int, temperature: float = 0.8) -> list[int]:
    """Return the ids, continued by `n_tokens`."""
    ids = list(ids)
    for _ in range(n_tokens):
        logits_V = model(torch.tensor([ids[-BLOCK_SIZE:]]))[0, -1]
        ids.append(int(torch.multinomial((logits_V / temperature).softmax(dim=0), 1)))
    return ids


def main() -> None:
    """Train on data/tiny.txt, and print the loss and a sample."""
    torch.manual_seed(1)
    text = (Path(__file__).parents[1] / "data" / "tiny.txt").read_text(encoding="utf-8")
    merges = learn_merges(text, VOCAB_SIZE)
    ids_N = torch.tensor(encode(text, merges))
    model = GPT()
    optimizer, start = make_optimizer(model), time.perf_counter()
    n_weights = sum(weight.numel() for weight in model.parameters())
    print(f"{len(text):,} characters, {len(ids_N):,} tokens, {n_weights:,} weights")
    for step in range(STEPS):
        loss = train_step(model, optimizer, ids_N, step)
        if step % 50 == 0 or step == STEPS - 1:
            seconds = time.perf_counter() - start
            print(f"step {step}: loss {loss:.3f} nats/token, {seconds:.0f} s", flush=True)
    print(decode(sample(model, encode("Once there was", merges), 150), merges))


if __name__ == "__main__":
    main()
