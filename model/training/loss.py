"""Cross-entropy of the next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE = -100  # a target that does not count; PyTorch's own default


def token_nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """-ln p(target) of each place, (B, T), at least in fp32; 0 where the target is IGNORE.

    >>> token_nats(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]])).tolist()
    [[1.3862943649291992, 0.0]]
    """
    return _cross_entropy(logits_BTV, targets_BT, "none").view(targets_BT.shape)


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(target) in nats and the number of targets, both scalars on the logits' device.

    The quotient is the mean loss. They come apart so that batches can be added up before dividing,
    and as tensors so that a GPU is not waited for. Targets that are IGNORE count in neither. The
    sum is computed in fp32 whatever autocast says (float64 logits stay float64).

    >>> nats, count = next_token_loss(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]]))
    >>> nats.item(), count.item()
    (1.3862943649291992, 1)
    """
    return summed_nats(logits_BTV, targets_BT), (targets_BT != IGNORE).sum()


def summed_nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The sum of `next_token_loss` alone, for those who know the number of targets.

    >>> summed_nats(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]])).item()
    1.3862943649291992
    """
    return _cross_entropy(logits_BTV, targets_BT, "sum")


class LossOf(nn.Module):
    """A model and its loss in one, to be compiled as one: most of what a large vocabulary costs is
    to write logits and to read them again.
    """

    def __init__(self, model: nn.Module) -> None:
        """model: ids (B, T), and perhaps document numbers, to logits (B, T, V)."""
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, *doc_BT: Tensor) -> Tensor:
        """`summed_nats` of what the model says."""
        return summed_nats(self.model(ids_BT, *doc_BT), targets_BT)


def _cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    if logits_NV.dtype in (torch.float16, torch.bfloat16):
        logits_NV = logits_NV.float()
    return F.cross_entropy(
        logits_NV, targets_BT.reshape(-1), ignore_index=IGNORE, reduction=reduction
    )
