"""Hidden states and attention weights are those of the forward pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.internals import internals
from tests.model.sampling.helpers import KINDS

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]])
DOCS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 2, 2]])


@pytest.mark.parametrize("docs", [None, DOCS], ids=["causal", "documents"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "plain")
def test_internals_are_those_of_the_forward_pass(tiny, kind, docs):
    model = tiny(double=True, dropout=0.5, **kind).train()
    inside = internals(model, IDS, doc_BT=docs)
    assert model.training, "the mode is restored"
    with torch.no_grad():
        assert torch.equal(inside.logits_BTV, model.eval()(IDS, doc_BT=docs))
        assert torch.equal(model.final_norm(inside.hidden[-1]), model.hidden(IDS, doc_BT=docs))
    assert len(inside.hidden) == len(inside.attention) + 1 == 3
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()
    if docs is not None:
        allowed = allowed & (docs[:, None, :, None] == docs[:, None, None, :])
    for weights_BHTT, x_BTD, block in zip(inside.attention, inside.hidden, model.blocks):
        assert weights_BHTT.sum(-1).allclose(torch.ones(()).double())
        assert not weights_BHTT.masked_select(~allowed.expand_as(weights_BHTT)).any()
        # The attention's output follows from the weights and the values.
        normed_BTD, attn = block.attn_norm(x_BTD), block.attn
        _, _, v_BGTK = attn._heads(attn.qkv(normed_BTD), model.rope(7))
        v_BHTK = v_BGTK.repeat_interleave(weights_BHTT.shape[1] // v_BGTK.shape[1], dim=1)
        expected = attn.proj((weights_BHTT @ v_BHTK).transpose(1, 2).flatten(2))
        mask = None if docs is None else allowed
        assert F.mse_loss(attn(normed_BTD, model.rope(7), mask), expected) < 1e-20


def test_the_pointers_gains_are_returned(tiny):
    inside = internals(tiny(pointer=True), IDS.to(torch.uint8))
    assert inside.gains_BTT is not None and inside.gains_BTT.shape == (2, 7, 7)
    assert (inside.gains_BTT.triu(1) == 0).all() and inside.gains_BTT.sum() > 0
    assert internals(tiny(), IDS).gains_BTT is None


def test_a_row_that_is_too_long_is_refused(tiny):
    with pytest.raises(ValueError, match="9 tokens do not fit in block_size 8"):
        internals(tiny(), torch.zeros(1, 9, dtype=torch.int64))
