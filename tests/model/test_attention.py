"""Attention: causality, documents, dropout, and equal results of both implementations."""

from __future__ import annotations

import itertools

import pytest
import torch

from model.attention import document_mask

PATHS = ["sdpa", "manual"]
SETTINGS = [
    {"position": "learned"},
    {"position": "rope"},
    {"position": "rope", "qk_norm": True, "norm": "rmsnorm", "mlp": "swiglu"},
    {"position": "rope", "n_head": 4, "n_kv_head": 2, "head_size": 6},
    {"position": "learned", "n_head": 4, "n_kv_head": 1, "qk_norm": True},
    {"position": "learned", "qk_norm": True, "bias": True, "softcap": 5.0, "tie_weights": True},
]
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
DOCS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])


def influence(model, docs=None):
    """Return (T, T): the norm of the gradient of logits t with respect to embedding s."""
    embedded = []
    hook = model.dropout.register_forward_pre_hook(
        lambda _, args: (embedded.append(args[0].requires_grad_()), None)[1]
    )
    logits_TV = model(IDS, doc_BT=docs)[0]
    hook.remove()
    rows = []
    weights_V = torch.randn(logits_TV.shape[-1], dtype=logits_TV.dtype)  # not just the sum
    for t in range(len(logits_TV)):
        (grad_BTD,) = torch.autograd.grad(logits_TV[t] @ weights_V, embedded[0], retain_graph=True)
        rows.append(grad_BTD[0].norm(dim=-1))
    return torch.stack(rows)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("training", [False, True])
def test_causal_by_gradient(tiny, path, settings, training):
    model = tiny(attention=path, **settings).train(training)
    influence_TT = influence(model)
    future = torch.ones(8, 8, dtype=torch.bool).triu(1)
    assert (influence_TT[future] == 0).all()
    assert (influence_TT[~future] > 1e-6).all()


@pytest.mark.parametrize("path", PATHS)
def test_causal_with_attention_dropout(tiny, path):
    model = tiny(attention=path, dropout=0.3).train()
    influence_TT = influence(model)
    assert (influence_TT.triu(1) == 0).all()
    assert (influence_TT.diagonal() > 0).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_documents_do_not_see_each_other(tiny, path, settings):
    model = tiny(attention=path, **settings)
    influence_TT = influence(model, DOCS)
    allowed = document_mask(DOCS)[0, 0]
    assert (influence_TT[~allowed] == 0).all()
    assert (influence_TT[allowed] > 1e-6).all()
    changed = IDS.clone()
    changed[0, :3] = torch.tensor([7, 8, 9])  # the first document
    before, after = model(IDS, doc_BT=DOCS), model(changed, doc_BT=DOCS)
    assert torch.equal(before[:, 3:], after[:, 3:])
    assert not torch.allclose(before[:, :3], after[:, :3])
    assert not torch.allclose(model(IDS)[:, 3:], model(changed)[:, 3:])  # without doc numbers


@pytest.mark.parametrize("path", PATHS)
def test_with_rope_a_packed_document_has_its_own_logits(tiny, path):
    model = tiny(double=True, attention=path, position="rope")
    packed = model(IDS, doc_BT=DOCS)[:, 3:5]
    torch.testing.assert_close(packed, model(IDS[:, 3:5]), rtol=0, atol=1e-12)


def test_learned_positions_do_not_restart_at_a_new_document(tiny):
    model = tiny(double=True, position="learned")
    packed = model(IDS, doc_BT=DOCS)[:, 3:5]
    assert not torch.allclose(packed, model(IDS[:, 3:5]))


def test_one_document_equals_no_documents(tiny):
    for path in PATHS:
        model = tiny(double=True, attention=path)
        torch.testing.assert_close(model(IDS, doc_BT=torch.zeros_like(IDS)), model(IDS))


@pytest.mark.parametrize(("settings", "masked"), list(itertools.product(SETTINGS, (False, True))))
def test_both_paths_give_equal_logits_and_gradients(tiny, settings, masked):
    results = []
    for path in PATHS:
        model = tiny(double=True, attention=path, **settings)
        logits = model(IDS, doc_BT=DOCS if masked else None)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for fused, manual in zip(*results, strict=True):
        torch.testing.assert_close(fused, manual, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_bf16_autocast(tiny, path, settings):
    model = tiny(attention=path, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(IDS, doc_BT=DOCS)
    low.float().sum().backward()
    full = model(IDS, doc_BT=DOCS)
    assert (low.float() - full).abs().max() < 0.05 * full.abs().max()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_eval_mode_has_no_dropout(tiny, path, p):
    """The most common silent failure of other projects: attention dropout in evaluations."""
    model, plain = tiny(attention=path, dropout=p), tiny(attention=path, dropout=0.0)
    assert torch.equal(model(IDS), model(IDS))
    assert torch.equal(model(IDS), plain(IDS))
    model.train()
    assert not torch.equal(model(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), plain(IDS))


@pytest.mark.parametrize("path", PATHS)
def test_dropout_reaches_the_attention_weights(tiny, path):
    model = tiny(attention=path, dropout=0.5).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # embeddings and branches
            module.p = 0.0
    assert not torch.equal(model(IDS), model(IDS))


def test_the_mask_is_not_in_the_state_dict(tiny):
    assert list(tiny(attention="manual").state_dict()) == list(tiny().state_dict())
