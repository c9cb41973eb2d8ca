"""Muon: orthogonalized momentum for hidden matrices; AdamW for all other parameters.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon). This code replaces torch.optim.Muon, which always
computes in bf16 (slow on many CPUs) and handles one matrix at a time.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils.device import cpu_info

# Coefficients of the quintic Newton-Schulz iteration, from the source above. In five iterations
# singular values from about [0.002, 1] move into about [0.7, 1.2]. Smaller values grow 485-fold.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Move the singular values of each matrix towards 1; keep shape and singular vectors.

    An iteration multiplies X by a polynomial of the Gram matrix X X^T. If the Gram matrix has
    at most half the size of X, all iterations run on it, and X is multiplied by their product at
    the end. This is not done in bf16: a Gram matrix that is not computed from X again would lose
    the small singular values.

    Args:
        matrices: (number, rows, columns).

    >>> orthogonal = orthogonalize(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]))
    >>> bool((torch.linalg.svdvals(orthogonal) - 1).abs().max() < 0.35)
    True
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # for the smaller Gram matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    use_gram = x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16
    x = _iterate_on_gram(x) if use_gram else _iterate(x)
    return x.mT if tall else x


def _iterate(x: Tensor) -> Tensor:
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        without_a = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, without_a, x, beta=a)
    return x


def _iterate_on_gram(x: Tensor) -> Tensor:
    """Return what `_iterate` does: if X becomes P X, its Gram matrix becomes P X X^T P.

    P, a polynomial of the Gram matrix, is symmetric.
    """
    gram = x @ x.mT
    factor = product = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    return product @ x


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = QUINTIC
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
    return polynomial


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether bf16 products are faster than fp32 ones: on GPUs and the newest CPUs."""
    return device.type == "cuda" or bool(device.type == "cpu" and cpu_info("avx512_bf16"))


class MuonAdamW(torch.optim.AdamW):
    """AdamW for ordinary groups; Muon for groups with `muon` set, whose parameters are matrices.

    A Muon group also holds `momentum`. Matrices of the same shape are orthogonalized together. If
    a group's `split` is not (), each of its matrices is a stack of matrices with these numbers of
    rows (queries, keys, values), which are orthogonalized separately.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state. AdamW's own method would require a step count, which Muon lacks."""
        groups = state["param_groups"]
        # A copy that is being made by copy or pickle has no param_groups yet.
        for group, ours in zip(groups, getattr(self, "param_groups", groups), strict=True):
            if "split" in group:  # version 0.2 stored a bool instead of the rows
                group["split"] = ours["split"]
        super().__setstate__(state | {"param_groups": [g for g in groups if not g.get("muon")]})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of AdamW and of Muon; none if a GradScaler found infinities."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group.get("muon")]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None or not found_inf.item():
            for group in groups:
                if group.get("muon"):
                    self._muon_step(group)
        return loss

    def _muon_step(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        # One kernel for all tensors instead of one for each.
        gradients = [weight.grad for weight in weights]
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, update in zip(weights, updates, strict=True):
            rows = group["split"] or len(weight)
            for part, target in zip(update.split(rows), weight.split(rows), strict=True):
                by_shape[tuple(part.shape)].append((part, target))
        for (rows, columns), pairs in by_shape.items():
            stacked = torch.stack([part for part, _ in pairs])
            # The iteration needs no more than bf16.
            orthogonal = orthogonalize(
                stacked.bfloat16() if bf16_is_fast(stacked.device) else stacked
            )
            # The rows of a tall orthogonal matrix have a norm of sqrt(columns / rows) on average;
            # this scales them to 1, so each output changes as much as with a square matrix.
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            targets = [target for _, target in pairs]
            if group["weight_decay"]:
                torch._foreach_mul_(targets, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(targets, orthogonal.to(stacked.dtype).unbind(), alpha=-rate)
