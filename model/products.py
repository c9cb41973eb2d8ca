"""A few rows times a matrix of weights: the form that a CPU computes fastest, or always alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MANY_WEIGHTS = 1 << 18  # of a matrix, see `product`

Matrix = tuple[Tensor, Tensor | None]  # weights (N, D) and bias (N)


def product(matrix: Matrix, x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
    """x W^T + b for each row, added to what is given: (B, N).

    Computed as W x^T, which takes PyTorch on a CPU half the time for few rows of many weights. It
    runs the product with a single vector on one core, which can't read memory as fast as two; so
    where the weights are many, a row of zeros goes along.

    >>> product((torch.ones(2, 3), torch.tensor([0.0, 1.0])), torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = matrix
    twice = len(x_BD) == 1 and weight_ND.numel() >= MANY_WEIGHTS and not x_BD.is_cuda
    if twice:
        x_BD = F.pad(x_BD, (0, 0, 0, 1))
    onto_BN = _sum(onto_BN, bias_N)
    if onto_BN is None:
        y_NB = torch.mm(weight_ND, x_BD.t())
    else:
        y_NB = torch.addmm(onto_BN.t(), weight_ND, x_BD.t())
    return y_NB[:, :1].t() if twice else y_NB.t()


def product_alike(matrix: Matrix, x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
    """As `product`; a row's bits do not depend on those beside it, if B is a multiple of 4.

    Libraries add up in another order for one row, for two or three, and for a rest of rows that
    fills no block. (Seen with MKL, one and two threads; the order is nobody's promise.) Four rows
    for one cost time where weights are many, so large models go without.

    >>> product_alike((torch.ones(2, 3), torch.tensor([0.0, 1.0])), torch.ones(4, 3))[0].tolist()
    [3.0, 4.0]
    """
    weight_ND, bias_N = matrix
    onto_BN = _sum(onto_BN, bias_N)
    if onto_BN is None:
        return torch.mm(x_BD, weight_ND.t())
    return torch.addmm(onto_BN, x_BD, weight_ND.t())


def _sum(onto_BN: Tensor | None, bias_N: Tensor | None) -> Tensor | None:
    if onto_BN is None or bias_N is None:
        return onto_BN if bias_N is None else bias_N[None]
    return onto_BN + bias_N
