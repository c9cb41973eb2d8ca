"""Products of a few rows: each row has the same bits, whatever the number of rows."""

import pytest
import torch

from model.sampling import matmul

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="oneDNN's order of addition"
)


ORDERS = {"the order found": matmul.SUM_LENGTHS, "no order found": (7,)}


@pytest.mark.parametrize("sum_lengths", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize(
    "shape", [(65, 384), (64, 640), (384, 1536), (100, 4100), (1, 600), (1, 1025), (3, 5)]
)
def test_packed_rows_have_the_same_bits(shape, sum_lengths, monkeypatch):
    monkeypatch.setattr(matmul, "SUM_LENGTHS", sum_lengths)
    product = matmul.packed_matmul((torch.randn(shape), torch.randn(shape[0])))
    x_BD, onto_BN = torch.randn(37, shape[1]), torch.randn(37, shape[0])
    for onto in (None, onto_BN):
        all_BN = product(x_BD, onto)
        for n in [1, *range(1, 20)]:
            assert torch.equal(product(x_BD[:n], None if onto is None else onto[:n]), all_BN[:n])


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sum_length", [1, 5, 32, 999])
@pytest.mark.parametrize("shape", [(1, 1), (31, 7), (32, 5), (33, 32), (100, 65)])
def test_summed_blocks_are_the_product(shape, sum_length, has_bias):
    weight_ND, bias_N = torch.randn(shape), torch.randn(shape[0]) if has_bias else None
    x_1D = torch.randn(1, shape[1])
    expected = torch.nn.functional.linear(x_1D, weight_ND, bias_N)
    found = matmul.summed_blocks((weight_ND, bias_N), sum_length)(x_1D)
    assert torch.allclose(found, expected, atol=1e-5)
