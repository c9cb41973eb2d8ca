"""Matrix products for a few rows (samples), batch-invariant and as fast as a CPU allows.

Libraries add in one order for a single row and in others for several rows. Each function here named
batch-invariant gives a row the same bits, whatever the other rows are. (Libraries do not guarantee
this, the tests check it. Observed with MKL and oneDNN, PyTorch 2.13.)
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

TINY_MATRIX_THRESHOLD = 400  # elements; PyTorch's own bound, see `batch_invariant_matmul`
VECTOR_MULTIPLE = 64  # elements: at 2 bytes each, they fill two vectors of 512 bits, the widest
PACKED_ROWS = 16  # the batch size for which oneDNN arranges weights; other sizes work as well
# The fewest rows that oneDNN is given, by processor: fewer are repeated. With AVX-512, oneDNN reads
# the weights near memory speed for 4 to 6 rows, and at three quarters of it for 1 or 2.
FEWEST_ROWS = {"AVX512": 4, "AVX2": 1}

Affine = tuple[Tensor, Tensor | None]  # weights (N, D) and bias (N)
Matmul = Callable[..., Tensor]  # arguments: x (B, D); optional (B, N) to which the product is added


def default_matmul(affine: Affine) -> Matmul:
    """Return a function for x W^T + b, (B, N), which adds it to `onto_BN` if given.

    It may overwrite `onto_BN`. Not batch-invariant.

    >>> default_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = affine

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():
            return _unfused(affine, x_BD, onto_BN)
        if onto_BN is None:
            if bias_N is None:
                return torch.mm(x_BD, weight_ND.t())
            return torch.addmm(bias_N, x_BD, weight_ND.t())
        if bias_N is not None:
            onto_BN.add_(bias_N)
        return onto_BN.addmm_(x_BD, weight_ND.t())

    return product


def _unfused(affine: Affine, x_BD: Tensor, onto_BN: Tensor | None) -> Tensor:
    """Compute the product in separate operations, which torch.compile can fuse with others."""
    weight_ND, bias_N = affine
    y_BN = torch.mm(x_BD, weight_ND.t())
    y_BN = y_BN if bias_N is None else y_BN + bias_N
    return y_BN if onto_BN is None else onto_BN + y_BN


def batch_invariant_matmul(affine: Affine) -> Matmul:
    """Return a batch-invariant `default_matmul`: a row's bits depend on no other row.

    Several rows are computed as a batch of single-row products. No other function here is faster
    for one row; with many rows it is slower, and much slower where the weights do not fit the CPU
    caches, because every row reads them again. The weights are a transposed copy, which MKL
    multiplies faster by single rows. In a batch, PyTorch multiplies the smallest matrices without
    MKL; so with them a single row is computed in a batch of two.

    >>> product = batch_invariant_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))
    >>> product(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_DN, bias_N = affine[0].detach().t().contiguous(), affine[1]
    is_tiny = weight_DN.numel() < TINY_MATRIX_THRESHOLD

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        onto_BN, B = _sum(onto_BN, bias_N), len(x_BD)
        if B == 1 and not is_tiny:
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
    """Return whether `packed_matmul` is available: fp32 on a CPU, PyTorch built with oneDNN."""
    return (
        weight_ND.device.type == "cpu"
        and weight_ND.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def packed_matmul(affine: Affine) -> Matmul:
    """Return a batch-invariant product with a copy of the weights in oneDNN's packed layout.

    oneDNN uses all cores even for one row, and takes half as long as MKL for sixteen. It adds in
    one order for two rows and more; see `fewest_rows`. A call costs 10 us to start, which is much
    for small matrices. torch.compile calls the same operation for frozen weights.

    >>> packed_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = affine
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach(), PACKED_ROWS)
    # Its arguments "none", [], "": no activation follows.
    multiply, n_rows = torch.ops.mkldnn._linear_pointwise.default, fewest_rows()

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():  # the compiler packs weights itself
            return _unfused(affine, x_BD, onto_BN)
        B = len(x_BD)
        if B < n_rows:
            copies = (x_BD,) * -(-n_rows // B)
            y_BN = multiply(torch.cat(copies), packed, bias_N, "none", [], "")[:B]
        else:
            y_BN = multiply(x_BD, packed, bias_N, "none", [], "")
        return y_BN if onto_BN is None else y_BN.add_(onto_BN)

    return product


@cache
def fewest_rows() -> int:
    """Return the `FEWEST_ROWS` of this processor; 1 only if oneDNN adds one row as it adds several.

    Environment variables can restrict PyTorch and oneDNN to other instructions than the
    processor's, so that is tried: with AVX-512, a sum of 4096 products gives other bits for 1 row.
    """
    generator = torch.Generator().manual_seed(1)
    weight_ND, x_BD = torch.randn(66, 4096, generator=generator).split((64, 2))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND, PACKED_ROWS)
    one_1N, two_2N = (
        torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], "")
        for x in (x_BD[:1], x_BD)
    )
    n_rows = FEWEST_ROWS.get(torch.backends.cpu.get_cpu_capability(), 2)
    return n_rows if torch.equal(one_1N, two_2N[:1]) else max(n_rows, 2)


def batch_invariant_attention(
    q_BGrK: Tensor, k_BGnK: Tensor, v_BGnK: Tensor, mask_X1n: Tensor | None
) -> Tensor:
    """softmax(q k^T / sqrt(K) + mask) v for one token of each row, (B, G, r, K).

    The r heads of queries that share a head of keys and values are multiplied together. `mask_X1n`
    has one vector for each of the X = B * G heads of keys. PyTorch's fused kernel is not
    batch-invariant: each thread uses a part of one buffer, where elements can have other offsets
    within a vector, so the bits depend on the thread that computes a head, and thereby on the
    number of rows.

    >>> k, v = torch.zeros(1, 1, 2, 4), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    >>> batch_invariant_attention(k[:, :, :1], k, v, None).tolist()
    [[[[2.0]]]]
    """
    X, K = k_BGnK.shape[0] * k_BGnK.shape[1], k_BGnK.shape[3]
    q_XrK, k_XnK, v_XnK = (x.flatten(0, 1) for x in (q_BGrK * K**-0.5, k_BGnK, v_BGnK))
    if X == 1:  # bmm adds in another order for a batch of one product
        q_XrK, k_XnK, v_XnK = (x.expand(2, -1, -1) for x in (q_XrK, k_XnK, v_XnK))
    scores_Xrn = torch.bmm(q_XrK, k_XnK.transpose(1, 2))
    if mask_X1n is not None:
        scores_Xrn = scores_Xrn + mask_X1n
    y_XrK = torch.bmm(scores_Xrn.softmax(-1), v_XnK)
    return y_XrK[:X].view(*q_BGrK.shape[:3], -1)


def default_attention(
    q_BGrK: Tensor, k_BGnK: Tensor, v_BGnK: Tensor, mask_X1n: Tensor | None
) -> Tensor:
    """Return what `batch_invariant_attention` does, in the fewest operations. Not batch-invariant.

    PyTorch's fused kernel divides the work by queries. For one query in fp32 on a GPU it takes ten
    times as long as the two products below.

    >>> k, v = torch.zeros(1, 1, 2, 4), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    >>> default_attention(k[:, :, :1], k, v, torch.zeros(1, 1, 2)).tolist()
    [[[[2.0]]]]
    >>> default_attention(k[:, :, :1], k, v, None).tolist()
    [[[[2.0]]]]
    """
    K = k_BGnK.shape[3]
    q_XrK, k_XnK, v_XnK = (x.flatten(0, 1) for x in (q_BGrK, k_BGnK, v_BGnK))
    if mask_X1n is None or torch.compiler.is_compiling():  # see `_unfused`
        scores_Xrn = torch.bmm(q_XrK, k_XnK.transpose(1, 2)) * K**-0.5
        scores_Xrn = scores_Xrn if mask_X1n is None else scores_Xrn + mask_X1n
    else:
        scores_Xrn = torch.baddbmm(mask_X1n, q_XrK, k_XnK.transpose(1, 2), alpha=K**-0.5)
    return torch.bmm(scores_Xrn.softmax(-1), v_XnK).view(*q_BGrK.shape[:3], -1)


def batch_invariant_elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a batch-invariant version of an elementwise function, for matrices (B, N).

    Vector instructions compute full vectors; other code, with other last digits, computes the
    elements that are left over. So each row is padded to full vectors.

    >>> batch_invariant_elementwise(torch.exp)(torch.zeros(1, 3)).tolist()
    [[1.0, 1.0, 1.0]]
    """

    def padded(x_BN: Tensor) -> Tensor:
        rest = -x_BN.shape[1] % VECTOR_MULTIPLE
        return function(F.pad(x_BN, (0, rest)))[:, :-rest] if rest else function(x_BN)

    return padded


def gelu(x_BN: Tensor) -> Tensor:
    """Return `F.gelu` of a few rows on a CPU.

    PyTorch passes contiguous tensors to oneDNN, which takes longer to start than to compute a row.
    It computes others itself, such as the views below. (PyTorch 2.13: 2 us for a row of 512
    instead of 6 to 15.)

    >>> torch.allclose(gelu(torch.ones(1, 3)), F.gelu(torch.ones(1, 3)))
    True
    """
    if len(x_BN) == 1:
        return F.gelu(x_BN.expand(2, -1))[:1]
    return F.gelu(x_BN.t()).t()
