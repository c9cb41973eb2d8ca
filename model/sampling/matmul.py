"""A few rows times a matrix of weights: the form that a CPU computes fastest, with the same bits.

A library adds up in one order for a single row, and in others for several. So each form here gives
a row the same sums, whatever stands beside it. (Seen with MKL and oneDNN, PyTorch 2.13; the order
is nobody's promise, the tests watch it.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TINY_MATRIX_THRESHOLD = 400  # PyTorch's own bound, see `batch_invariant_matmul`
VECTORS = 64  # numbers, see `batch_invariant_elementwise`: two vectors of the widest kind, of 2 bytes a number
USUAL_ROWS = 16  # for which oneDNN lays out weights; it takes others as well

Matrix = tuple[Tensor, Tensor | None]  # weights (N, D) and bias (N)
Product = Callable[..., Tensor]  # x (B, D), and what to add the product to, (B, N), if anything


def default_matmul(matrix: Matrix) -> Product:
    """x W^T + b for each row, added to what is given: (B, N).

    May overwrite what is given. Promises nothing of its bits.

    >>> default_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = matrix

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():
            return _in_parts(matrix, x_BD, onto_BN)
        if onto_BN is None:
            if bias_N is None:
                return torch.mm(x_BD, weight_ND.t())
            return torch.addmm(bias_N, x_BD, weight_ND.t())
        if bias_N is not None:
            onto_BN.add_(bias_N)
        return onto_BN.addmm_(x_BD, weight_ND.t())

    return product


def _in_parts(matrix: Matrix, x_BD: Tensor, onto_BN: Tensor | None) -> Tensor:
    """For a compiler, which fuses parts, but not what calls a library as a whole."""
    weight_ND, bias_N = matrix
    y_BN = torch.mm(x_BD, weight_ND.t())
    y_BN = y_BN if bias_N is None else y_BN + bias_N
    return y_BN if onto_BN is None else onto_BN + y_BN


def batch_invariant_matmul(matrix: Matrix) -> Product:
    """As `default_matmul`; a row's bits do not depend on those beside it, nor on how many there are.

    Several rows are a batch of single ones: as fast as it gets for one row, slower for many, and
    much slower where the weights don't fit the caches, as every row reads them anew. The weights
    are a transposed copy, which MKL multiplies by single rows faster. In a batch PyTorch multiplies
    the smallest matrices without the library.

    >>> batch_invariant_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_DN, bias_N = matrix[0].detach().t().contiguous(), matrix[1]
    hardly_any = weight_DN.numel() < TINY_MATRIX_THRESHOLD

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        onto_BN, B = _sum(onto_BN, bias_N), len(x_BD)
        if B == 1 and not hardly_any:
            if onto_BN is None:
                return torch.mm(x_BD, weight_DN)
            return torch.addmm(onto_BN, x_BD, weight_DN)
        n = max(B, 2)
        x_B1D, weight_BDN = x_BD.expand(n, -1)[:, None], weight_DN.expand(n, -1, -1)
        if onto_BN is None:
            return torch.bmm(x_B1D, weight_BDN)[:B, 0]
        return torch.baddbmm(onto_BN.expand(n, -1)[:, None], x_B1D, weight_BDN)[:B, 0]

    return product


def _sum(onto_BN: Tensor | None, bias_N: Tensor | None) -> Tensor | None:
    if onto_BN is None or bias_N is None:
        return onto_BN if bias_N is None else bias_N[None]
    return onto_BN + bias_N


def can_pack(weight_ND: Tensor) -> bool:
    """Whether `packed_matmul` can be had: fp32 on a CPU, PyTorch built with oneDNN."""
    return (
        weight_ND.device.type == "cpu"
        and weight_ND.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def packed_matmul(matrix: Matrix) -> Product:
    """As `batch_invariant_matmul`, from a copy of the weights in the order in which oneDNN reads them.

    It takes all cores at one row already, half as long as MKL at sixteen, and adds up from the
    first number to the last, for two rows and more; so a row alone is taken twice. To start costs
    10 us, much for small matrices. What torch.compile calls where it freezes weights.

    >>> packed_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = matrix
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach(), USUAL_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():  # it takes packed weights only if it packed them itself
            return _in_parts(matrix, x_BD, onto_BN)
        if len(x_BD) == 1:
            y_BN = multiply(torch.cat((x_BD, x_BD)), packed, bias_N, "none", [], "")[:1]
        else:
            y_BN = multiply(x_BD, packed, bias_N, "none", [], "")
        return y_BN if onto_BN is None else y_BN.add_(onto_BN)

    return product


def batch_invariant_attention(
    q_BH1K: Tensor, k_BHnK: Tensor, v_BHnK: Tensor, mask_X1n: Tensor | None
) -> Tensor:
    """softmax(q k^T / sqrt(K) + mask) v for one query of each row and head, (B, H, 1, K).

    The mask holds one line for each of X = B * H heads. PyTorch's fused kernel gives each thread a
    part of one buffer, where numbers may lie at other places in a vector; so its bits depend on
    which thread takes which head, and that on the rows.

    >>> k, v = torch.zeros(1, 1, 2, 4), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    >>> batch_invariant_attention(k[:, :, :1], k, v, None).tolist()
    [[[[2.0]]]]
    """
    B, H, _, K = k_BHnK.shape
    q_X1K, k_XnK, v_XnK = (x.flatten(0, 1) for x in (q_BH1K * K**-0.5, k_BHnK, v_BHnK))
    if B * H == 1:  # one product alone is computed otherwise than one of several
        q_X1K, k_XnK, v_XnK = (x.expand(2, -1, -1) for x in (q_X1K, k_XnK, v_XnK))
    scores_X1n = torch.bmm(q_X1K, k_XnK.transpose(1, 2))
    if mask_X1n is not None:
        scores_X1n = scores_X1n + mask_X1n
    y_X1K = torch.bmm(scores_X1n.softmax(-1), v_XnK)
    return y_X1K[: B * H].view(B, H, 1, -1)


def default_attention(
    q_BH1K: Tensor, k_BHnK: Tensor, v_BHnK: Tensor, mask_X1n: Tensor | None
) -> Tensor:
    """As `batch_invariant_attention`, in the fewest operations. Promises nothing of its bits.

    For one query in fp32 PyTorch's fused kernel takes ten times as long as a product on a GPU: it
    shares the work by queries.

    >>> k, v = torch.zeros(1, 1, 2, 4), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    >>> default_attention(k[:, :, :1], k, v, torch.zeros(1, 1, 2)).tolist()
    [[[[2.0]]]]
    >>> default_attention(k[:, :, :1], k, v, None).tolist()
    [[[[2.0]]]]
    """
    B, H, _, K = k_BHnK.shape
    q_X1K, k_XnK, v_XnK = (x.flatten(0, 1) for x in (q_BH1K, k_BHnK, v_BHnK))
    if mask_X1n is None or torch.compiler.is_compiling():  # see `_in_parts`
        scores_X1n = torch.bmm(q_X1K, k_XnK.transpose(1, 2)) * K**-0.5
        scores_X1n = scores_X1n if mask_X1n is None else scores_X1n + mask_X1n
    else:
        scores_X1n = torch.baddbmm(mask_X1n, q_X1K, k_XnK.transpose(1, 2), alpha=K**-0.5)
    return torch.bmm(scores_X1n.softmax(-1), v_XnK).view(B, H, 1, -1)


def batch_invariant_elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function of each element of a matrix; a row's bits depend on that row alone.

    Vector instructions compute whole vectors of elements, and other code what is left over, with
    other last digits. So each row fills whole vectors.

    >>> batch_invariant_elementwise(torch.exp)(torch.zeros(1, 3)).tolist()
    [[1.0, 1.0, 1.0]]
    """

    def batch_invariant_matmul(x_BN: Tensor) -> Tensor:
        rest = -x_BN.shape[1] % VECTORS
        return function(F.pad(x_BN, (0, rest)))[:, :-rest] if rest else function(x_BN)

    return batch_invariant_matmul


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
