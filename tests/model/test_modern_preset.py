"""The modern preset: its settings, and that the order of QK-norm and RoPE makes no difference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.config import ModelConfig
from model.layers import apply_rope, make_norm
from tests.conftest import ROOT
from tests.helpers.models import MODERN
from train import Config
from utils.config.load import load
from utils.errors import UserError


def beyond_modern(config: ModelConfig) -> list[str]:
    """Return the settings by which a model differs from the modern preset."""
    return [name for name, value in MODERN.items() if getattr(config, name) != value]


def test_the_preset_file_has_these_settings():
    _, given = load(Config, [str(ROOT / "configs" / "modern.yaml")], {})
    listed = {name.removeprefix("model."): value for name, value in given.items()}
    assert listed == {
        name: v for name, v in MODERN.items() if name not in ("bigram_rows", "pointer")
    }
    assert beyond_modern(ModelConfig(**listed)) == []


def test_the_cpu_recipe_differs_by_the_bigram_embedding_only():
    config, _ = load(Config, [str(ROOT / "configs" / "shakespeare_cpu.yaml")], {})
    assert beyond_modern(config.model) == ["bigram_rows"]


def test_a_modern_model_has_only_matrices(tiny):
    model = tiny(**MODERN)
    assert {weight.ndim for weight in model.parameters()} == {2}
    assert model(torch.tensor([[1, 2, 3]])).abs().max() <= MODERN["softcap"]


def test_qk_norm_commutes_with_rope(tiny):
    """NanoChat norms after RoPE, TinyGPT before it; the results are equal."""
    model = tiny(**MODERN, double=True)
    x_TK = torch.randn(5, model.config.head_dim, dtype=torch.float64)
    cos, sin = model.rope_cos_T1K[:5, 0], model.rope_sin_T1K[:5, 0]
    after = F.rms_norm(apply_rope(x_TK, cos, sin), x_TK.shape[-1:], eps=1e-6)
    before = apply_rope(model.blocks[0].attn.q_norm(x_TK), cos, sin)
    assert (after - apply_rope(x_TK, cos, sin)).abs().max() > 0.01  # the norm has an effect
    torch.testing.assert_close(before, after, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_a_norm_without_gain_equals_one_with_gain_1(kind):
    x = torch.randn(3, 192)
    with_gain = make_norm(ModelConfig(norm=kind))
    without = make_norm(ModelConfig(norm=kind, norm_gain=False))
    assert list(without.parameters()) == []
    assert torch.equal(without(x), with_gain(x))


def test_a_layer_norm_without_gain_has_no_bias():
    with pytest.raises(UserError, match="norm_gain false removes the biases of layer norms"):
        ModelConfig(bias=True, norm_gain=False)
    ModelConfig(bias=True, norm_gain=False, norm="rmsnorm")  # biases of the linear layers only
