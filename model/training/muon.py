"""Muon: momentum whose matrices are made orthogonal; AdamW for everything that is no hidden matrix.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon). Ours and not torch.optim.Muon, because that one always
computes in bf16, which many CPUs do slowly, and one matrix at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils.device import cpu_has

# Coefficients of the quintic iteration, from the source above: they drive singular values from
# (0, 1] into about [0.7, 1.2] in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Brings all singular values of each matrix near 1, its singular vectors stay; same shape.

    A round multiplies X by a polynomial of X X^T. Where that square is smaller than X, all rounds
    are run on the square, and X is multiplied by their product in the end; in bf16 the square would
    lose the small singular values, so not there.

    >>> turned = orthogonalize(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]))
    >>> bool((torch.linalg.svdvals(turned) - 1).abs().max() < 0.35)
    True
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the smaller square is the cheaper one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    wide = x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16
    x = _turn_by_square(x) if wide else _turn(x)
    return x.mT if tall else x


def _turn(x: Tensor) -> Tensor:
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _turn_by_square(x: Tensor) -> Tensor:
    """The same: where X becomes P X, the square becomes P X X^T P, as P is symmetric."""
    square = x @ x.mT
    step = product = _polynomial(square)
    for _ in range(ROUNDS - 1):
        square = step @ square @ step
        step = _polynomial(square)
        product = step @ product
    return product @ x


def _polynomial(square: Tensor) -> Tensor:
    a, b, c = QUINTIC
    polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
    polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
    return polynomial


def bf16_is_fast(device: torch.device) -> bool:
    """Whether products in bf16 take less time than in fp32: on GPUs and the newest CPUs."""
    return device.type == "cuda" or (device.type == "cpu" and cpu_has("avx512_bf16"))


class MuonAdamW(torch.optim.AdamW):
    """AdamW for ordinary groups; Muon for groups with `muon` set, whose parameters are matrices.

    A Muon group also holds `momentum`. Matrices of one shape are orthogonalised in one go. A matrix
    that stacks several (queries, keys, values) is taken apart where it has whole multiples of its
    columns as rows and its group says so with `split`.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As AdamW's, which wants a count of steps for every weight; Muon keeps none."""
        groups = state["param_groups"]
        super().__setstate__(state | {"param_groups": [g for g in groups if not g.get("muon")]})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; none when a GradScaler found infinities, as in the fused AdamW."""
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
        # Of many tensors at once: on a GPU one start instead of one for each.
        gradients = [weight.grad for weight in weights]
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, update in zip(weights, updates, strict=True):
            size = weight.shape[1] if group["split"] else weight.shape[0]
            for part, target in zip(update.split(size), weight.split(size), strict=True):
                by_shape[tuple(part.shape)].append((part, target))
        for (rows, columns), pairs in by_shape.items():
            stacked = torch.stack([part for part, _ in pairs])
            # The iteration does not need more than bf16.
            turned = orthogonalize(stacked.bfloat16() if bf16_is_fast(stacked.device) else stacked)
            # A tall matrix has fewer singular values than rows: the same change of each output.
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            targets = [target for _, target in pairs]
            if group["weight_decay"]:
                torch._foreach_mul_(targets, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(targets, turned.to(stacked.dtype).unbind(), alpha=-rate)
