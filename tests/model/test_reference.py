"""The whole forward pass against a slow reference in float64, written position by position."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch


def norm(x, prefix, weights, config, kind):
    eps = config.norm_eps
    if kind == "layernorm":
        x = x - x.mean()
    y = x / math.sqrt((x**2).mean() + eps) * weights.get(prefix + ".weight", 1.0)
    return y + weights.get(prefix + ".bias", 0.0)


def linear(x, prefix, weights):
    return weights[prefix + ".weight"] @ x + weights.get(prefix + ".bias", 0.0)


def rotate(x, position, theta):
    half = len(x) // 2
    y = np.empty_like(x)
    for k in range(half):
        angle = position * theta ** (-2 * k / len(x))
        y[k] = x[k] * math.cos(angle) - x[k + half] * math.sin(angle)
        y[k + half] = x[k + half] * math.cos(angle) + x[k] * math.sin(angle)
    return y


def activation(kind, x):
    if kind == "gelu":
        return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    if kind == "gelu_tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))
    return np.maximum(x, 0) ** 2


def attention(xs, prefix, weights, config):
    H, G, K = config.n_head, config.kv_heads, config.head_dim
    out = [np.zeros(H * K) for _ in xs]
    qkv = [linear(x, prefix + ".qkv", weights) for x in xs]
    for h in range(H):
        heads = (h, H + h * G // H, H + G + h * G // H)  # of the joint axis
        qs, ks, vs = ([row[head * K :][:K] for row in qkv] for head in heads)
        if config.qk_norm:
            qs = [norm(q, prefix + ".q_norm", weights, config, "rmsnorm") for q in qs]
            ks = [norm(k, prefix + ".k_norm", weights, config, "rmsnorm") for k in ks]
        if config.position == "rope":
            qs = [rotate(q, t, config.rope_theta) for t, q in enumerate(qs)]
            ks = [rotate(k, t, config.rope_theta) for t, k in enumerate(ks)]
        for t, q in enumerate(qs):
            scores = np.array([q @ ks[s] / math.sqrt(K) for s in range(t + 1)])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            out[t][h * K : (h + 1) * K] = sum(p * vs[s] for s, p in enumerate(shares))
    return [linear(y, prefix + ".proj", weights) for y in out]


def mlp(x, prefix, weights, config):
    hidden = linear(x, prefix + ".fc", weights)
    if config.mlp == "swiglu":
        gate = linear(x, prefix + ".gate", weights)
        hidden = hidden * gate / (1 + np.exp(-gate))
    else:
        hidden = activation(config.mlp, hidden)
    return linear(hidden, prefix + ".proj", weights)


def naive_logits(model, ids):
    config = model.config
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    xs = [weights["token_embedding.weight"][i] for i in ids]
    if config.position == "learned":
        xs = [x + weights["position_embedding.weight"][t] for t, x in enumerate(xs)]
    if config.embedding_norm:
        xs = [norm(x, "embedding_norm", weights, config, config.norm) for x in xs]
    for layer in range(config.n_layer):
        prefix = f"blocks.{layer}"
        normed = [norm(x, prefix + ".attn_norm", weights, config, config.norm) for x in xs]
        branch = attention(normed, prefix + ".attn", weights, config)
        xs = [x + y for x, y in zip(xs, branch, strict=True)]
        normed = [norm(x, prefix + ".mlp_norm", weights, config, config.norm) for x in xs]
        xs = [x + mlp(y, prefix + ".mlp", weights, config) for x, y in zip(xs, normed, strict=True)]
    xs = [norm(x, "final_norm", weights, config, config.norm) for x in xs]
    head = weights["token_embedding.weight" if config.tie_weights else "head.weight"]
    logits = np.array([head @ x for x in xs])
    return config.softcap * np.tanh(logits / config.softcap) if config.softcap else logits


# Every combination of norm, position and qk_norm; the other settings alternate.
COMBINATIONS = [
    {
        "norm": kind,
        "position": position,
        "qk_norm": qk_norm,
        "mlp": ("gelu", "gelu_tanh", "relu2", "swiglu")[i % 4],
        "bias": i % 3 == 0,
        "tie_weights": i % 2 == 0,
        "softcap": 3.0 * (i in (1, 4)),
        "rope_theta": 100.0 if position == "rope" and i < 5 else 10000.0,
        "norm_eps": 1e-5 if i % 2 else 0.1,
        "norm_gain": i % 3 != 1,
        "embedding_norm": i in (1, 2, 6),
    }
    for i, (kind, position, qk_norm) in enumerate(
        itertools.product(("layernorm", "rmsnorm"), ("learned", "rope"), (False, True))
    )
]

GROUPED = [  # one, two and four heads of queries for each head of keys
    {"n_head": 4, "n_kv_head": 1, "position": "learned", "bias": True},
    {"n_head": 4, "n_kv_head": 2, "head_size": 6, "norm": "rmsnorm", "qk_norm": True},
    {"n_head": 4, "n_kv_head": 1, "head_size": 2, "qk_norm": True, "norm_gain": False},
    {"n_head": 3, "head_size": 4, "bias": True, "tie_weights": True},
]


@pytest.mark.parametrize(
    "settings", COMBINATIONS + GROUPED, ids=lambda settings: "-".join(map(str, settings.values()))
)
@pytest.mark.parametrize("attention_path", ["sdpa", "manual"])
def test_logits_equal_the_naive_ones(tiny, settings, attention_path):
    model = tiny(double=True, attention=attention_path, **settings)
    ids = [3, 1, 4, 1, 5, 9, 2]  # fewer than block_size
    expected = naive_logits(model, ids)
    logits_BTV = model(torch.tensor([ids, ids[::-1]])).detach()
    assert np.abs(expected).max() > 0.5  # not a comparison of zeros
    np.testing.assert_allclose(logits_BTV[0].numpy(), expected, rtol=0, atol=1e-11)
