"""Optimizers: their parameter groups, and their steps against the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model.config import ModelConfig
from model.training.muon import bf16_is_fast, orthogonalize
from model.training.optim import OPTIMIZERS, OptimConfig, make_optimizer, param_groups, set_step
from utils.errors import UserError


class Tied(nn.Module):
    """An embedding tied to the head, a norm, and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 7)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(3, 3, bias=False).requires_grad_(False)


def test_each_parameter_is_in_one_group() -> None:
    model = Tied()
    decayed, undecayed = param_groups(model, OptimConfig())
    assert [id(p) for p in decayed["params"]] == [id(model.embedding.weight)]
    others = {id(p) for p in (model.norm.weight, model.norm.bias, model.head.bias)}
    assert {id(p) for p in undecayed["params"]} == others
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    (only,) = param_groups(nn.Linear(2, 2, bias=False), OptimConfig())
    assert len(only["params"]) == 1


def reference_adamw(
    weights: torch.Tensor, gradients: list[torch.Tensor], rates: list[float], config: OptimConfig
) -> torch.Tensor:
    """Return the weights after algorithm 2 of Loshchilov & Hutter 2017, in float64."""
    theta = weights.double().clone()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    beta1, beta2 = config.betas
    decay = config.weight_decay if theta.ndim >= 2 else 0.0
    for t, (gradient, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = gradient.double()
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - lr * decay * theta - lr * m_hat / (v_hat.sqrt() + config.eps)
    return theta


@pytest.mark.parametrize(
    "config",
    [
        OptimConfig(),
        OptimConfig(lr=0.5, weight_decay=0.7, betas=(0.5, 0.6), eps=1e-2, schedule="linear"),
    ],
)
def test_adamw_steps_follow_the_paper(config: OptimConfig) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    starts = [p.detach().clone() for p in model.parameters()]
    optimizer = make_optimizer(model, config)
    gradients: list[list[torch.Tensor]] = [[], []]
    rates = []
    for step in range(12):
        rates.append(set_step(optimizer, config, step, 12))
        for parameter, history in zip(model.parameters(), gradients, strict=True):
            parameter.grad = torch.randn_like(parameter)
            history.append(parameter.grad.clone())
        optimizer.step()
    assert rates == [config.lr_at(step, 12) for step in range(12)]
    for start, parameter, history in zip(starts, model.parameters(), gradients, strict=True):
        expected = reference_adamw(start, history, rates, config)
        assert (parameter.double() - expected).abs().max() < 2e-6


def test_the_learning_rate_follows_the_settings() -> None:
    config = OptimConfig(lr=2.0, min_lr_ratio=0.25, warmup_steps=4)
    assert [config.lr_at(step, 10) for step in (0, 3, 9)] == [0.5, 2.0, 0.5]
    long = OptimConfig(lr=1.0, warmup_steps=1000)
    assert [long.lr_at(step, 4) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.0])
    assert all(math.isfinite(long.lr_at(step, 1)) for step in range(3))


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"betas": (0.9, 1.0)}, {"eps": 0.0}, {"schedule": "cosin"}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        OptimConfig(**bad)


class Blocks(nn.Module):
    """A module with the names and shapes by which Muon selects its matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig(n_head=1, n_embd=4)
        self.token_embedding = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"qkv": nn.Linear(4, 12), "fc": nn.Linear(4, 8)})]
        )
        self.head = nn.Linear(4, 5, bias=False)


def test_muon_updates_the_matrices_of_the_blocks() -> None:
    model = Blocks()
    config = OptimConfig(name="muon", lr=0.01, muon_lr=0.04, embedding_lr_ratio=3.0)
    groups = param_groups(model, config)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: group for group in groups for p in group["params"]}
    assert set(found) == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(names)
    muon = {name for name, group in found.items() if group.get("muon")}
    assert muon == {"blocks.0.qkv.weight", "blocks.0.fc.weight"}
    assert found["blocks.0.qkv.weight"]["split"] and not found["blocks.0.fc.weight"]["split"]
    ratios = {name: group["lr_ratio"] for name, group in found.items()}
    assert (ratios["token_embedding.weight"], ratios["head.weight"]) == (3.0, 1.0)
    assert ratios["blocks.0.fc.weight"] == pytest.approx(4.0)


def test_each_kind_of_weight_has_its_learning_rate() -> None:
    model = Blocks()
    config = OptimConfig(
        name="muon",
        warmup_steps=10,
        lr=0.1,
        muon_lr=0.05,
        embedding_lr_ratio=3.0,
        head_lr_ratio=0.5,
        vector_lr_ratio=2.0,
    )
    optimizer = make_optimizer(model, config)
    assert set_step(optimizer, config, 0, 99) == pytest.approx(0.01)  # a tenth of the peak
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    expected = {"token_embedding.weight": 0.03, "head.weight": 0.005, "blocks.0.qkv.weight": 0.005}
    expected |= {"blocks.0.qkv.bias": 0.02, "blocks.0.fc.weight": 0.005, "blocks.0.fc.bias": 0.02}
    assert found == pytest.approx(expected)


def test_only_muons_momentum_is_set() -> None:
    config = OptimConfig(name="muon", muon_momentum=0.95, muon_warmup_steps=4)
    optimizer = make_optimizer(Blocks(), config)
    set_step(optimizer, config, 2, 9)
    momenta = [group["momentum"] for group in optimizer.param_groups if "momentum" in group]
    assert momenta == pytest.approx([0.9, 0.9])
    low = OptimConfig(name="muon", muon_momentum=0.8, muon_warmup_steps=9)
    assert [low.momentum_at(step) for step in (0, 5, 20)] == [0.8] * 3  # 0.85 would be higher


def test_every_optimizer_of_the_registry_takes_a_step() -> None:
    for name in OPTIMIZERS:
        config, model = OptimConfig(name=name), Blocks()
        optimizer = make_optimizer(model, config)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        set_step(optimizer, config, 0, 9)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert not any(map(torch.equal, before, model.parameters()))


def naive_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return one matrix after the quintic iteration of Muon's source, in float64."""
    x = matrix.double()
    x = x / x.norm()
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if transposed else x


@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (8, 4), (3, 9)])
def test_orthogonalize_is_the_naive_iteration_and_equalizes_singular_values(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape)
    orthogonal = orthogonalize(matrices)
    for matrix, one in zip(matrices, orthogonal, strict=True):
        assert (one - naive_orthogonal(matrix)).abs().max() < 1e-4
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        values = (u.T @ one @ v.T).diagonal()  # the singular vectors are unchanged
        assert 0.3 < values.min() and values.max() < 1.3
    assert orthogonalize(torch.zeros(1, 2, 2)).abs().max() == 0


@pytest.mark.parametrize(("bf16", "error"), [(False, 1e-3), (True, 1e-2)])
def test_muon_steps_equal_naive_ones(
    bf16: bool, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.muon.bf16_is_fast", lambda device: bf16)
    torch.manual_seed(0)
    model = Blocks()
    config = OptimConfig(name="muon", lr=0.01, muon_lr=0.05, muon_momentum=0.8, weight_decay=0.3)
    optimizer = make_optimizer(model, config)
    expected = {n: p.detach().double().clone() for n, p in model.named_parameters() if p.ndim == 2}
    momentum = {n: torch.zeros_like(w) for n, w in expected.items()}
    history: list[torch.Tensor] = []
    start = model.head.weight.detach().clone()
    for _ in range(4):
        set_step(optimizer, config, 0, 1)  # at the peak
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            if not name.startswith("blocks") or parameter.ndim < 2:
                continue
            g = parameter.grad.double()
            momentum[name] = 0.8 * momentum[name] + 0.2 * g
            update = 0.2 * g + 0.8 * momentum[name]
            parts = update.split(4) if "qkv" in name else [update]
            orthogonal = torch.cat([naive_orthogonal(part) for part in parts])
            scale = 1.0 if "qkv" in name else (8 / 4) ** 0.5
            expected[name] = expected[name] * (1 - 0.05 * 0.3) - 0.05 * scale * orthogonal
        history.append(model.head.weight.grad.clone())
        optimizer.step()
    for name in ("blocks.0.qkv.weight", "blocks.0.fc.weight"):
        assert (model.get_parameter(name).double() - expected[name]).abs().max() < error
    rest = reference_adamw(start, history, [config.lr] * 4, config)
    assert (model.head.weight.double() - rest).abs().max() < 2e-6


def test_muon_splits_unequal_queries_keys_and_values_and_reads_older_states() -> None:
    model = Blocks()
    model.config = ModelConfig(n_head=4, n_kv_head=2, head_size=2, n_embd=4)
    model.blocks[0]["qkv"] = nn.Linear(4, 16)  # 8 rows of queries, 4 of keys, 4 of values
    optimizer = make_optimizer(model, OptimConfig(name="muon", muon_lr=0.05, weight_decay=0.0))
    state = optimizer.state_dict()
    for group in state["param_groups"]:  # as version 0.2 stored it
        group |= {"split": bool(group["split"])} if "split" in group else {}
    optimizer.load_state_dict(state)
    set_step(optimizer, OptimConfig(name="muon", muon_lr=0.05), 0, 1)
    weight = model.blocks[0]["qkv"].weight
    before, weight.grad = weight.detach().double().clone(), torch.randn(16, 4)
    optimizer.step()
    parts = weight.grad.double().split((8, 4, 4))
    scales = (2**0.5, 1.0, 1.0)  # sqrt(rows / columns)
    expected = torch.cat([s * naive_orthogonal(one) for s, one in zip(scales, parts, strict=True)])
    error = 0.05 if bf16_is_fast(weight.device) else 1e-4
    assert ((before - weight) / 0.05 - expected).abs().max() < error


def test_muon_skips_what_the_scaler_skips_and_weights_without_gradient() -> None:
    model = Blocks()
    optimizer = make_optimizer(model, OptimConfig(name="muon"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()  # no gradients at all
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    "without_effect", [{"muon_lr": 0.1}, {"decay_fraction": 0.5}, {"muon_warmup_steps": 5}]
)
def test_a_setting_without_effect_is_refused(without_effect: dict[str, float]) -> None:
    with pytest.raises(UserError, match="has an effect only with optim"):
        OptimConfig(**without_effect)


def test_muon_uses_bf16_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for has in (True, False):
        monkeypatch.setattr("model.training.muon.cpu_info", lambda feature, has=has: has)
        assert bf16_is_fast(cpu) is has
    assert bf16_is_fast(torch.device("cuda")) and not bf16_is_fast(torch.device("mps"))
