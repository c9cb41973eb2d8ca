from __future__ import annotations

import math

import pytest
import torch

from model.training.loss import IGNORE, LossOf, next_token_loss, summed_nats, token_nats


def test_by_hand():
    logits_BTV = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]], dtype=torch.float64).log()
    nats, count = next_token_loss(logits_BTV, torch.tensor([[2, 0]]))
    assert nats.item() == pytest.approx(-math.log(0.5) - math.log(0.1), rel=1e-12)
    assert (count.item(), count.dtype, nats.ndim) == (2, torch.int64, 0)


def test_ignored_targets_count_nothing_and_get_no_gradient():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[1, IGNORE, 2], [IGNORE, 4, IGNORE]])
    nats, count = next_token_loss(logits, targets)
    picked = logits.log_softmax(-1)[[0, 0, 1], [0, 2, 1], [1, 2, 4]]
    torch.testing.assert_close(nats, -picked.sum())
    assert count.item() == 3
    nats.backward()
    assert (logits.grad[targets == IGNORE] == 0).all()
    assert (logits.grad[targets != IGNORE] != 0).all()


def test_a_batch_of_ignored_targets_is_zero_not_nan():
    nats, count = next_token_loss(torch.randn(1, 2, 5), torch.full((1, 2), IGNORE))
    assert (nats.item(), count.item()) == (0.0, 0)


def test_parts_add_up():
    logits, targets = torch.randn(6, 4, 9), torch.randint(9, (6, 4))
    whole = next_token_loss(logits, targets)
    parts = [next_token_loss(logits[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(whole[0], sum(part[0] for part in parts))
    assert whole[1] == sum(part[1] for part in parts)
    torch.testing.assert_close(token_nats(logits, targets).sum(), whole[0])
    assert token_nats(logits, targets).shape == (6, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_summed_in_fp32(dtype):
    logits = (8 * torch.randn(64, 32, 50)).to(dtype)
    targets = torch.randint(50, (64, 32))
    with torch.autocast("cpu", torch.bfloat16):
        nats, _ = next_token_loss(logits, targets)
    for result in (nats, next_token_loss(logits, targets)[0]):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), next_token_loss(logits.double(), targets)[0])


def test_huge_logits():
    logits = torch.tensor([[[1e4, -1e4, 0.0]]])
    assert next_token_loss(logits, torch.tensor([[1]]))[0].item() == pytest.approx(2e4)
    assert next_token_loss(logits, torch.tensor([[0]]))[0].item() == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "learned", "tie_weights": True},
        {"norm": "rmsnorm", "qk_norm": True, "mlp": "relu2", "softcap": 15.0},
        {"pointer": True, "bigram_rows": 8, "mlp": "swiglu"},
    ],
)
def test_a_model_and_its_loss_compile_in_one_piece(settings, tiny):
    """A piece that the compiler can't follow cuts the model apart, and most of the gain is lost."""
    model, ids_BT = tiny(**settings).train(), torch.randint(0, 11, (2, 8))
    whole = LossOf(model)
    assert whole(ids_BT, ids_BT) == summed_nats(model(ids_BT), ids_BT)
    torch._dynamo.reset()
    assert torch._dynamo.explain(whole)(ids_BT, ids_BT).graph_break_count == 0
