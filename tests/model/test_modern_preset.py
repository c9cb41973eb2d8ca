"""The modern family: what it holds, and that the order of QK-norm and RoPE is no setting."""

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
    """The settings by which a model differs from the modern family."""
    return [name for name, value in MODERN.items() if getattr(config, name) != value]


def test_the_preset_file_says_the_same():
    _, given = load(Config, [str(ROOT / "configs" / "modern.yaml")], {})
    stated = {name.removeprefix("model."): value for name, value in given.items()}
    assert stated == {
        name: v for name, v in MODERN.items() if name not in ("bigram_rows", "pointer")
    }
    assert beyond_modern(ModelConfig(**stated)) == []


def test_the_recipe_is_of_the_family_but_for_the_table_of_pairs():
    config, _ = load(Config, [str(ROOT / "configs" / "shakespeare_cpu.yaml")], {})
    assert beyond_modern(config.model) == ["bigram_rows"]


def test_a_modern_model_has_matrices_and_nothing_else(tiny):
    model = tiny(**MODERN)
    assert {weight.ndim for weight in model.parameters()} == {2}
    assert model(torch.tensor([[1, 2, 3]])).abs().max() <= MODERN["softcap"]


def test_queries_are_normed_after_rope_as_well_as_before(tiny):
    """What the class that the family is named after does, and what we do, is the same."""
    model = tiny(**MODERN, double=True)
    x_TK = torch.randn(5, model.config.head_size, dtype=torch.float64)
    cos, sin = model.rope_cos_T1K[:5, 0], model.rope_sin_T1K[:5, 0]
    after = F.rms_norm(apply_rope(x_TK, cos, sin), x_TK.shape[-1:], eps=1e-6)
    before = apply_rope(model.blocks[0].attn.q_norm(x_TK), cos, sin)
    assert (after - apply_rope(x_TK, cos, sin)).abs().max() > 0.01  # the norm does something
    torch.testing.assert_close(before, after, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_a_norm_without_gain_is_the_one_whose_gain_is_one(kind):
    x = torch.randn(3, 192)
    with_gain = make_norm(ModelConfig(norm=kind))
    without = make_norm(ModelConfig(norm=kind, norm_gain=False))
    assert list(without.parameters()) == []
    assert torch.equal(without(x), with_gain(x))


def test_a_layer_norm_without_gain_has_no_bias():
    with pytest.raises(UserError, match="norm_gain false leaves a layer norm no bias"):
        ModelConfig(bias=True, norm_gain=False)
    ModelConfig(bias=True, norm_gain=False, norm="rmsnorm")  # biases of the linear layers alone
