"""Matrix products for a few rows (samples), batch-invariant and as fast as a CPU allows.

Libraries add in one order for a single row and in others for several rows. Each function here named
batch-invariant gives a row the same bits, whatever the other rows are. (Libraries do not guarantee
this, the tests check it. Observed with MKL and oneDNN, PyTorch 2.13.)
"""

from collections.abc import Callable
from functools import cache, partial, reduce
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TINY_MATRIX_THRESHOLD = 400  # elements; PyTorch's own bound, see `batch_invariant_matmul`
VECTOR_MULTIPLE = 64  # elements: at 2 bytes each, they fill two vectors of 512 bits, the widest
PACKED_ROWS = 16  # the batch size for which oneDNN arranges weights; other sizes work as well
# oneDNN adds up so many inputs at a time: with AVX-512 512 of up to 1,024, and 1,024 of more; with
# AVX2 always 1,024.
SUM_LENGTHS = (512, 1024)
N_TRIALS = 16  # rows to compare: a few outputs can be equal by chance, in another order, too
BLOCK = 32  # outputs that are summed together: two vectors of 512 bits; 16, 48 and 64 are slower

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
    """Return a batch-invariant product with copies of the weights in other layouts.

    Several rows take oneDNN's packed layout: it uses all cores, takes half as long as MKL for
    sixteen rows, and adds in one order for two rows and more. A single row takes the first product
    that adds in the same order, which is tried: `summed_blocks`, oneDNN's, or oneDNN's of the row
    twice. The first single row and the first batch take as long as copying the weights once or
    twice. A call costs 10 us to start, which is much for small matrices. torch.compile calls
    oneDNN's operation for frozen weights.

    >>> packed_matmul((torch.ones(2, 3), torch.tensor([0.0, 1.0])))(torch.ones(1, 3)).tolist()
    [[3.0, 4.0]]
    """
    weight_ND, bias_N = affine

    @cache  # at the first batch
    def pack() -> Any:
        return torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach(), PACKED_ROWS)

    def several(x_BD: Tensor) -> Any:  # "none", [], "": no activation follows
        return torch.ops.mkldnn._linear_pointwise.default(x_BD, pack(), bias_N, "none", [], "")

    @cache  # at the first single row
    def pick_single() -> Callable[[Tensor], Tensor]:
        D, generator = weight_ND.shape[1], torch.Generator().manual_seed(1)
        x_BD = torch.randn(N_TRIALS, D, generator=generator, dtype=weight_ND.dtype, device="cpu")
        expected_BN = several(x_BD)
        lengths = SUM_LENGTHS if D <= SUM_LENGTHS[-1] else SUM_LENGTHS[::-1]  # the likely one first
        for product in chain(map(partial(summed_blocks, affine), lengths), [several]):
            if torch.equal(torch.cat([*map(product, x_BD.split(1))]), expected_BN):
                pack.cache_clear()  # the next batch, if there is one, packs them again
                return product
        return lambda x_1D: several(x_1D.expand(2, -1))[:1]

    def product(x_BD: Tensor, onto_BN: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():  # the compiler packs weights itself
            return _unfused(affine, x_BD, onto_BN)
        y_BN = (pick_single() if len(x_BD) == 1 else several)(x_BD)
        return y_BN if onto_BN is None else y_BN.add_(onto_BN)

    return product


def summed_blocks(affine: Affine, sum_length: int) -> Callable[[Tensor], Tensor]:
    """Return a product for one row that reads the weights nearly as fast as the memory allows.

    PyTorch's sum of embeddings, weighted by x: each block of outputs has one embedding for every
    input, its weights for this input. `sum_length` inputs are added one after the other, and then
    these sums.

    >>> summed_blocks((torch.ones(2, 3), None), sum_length=2)(torch.ones(1, 3)).tolist()
    [[3.0, 3.0]]
    """
    (weight_ND, bias_N), (N, D) = affine, affine[0].shape
    n_blocks, n_sums = -(-N // BLOCK), -(-D // sum_length)
    padded_MD = F.pad(weight_ND.detach(), (0, 0, 0, -N % BLOCK))
    embeddings_ED = padded_MD.view(n_blocks, BLOCK, D).transpose(1, 2).reshape(-1, BLOCK)
    indices_E = torch.arange(len(embeddings_ED), dtype=torch.int32)
    starts = indices_E.view(n_blocks, D)[:, ::sum_length].flatten()

    def product(x_1D: Tensor) -> Tensor:
        x_E = x_1D.expand(n_blocks, -1).flatten()
        bags = torch.embedding_bag(embeddings_ED, indices_E, starts, False, 0, False, x_E)[0]
        sums_XM = reduce(torch.add, bags.view(n_blocks, n_sums, BLOCK).unbind(1))
        y_1N = sums_XM.reshape(1, -1)[:, :N]
        return y_1N if bias_N is None else y_1N + bias_N

    return product


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
