"""The pointer against its formula, and everything that has to hold for any model."""

from __future__ import annotations

import math

import pytest
import torch

from model.accounting import forward_flops_per_token
from model.generate import generate_ids
from model.gpt import ModelConfig


def naive_gains(model, ids, doc=None):
    """gate(h_t) * softmax of q(h_t) . k(h_s, e_s) over s <= t, place by place, added per token."""
    (h,) = model.hidden(ids, doc)
    logits = model.logits(h).clone()
    pointer, D = model.pointer, h.shape[-1]
    table = model.token_embedding(ids[0])
    for t in range(len(h)):
        past = [s for s in range(t + 1) if doc is None or doc[0, s] == doc[0, t]]
        scores = []
        for s in past:
            e = table[s] - table[s].mean()
            e = e / (e.pow(2).mean() + 1e-5).sqrt()
            key = pointer.key.weight @ torch.cat((h[s], e))
            scores.append((pointer.query.weight @ h[t]) @ key / math.sqrt(D))
        weights = torch.stack(scores).softmax(0)
        gate = torch.log1p((pointer.gate.weight @ h[t] + pointer.gate.bias).exp())
        for s, weight in zip(past, weights, strict=True):
            logits[t, ids[0, s]] += (gate * weight).item()
    return logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("doc", [None, [[0, 0, 0, 1, 1, 1, 1]]])
def test_the_logits_are_those_of_the_formula(tiny, tied, doc):
    model = tiny(double=True, pointer=True, tie_weights=tied)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 1]])
    doc = None if doc is None else torch.tensor(doc)
    with torch.no_grad():
        got, wanted = model(ids, doc)[0], naive_gains(model, ids, doc)
        plain = model.logits(model.hidden(ids, doc))[0]
    assert (got - wanted).abs().max() < 1e-9
    assert (got - plain).abs().max() > 1e-3


def test_no_place_sees_what_comes_later_or_another_document(tiny):
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
        one, two = model(ids, doc), model(changed, doc)
        assert torch.allclose(one[:, 5:], two[:, 5:], atol=1e-5)


def test_generation_reads_the_whole_model(tiny):
    model = tiny(pointer=True)
    (ids,) = generate_ids(model, [1, 2], seeds=[0], max_new_tokens=5, temperature=0.0)
    row = [1, 2]
    for token in ids:
        with torch.no_grad():
            assert token == model(torch.tensor([row]))[0, -1].argmax()
        row.append(token)


def test_it_costs_what_it_says():
    plain, pointing = (
        ModelConfig(vocab_size=16, block_size=8, n_layer=1, n_embd=4, n_head=2, pointer=pointer)
        for pointer in (False, True)
    )
    extra = forward_flops_per_token(pointing) - forward_flops_per_token(plain)
    assert extra == 2 * (3 * 16) + 2 * 4 * 4.5
