"""Checkpoints: what is loaded, and which damage is refused with which message."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from model.load import load_model
from utils.errors import UserError


def checkpoint_of(model, **extra):
    return {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "config": {"model": dataclasses.asdict(model.config), "optim": {"lr": 1e-3}},
        **extra,
    }


def message(checkpoint):
    with pytest.raises(UserError) as caught:
        load_model(checkpoint)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position": "learned", "tie_weights": True, "bias": True, "attention": "manual"},
        {"mlp": "swiglu", "norm": "rmsnorm", "qk_norm": True, "softcap": 15.0, "dropout": 0.2},
    ],
)
def test_round_trip_through_a_file(tiny, settings):
    model = tiny(**settings)
    file = io.BytesIO()
    torch.save(checkpoint_of(model, step=3), file)
    file.seek(0)
    state = torch.get_rng_state()
    loaded = load_model(torch.load(file, weights_only=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == model.config
    assert not loaded.training
    ids = torch.randint(11, (2, 8))
    assert torch.equal(loaded(ids), model(ids))
    assert loaded.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(("saved", "changed"), [("rope", "learned"), ("learned", "rope")])
def test_the_other_position_setting_is_refused(tiny, saved, changed):
    checkpoint = checkpoint_of(tiny(position=saved))
    checkpoint["config"]["model"]["position"] = changed
    assert "weight position_embedding.weight" in message(checkpoint)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layer": 3}, "blocks.2.attn_norm.weight is missing"),
        ({"n_layer": 1}, "blocks.1.attn_norm.weight is unknown"),
        ({"vocab_size": 12}, "token_embedding.weight has shape (11, 8), but"),
        ({"n_embd": 16}, "asks for (11, 16)"),
        ({"tie_weights": True}, "head.weight is unknown"),
        ({"bias": True}, "blocks.0.attn_norm.bias is missing"),
        ({"qk_norm": True}, "blocks.0.attn.q_norm.weight is missing"),
        ({"mlp": "swiglu"}, "blocks.0.mlp.gate.weight is missing"),
        ({"mlp_ratio": 2.0}, "blocks.0.mlp.fc.weight has shape (32, 8), but"),
    ],
)
def test_another_shape_is_refused_with_the_first_difference(tiny, changes, expected):
    checkpoint = checkpoint_of(tiny())
    checkpoint["config"]["model"] |= changes
    assert expected in message(checkpoint)


def test_a_longer_learned_context_is_refused(tiny):
    checkpoint = checkpoint_of(tiny(position="learned"))
    checkpoint["config"]["model"]["block_size"] = 16
    assert "position_embedding.weight has shape (8, 8), but" in message(checkpoint)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layers": 2}, "unknown key model.n_layers (did you mean model.n_layer?)"),
        ({"n_layer": "2"}, "model.n_layer: expected int, got '2'"),
        ({"dropout": 2.0}, "dropout: must be below 1.0, got 2.0"),
        ({"n_head": 3}, "model.n_embd 8 is not a multiple of model.n_head 3"),
    ],
)
def test_wrong_settings_are_refused(tiny, changes, expected):
    checkpoint = checkpoint_of(tiny())
    checkpoint["config"]["model"] |= changes
    assert expected in message(checkpoint)


def test_a_checkpoint_from_before_grouped_query_attention_is_loaded(tiny):
    checkpoint = checkpoint_of(tiny())
    for name in ("n_kv_head", "head_size"):
        del checkpoint["config"]["model"][name]
    assert load_model(checkpoint).config == tiny().config


def test_a_missing_setting_is_not_guessed(tiny):
    checkpoint = checkpoint_of(tiny(norm_eps=0.1))
    del checkpoint["config"]["model"]["norm_eps"]
    assert "model.norm_eps is missing" in message(checkpoint)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_keys_with_a_wrappers_prefix_are_refused(tiny, prefix):
    checkpoint = checkpoint_of(tiny())
    checkpoint["model"] = {prefix + name: value for name, value in checkpoint["model"].items()}
    assert "token_embedding.weight is missing" in message(checkpoint)


@pytest.mark.parametrize(
    "value", [None, 3.0, [[1.0]], torch.zeros(11, 8, dtype=torch.int64)], ids=str
)
def test_weights_are_tensors_of_floats(tiny, value):
    checkpoint = checkpoint_of(tiny())
    checkpoint["model"]["head.weight"] = value
    assert "head.weight is not a tensor of floats" in message(checkpoint)


@pytest.mark.parametrize(
    "checkpoint",
    [{}, {"config": {}}, {"config": {"model": {}}}, {"config": 3, "model": {}}, [1], None],
)
def test_what_is_not_a_checkpoint_is_refused(checkpoint):
    message(checkpoint)
