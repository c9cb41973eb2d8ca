"""Cross-entropy of the next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100  # a target that does not count; PyTorch's own default


def cross_entropy_per_token(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """-ln p(target) of each place, (B, T), at least in fp32; 0 where the target is IGNORE_INDEX.

    >>> cross_entropy_per_token(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE_INDEX]])).tolist()
    [[1.3862943649291992, 0.0]]
    """
    return _cross_entropy(logits_BTV, targets_BT, "none").view(targets_BT.shape)


def cross_entropy_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Sum of -ln p(target) in nats, a scalar on the logits' device; 0 where the target is ignored.

    A sum and not a mean, so that batches can be added up before they are divided by the number of
    targets. Computed in fp32 under any autocast (float64 logits stay float64).

    >>> cross_entropy_sum(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE_INDEX]])).item()
    1.3862943649291992
    """
    return _cross_entropy(logits_BTV, targets_BT, "sum")


class ModelWithLoss(nn.Module):
    """A model and its loss in one, to be compiled as one: most of what a large vocabulary costs is
    to write logits and to read them again.
    """

    def __init__(self, model: nn.Module) -> None:
        """model: ids (B, T), and perhaps document numbers, to logits (B, T, V)."""
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, *doc_BT: Tensor) -> Tensor:
        """`cross_entropy_sum` of what the model says."""
        return cross_entropy_sum(self.model(ids_BT, *doc_BT), targets_BT)


def _cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
    logits_XV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    if logits_XV.dtype in (torch.float16, torch.bfloat16):
        logits_XV = logits_XV.float()
    return F.cross_entropy(
        logits_XV, targets_BT.reshape(-1), ignore_index=IGNORE_INDEX, reduction=reduction
    )
