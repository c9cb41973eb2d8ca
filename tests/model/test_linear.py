"""Linear layers as convolutions: equal results and gradients, and only where they are faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import linear as module
from model.linear import Linear, linear, use_conv


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Allow convolutions everywhere; return the shapes of the images convolved so far."""
    shapes: list[torch.Size] = []
    real = F.conv2d

    def conv2d(image: Tensor, *rest: Tensor | None) -> Tensor:
        shapes.append(image.shape)
        return real(image, *rest)

    monkeypatch.setattr(module, "CONVOLUTION_IS_FASTER", True)
    monkeypatch.setattr(module, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(F, "conv2d", conv2d)
    return shapes


def results(function, x_BTD: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Return the product, and the gradients of all its inputs."""
    inputs = [t.clone().requires_grad_() for t in (x_BTD, weight, bias) if t is not None]
    y = function(*inputs)
    gradients = torch.autograd.grad(y, inputs, torch.randn(y.shape, generator=torch.Generator()))
    return [y, *gradients]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 3, 1), (2, 5, 3, 4), (3, 17, 8, 33), (2, 64, 32, 96)])
def test_the_convolution_equals_the_product(
    shape: tuple[int, int, int, int], bias: bool, convolved: list[torch.Size]
) -> None:
    torch.manual_seed(0)
    B, T, D, N = shape
    x_BTD, weight_ND = torch.randn(B, T, D), torch.randn(N, D)
    inputs = (x_BTD, weight_ND, torch.randn(N) if bias else None)
    found, expected = results(linear, *inputs), results(F.linear, *inputs)
    assert convolved == [(B, D, T, 1)]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.is_contiguous()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_slice_of_a_larger_tensor_and_a_transposed_weight(convolved: list[torch.Size]) -> None:
    x_BTD, weight_ND = torch.randn(2, 9, 12)[:, 1:, 4:8], torch.randn(4, 6).T
    torch.testing.assert_close(linear(x_BTD, weight_ND), x_BTD @ weight_ND.T)
    assert len(convolved) == 1


def test_other_cases_use_pytorchs_linear(
    convolved: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    x_BTD, weight_ND = torch.ones(1, 4, 3), torch.ones(2, 3)
    assert use_conv(x_BTD, weight_ND)
    assert not use_conv(x_BTD.double(), weight_ND.double())
    assert not use_conv(x_BTD[0], weight_ND)
    assert not use_conv(x_BTD.to("meta"), weight_ND.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not use_conv(x_BTD, weight_ND)
        assert linear(x_BTD, weight_ND).dtype == torch.bfloat16
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not use_conv(x_BTD, weight_ND)
    monkeypatch.undo()
    assert not use_conv(x_BTD, weight_ND)  # far too small
    assert linear(x_BTD[0, 0], weight_ND).tolist() == [3.0, 3.0] and convolved == []


@pytest.mark.parametrize(
    ("name", "avx512", "expected"),
    [("AMD EPYC", True, True), ("AMD EPYC", False, False), ("Intel Xeon", True, False)],
)
def test_the_processors_that_use_convolutions(
    name: str, avx512: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"cpu_name": name, "avx512_f": avx512}
    monkeypatch.setattr(module, "cpu_info", facts.get)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert module.convolution_is_faster() is expected
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert module.convolution_is_faster() is False


def test_a_layer_has_pytorchs_parameters_and_initial_values() -> None:
    torch.manual_seed(0)
    ours = Linear(3, 5)
    torch.manual_seed(0)
    theirs = nn.Linear(3, 5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x_BTD = torch.randn(2, 4, 3)
    assert torch.equal(ours(x_BTD), theirs(x_BTD))
