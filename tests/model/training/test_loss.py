"""Cross-entropy: by hand, ignored targets, precision, and compilation with the model."""

from __future__ import annotations

import math

import pytest
import torch

from model.training.loss import (
    IGNORE_INDEX,
    ModelWithLoss,
    cross_entropy_per_token,
    cross_entropy_sum,
)


def test_by_hand():
    logits_BTV = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]], dtype=torch.float64).log()
    nats = cross_entropy_sum(logits_BTV, torch.tensor([[2, 0]]))
    assert nats.item() == pytest.approx(-math.log(0.5) - math.log(0.1), rel=1e-12)
    assert nats.ndim == 0


def test_ignored_targets_add_nothing_and_get_no_gradient():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[1, IGNORE_INDEX, 2], [IGNORE_INDEX, 4, IGNORE_INDEX]])
    nats = cross_entropy_sum(logits, targets)
    picked = logits.log_softmax(-1)[[0, 0, 1], [0, 2, 1], [1, 2, 4]]
    torch.testing.assert_close(nats, -picked.sum())
    assert (cross_entropy_per_token(logits, targets) != 0).equal(targets != IGNORE_INDEX)
    nats.backward()
    assert (logits.grad[targets == IGNORE_INDEX] == 0).all()
    assert (logits.grad[targets != IGNORE_INDEX] != 0).all()


def test_a_batch_of_ignored_targets_is_zero_not_nan():
    assert cross_entropy_sum(torch.randn(1, 2, 5), torch.full((1, 2), IGNORE_INDEX)).item() == 0.0


def test_parts_add_up():
    logits, targets = torch.randn(6, 4, 9), torch.randint(9, (6, 4))
    total = cross_entropy_sum(logits, targets)
    parts = [cross_entropy_sum(logits[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(total, sum(parts))
    torch.testing.assert_close(cross_entropy_per_token(logits, targets).sum(), total)
    assert cross_entropy_per_token(logits, targets).shape == (6, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_summed_in_fp32(dtype):
    logits = (8 * torch.randn(64, 32, 50)).to(dtype)
    targets = torch.randint(50, (64, 32))
    with torch.autocast("cpu", torch.bfloat16):
        nats = cross_entropy_sum(logits, targets)
    for result in (nats, cross_entropy_sum(logits, targets)):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), cross_entropy_sum(logits.double(), targets))


def test_huge_logits():
    logits = torch.tensor([[[1e4, -1e4, 0.0]]])
    assert cross_entropy_sum(logits, torch.tensor([[1]])).item() == pytest.approx(2e4)
    assert cross_entropy_sum(logits, torch.tensor([[0]])).item() == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "learned", "tie_weights": True},
        {"norm": "rmsnorm", "qk_norm": True, "mlp": "relu2", "softcap": 15.0},
        {"pointer": True, "bigram_rows": 8, "mlp": "swiglu"},
    ],
)
def test_a_model_and_its_loss_compile_without_graph_breaks(settings, tiny):
    """Each graph break would split the program, and most of the speed-up would be lost."""
    model, ids_BT = tiny(**settings).train(), torch.randint(0, 11, (2, 8))
    module = ModelWithLoss(model)
    assert module(ids_BT, ids_BT) == cross_entropy_sum(model(ids_BT), ids_BT)
    torch._dynamo.reset()
    assert torch._dynamo.explain(module)(ids_BT, ids_BT).graph_break_count == 0
