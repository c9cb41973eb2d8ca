"""Rotary position embedding: rotations that depend on distances only."""

from __future__ import annotations

import pytest
import torch

from model.layers import apply_rope, rope_table


def rotate(x_K, position, theta=10000.0):
    cos_TK, sin_TK = rope_table(200, len(x_K), theta, torch.float64)
    return apply_rope(x_K, cos_TK[position], sin_TK[position])


@pytest.mark.parametrize("theta", [100.0, 10000.0])
def test_products_depend_on_the_distance_only(theta):
    q_K, k_K = torch.randn(2, 16, dtype=torch.float64)
    products = [rotate(q_K, t + 7, theta) @ rotate(k_K, t, theta) for t in (0, 1, 50, 190)]
    for product in products:
        torch.testing.assert_close(product, products[0], rtol=1e-10, atol=1e-10)
    other = rotate(q_K, 8, theta) @ rotate(k_K, 0, theta)
    assert (other - products[0]).abs() > 1e-3


def test_lengths_are_unchanged():
    x_TK = torch.randn(64, 8, dtype=torch.float64)
    y_TK = apply_rope(x_TK, *rope_table(64, 8, 10000.0, torch.float64))
    torch.testing.assert_close(y_TK.norm(dim=-1), x_TK.norm(dim=-1))
    assert torch.equal(y_TK[0], x_TK[0])


def test_table_equals_complex_rotation():
    x_TK = torch.randn(64, 8, dtype=torch.float64)
    y_TK = apply_rope(x_TK, *rope_table(64, 8, 500.0, torch.float64))
    pairs = torch.complex(x_TK[:, :4], x_TK[:, 4:])
    angles = torch.tensor(
        [[t * 500.0 ** (-k / 4) for k in range(4)] for t in range(64)], dtype=torch.float64
    )
    rotated = pairs * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat((rotated.real, rotated.imag), dim=-1)
    torch.testing.assert_close(y_TK, expected, rtol=0, atol=1e-12)


def test_table_is_fp32_with_fp32_frequencies():
    cos_TK, sin_TK = rope_table(1024, 32, 10000.0)
    assert cos_TK.dtype == sin_TK.dtype == torch.float32
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, 32, 2).float() / 32))
    angles = torch.arange(1024).float()[:, None] * frequencies
    assert torch.equal(cos_TK, torch.cat((angles, angles), -1).cos())
    assert torch.equal(sin_TK[:, 16:], angles.sin())
    assert torch.equal(sin_TK[:, :16], -angles.sin())


def test_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float64)
    try:
        assert rope_table(4, 4, 10000.0)[0].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_attends_by_distance_only(tiny):
    """A document has the same logits at every position in the row."""
    model = tiny(double=True, position="rope", n_layer=1)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    docs = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    apart = model(ids, doc_BT=docs)[:, 3:]
    torch.testing.assert_close(apart, model(ids[:, 3:]), rtol=0, atol=1e-12)
