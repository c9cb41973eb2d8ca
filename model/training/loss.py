"""Cross-entropy of the next token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100  # marks targets without loss; PyTorch's default


def cross_entropy_per_token(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return -ln p(target) at each position, (B, T), in fp32 or more; 0 for IGNORE_INDEX.

    >>> cross_entropy_per_token(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE_INDEX]])).tolist()
    [[1.3862943649291992, 0.0]]
    """
    return _cross_entropy(logits_BTV, targets_BT, "none").view(targets_BT.shape)


def cross_entropy_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the sum of -ln p(target) in nats, a scalar. Ignored targets add 0.

    A sum, not a mean, so that batches can be added before the division by the number of targets. It
    is computed in fp32 under any autocast (float64 logits stay float64).

    >>> cross_entropy_sum(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE_INDEX]])).item()
    1.3862943649291992
    """
    return _cross_entropy(logits_BTV, targets_BT, "sum")


class ModelWithLoss(nn.Module):
    """A model and its loss in one module, so that they are compiled together.

    With a large vocabulary, most of the time of the loss is spent on writing the logits to memory
    and reading them again; compiling model and loss together avoids part of that.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model that maps ids (B, T), and optional document numbers, to logits (B, T, V)."""
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, *doc_BT: Tensor) -> Tensor:
        """Return the `cross_entropy_sum` of the model's logits; `doc_BT` is one tensor or none."""
        logits_BTV = self.model(ids_BT, doc_BT=doc_BT[0]) if doc_BT else self.model(ids_BT)
        return cross_entropy_sum(logits_BTV, targets_BT)


def _cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
    logits_XV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    if logits_XV.dtype in (torch.float16, torch.bfloat16):
        logits_XV = logits_XV.float()
    return F.cross_entropy(
        logits_XV, targets_BT.reshape(-1), ignore_index=IGNORE_INDEX, reduction=reduction
    )
