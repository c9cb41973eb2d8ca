"""A few rows times a matrix of weights: the form that a CPU computes fastest, or always alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MANY_WEIGHTS = 1 << 18  # of a matrix, see `product`
HARDLY_ANY_WEIGHTS = 400  # PyTorch's own bound, see `product_alike`
VECTORS = 64  # numbers, see `alike`: two vectors of the widest kind, of 2 bytes a number

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
    """As `product`; a row's bits do not depend on those beside it, nor on how many there are.

    A library adds up in one order for a single row, and in others for several; so several are a
    batch of single rows. (Seen with MKL, one and two threads; the order is nobody's promise.) For
    many rows that takes up to three times as long, more where weights are many, so large models go
    without. In a batch PyTorch multiplies the smallest matrices without the library.

    >>> product_alike((torch.ones(2, 3), torch.tensor([0.0, 1.0])), torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = matrix
    onto_BN, B = _sum(onto_BN, bias_N), len(x_BD)
    if B == 1 and weight_ND.numel() >= HARDLY_ANY_WEIGHTS:
        if onto_BN is None:
            return torch.mm(x_BD, weight_ND.t())
        return torch.addmm(onto_BN, x_BD, weight_ND.t())
    n = max(B, 2)
    x_B1D, weight_BDN = x_BD.expand(n, -1)[:, None], weight_ND.t().expand(n, -1, -1)
    if onto_BN is None:
        return torch.bmm(x_B1D, weight_BDN)[:B, 0]
    return torch.baddbmm(onto_BN.expand(n, -1)[:, None], x_B1D, weight_BDN)[:B, 0]


def _sum(onto_BN: Tensor | None, bias_N: Tensor | None) -> Tensor | None:
    if onto_BN is None or bias_N is None:
        return onto_BN if bias_N is None else bias_N[None]
    return onto_BN + bias_N


def alike(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function of each element of a matrix; a row's bits depend on that row alone.

    Vector instructions compute whole vectors of elements, and other code what is left over, with
    other last digits. So each row fills whole vectors.

    >>> alike(torch.exp)(torch.zeros(1, 3)).tolist()
    [[1.0, 1.0, 1.0]]
    """

    def by_rows(x_BN: Tensor) -> Tensor:
        rest = -x_BN.shape[1] % VECTORS
        return function(F.pad(x_BN, (0, rest)))[:, :-rest] if rest else function(x_BN)

    return by_rows


def gelu(x_BN: Tensor) -> Tensor:
    """`F.gelu` of a few rows on a CPU.

    What is contiguous PyTorch gives to oneDNN, which takes longer to start than a row to compute;
    what is not, it computes itself. (PyTorch 2.13: 6 to 15 us for a row of 512 against 2.)

    >>> torch.allclose(gelu(torch.ones(1, 3)), F.gelu(torch.ones(1, 3)))
    True
    """
    if len(x_BN) == 1:
        return F.gelu(x_BN.expand(2, -1))[:1]
    return F.gelu(x_BN.t()).t()
