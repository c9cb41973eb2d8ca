"""The pointer against its formula, and the properties that hold for any model."""

from __future__ import annotations

import math

import pytest
import torch

from model.config import ModelConfig
from model.flops import forward_flops_per_token


def naive_logits(model, ids, doc=None):
    """Return the logits, position by position: softmax over 0 ("none") and q(h_t) . k(h_(s-1))."""
    (h,) = model.hidden(ids, doc_BT=doc)
    pointer, D = model.pointer, h.shape[-1]
    table = model.token_embedding(ids[0])
    table = table - table.mean(dim=-1, keepdim=True)
    table = table / (table.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    rows = []
    for t in range(len(h)):
        found = [s for s in range(1, t + 1) if doc is None or doc[0, s - 1] == doc[0, t]]
        scores = [torch.zeros((), dtype=h.dtype)]
        for s in found:
            key = pointer.key.weight @ h[s - 1]
            scores.append((pointer.query.weight @ h[t]) @ key / math.sqrt(D))
        weights = torch.stack(scores).softmax(0)[1:]
        retrieved = sum(
            (w * table[s] for w, s in zip(weights, found, strict=True)),
            torch.zeros(D, dtype=h.dtype),
        )
        logits = model.logits(h[t] + pointer.out.weight @ retrieved)
        gate = torch.log1p((pointer.gate.weight @ h[t] + pointer.gate.bias).exp())
        for s, weight in zip(found, weights, strict=True):
            logits[ids[0, s]] += (gate * weight).item()
        rows.append(logits)
    return torch.stack(rows)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("doc", [None, [[0, 0, 0, 1, 1, 1, 1]]])
def test_the_logits_follow_the_formula(tiny, tied, doc):
    model = tiny(double=True, pointer=True, tie_weights=tied)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 1]])
    doc = None if doc is None else torch.tensor(doc)
    with torch.no_grad():
        found, expected = model(ids, doc_BT=doc)[0], naive_logits(model, ids, doc)
        plain = model.logits(model.hidden(ids, doc_BT=doc))[0]
    assert (found - expected).abs().max() < 1e-9
    assert (found - plain).abs().max() > 1e-3


def test_no_position_depends_on_later_tokens_or_other_documents(tiny):
    model = tiny(pointer=True)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    other = ids.clone()
    other[0, 5:] = torch.tensor([7, 8, 0])
    with torch.no_grad():
        one, two = model(ids), model(other)
        assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:], two[:, 5:])
        doc = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
        changed = ids.clone()
        changed[0, :5] = torch.tensor([9, 9, 0, 2, 2])
        one, two = model(ids, doc_BT=doc), model(changed, doc_BT=doc)
        assert torch.allclose(one[:, 5:], two[:, 5:], atol=1e-5)


def test_the_flops_of_a_pointer():
    plain, pointing = (
        ModelConfig(vocab_size=16, block_size=8, n_layer=1, n_embd=4, n_head=2, pointer=pointer)
        for pointer in (False, True)
    )
    extra = forward_flops_per_token(pointing) - forward_flops_per_token(plain)
    assert extra == 2 * (3 * 16) + 4 * 4 * 4.5


def test_many_small_gains_add_up_in_half_precision(tiny):
    model = tiny(pointer=True, vocab_size=2, block_size=128).bfloat16()
    x = torch.zeros(1, 1, 8, dtype=torch.bfloat16)
    gains = torch.full((1, 1, 128), 1 / 128, dtype=torch.bfloat16)
    logits = model._logits_with_gains(x, gains, torch.zeros(1, 128, dtype=torch.long))
    assert logits.dtype == torch.float32 and logits.tolist() == [[[1.0, 0.0]]]
