"""Norms, activations and wrappers, each against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from model.config import ModelConfig
from model.eval_mode import eval_mode, unwrap
from model.layers import MLP, RMSNorm, activate, make_norm


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        (
            "gelu_tanh",
            lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        ("relu2", lambda x: max(x, 0.0) ** 2),
    ],
)
def test_activations_and_their_gradients(kind, formula):
    points = [-30.0, -3.0, -1.0, -0.1, 0.0, 0.1, 0.7, 2.0, 30.0]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y = activate(kind, x)
    torch.testing.assert_close(y, torch.tensor([formula(p) for p in points], dtype=torch.float64))
    y.sum().backward()
    step = 1e-6
    slopes = [(formula(p + step) - formula(p - step)) / (2 * step) for p in points]
    torch.testing.assert_close(x.grad, torch.tensor(slopes, dtype=torch.float64), atol=1e-5, rtol=0)


def test_swiglu(tiny):
    mlp = MLP(ModelConfig(n_embd=6, n_head=1, mlp="swiglu", bias=True)).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    gate, up = mlp.gate(x), mlp.fc(x)
    expected = mlp.proj(gate / (1 + torch.exp(-gate)) * up)
    torch.testing.assert_close(mlp(x), expected)


def test_rmsnorm_formula_and_eps():
    norm = RMSNorm(4, eps=0.5).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, -1.0]))
    x = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    expected = x / math.sqrt((1 + 4 + 0.25 + 9) / 4 + 0.5) * torch.tensor([1.0, 2.0, 3.0, -1.0])
    torch.testing.assert_close(norm(x), expected, check_dtype=False)
    half = norm.float()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=0.02, atol=0, check_dtype=False)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("bias", [False, True])
def test_make_norm_uses_the_settings(kind, bias):
    norm = make_norm(ModelConfig(norm=kind, bias=bias, norm_eps=0.125))
    assert norm.eps == 0.125
    assert norm.weight.shape == (192,)
    assert (getattr(norm, "bias", None) is not None) == (bias and kind == "layernorm")


@pytest.mark.parametrize("training", [False, True])
def test_eval_mode_restores_every_mode(tiny, training):
    model = tiny(dropout=0.1).train(training)
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == modes


def test_unwrap_removes_wrappers(tiny, tmp_path):
    model = tiny()
    assert unwrap(model) is model
    assert unwrap(torch.compile(model)) is model
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        assert unwrap(parallel) is model
        assert unwrap(torch.compile(parallel)) is model
        for name in unwrap(torch.compile(parallel)).state_dict():
            assert "_orig_mod" not in name and "module." not in name
    finally:
        torch.distributed.destroy_process_group()
