"""Products of a few rows: each row has the same bits, whatever the number of rows."""

import pytest
import torch

from model.sampling import matmul

PROCESSOR = torch.backends.cpu.get_cpu_capability()

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="oneDNN's order of addition"
)


@pytest.mark.parametrize("fewest", [1, 2, 4, 6])
@pytest.mark.parametrize("shape", [(65, 384), (384, 1536), (100, 4100)])
def test_packed_rows_have_the_same_bits_with_the_row_counts_of_every_processor(
    shape, fewest, monkeypatch
):
    """1 stands for AVX2; with AVX-512, oneDNN adds one long row in another order than several."""
    monkeypatch.setattr(matmul, "FEWEST_ROWS", {PROCESSOR: fewest})
    matmul.fewest_rows.cache_clear()
    try:
        product = matmul.packed_matmul((torch.randn(shape), torch.randn(shape[0])))
    finally:
        matmul.fewest_rows.cache_clear()
    x_BD, onto_BN = torch.randn(37, shape[1]), torch.randn(37, shape[0])
    for onto in (None, onto_BN):
        all_BN = product(x_BD, onto)
        for n in range(1, 20):
            assert torch.equal(product(x_BD[:n], None if onto is None else onto[:n]), all_BN[:n])


def test_unknown_processors_compute_at_least_two_rows(monkeypatch):
    monkeypatch.setattr(matmul, "FEWEST_ROWS", {})
    assert matmul.fewest_rows.__wrapped__() == 2
