"""TinyGPT: names and shapes of its weights, settings, initialisation, and its forward pass."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.training.loss import cross_entropy_sum
from utils.errors import UserError

# Written by hand: checkpoints and exports rely on these names and shapes.
BLOCK = {
    "attn_norm.weight": (192,),
    "attn.qkv.weight": (576, 192),
    "attn.proj.weight": (192, 192),
    "mlp_norm.weight": (192,),
    "mlp.fc.weight": (768, 192),
    "mlp.proj.weight": (192, 768),
}


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_names_and_shapes_of_the_default():
    expected = {"token_embedding.weight": (2048, 192)}
    for i in range(4):
        expected |= {f"blocks.{i}.{name}": shape for name, shape in BLOCK.items()}
    expected |= {"final_norm.weight": (192,), "head.weight": (2048, 192)}
    assert list(shapes(TinyGPT(ModelConfig())).items()) == list(expected.items())


def test_names_and_shapes_with_every_part():
    config = ModelConfig(
        vocab_size=11, block_size=5, n_layer=1, n_head=2, n_embd=12, bias=True, mlp="swiglu",
        position="learned", qk_norm=True, tie_weights=True,
    )  # fmt: skip
    assert list(shapes(TinyGPT(config)).items()) == [
        ("token_embedding.weight", (11, 12)),
        ("position_embedding.weight", (5, 12)),
        ("blocks.0.attn_norm.weight", (12,)),
        ("blocks.0.attn_norm.bias", (12,)),
        ("blocks.0.attn.qkv.weight", (36, 12)),
        ("blocks.0.attn.qkv.bias", (36,)),
        ("blocks.0.attn.proj.weight", (12, 12)),
        ("blocks.0.attn.proj.bias", (12,)),
        ("blocks.0.attn.q_norm.weight", (6,)),
        ("blocks.0.attn.k_norm.weight", (6,)),
        ("blocks.0.mlp_norm.weight", (12,)),
        ("blocks.0.mlp_norm.bias", (12,)),
        ("blocks.0.mlp.gate.weight", (32, 12)),
        ("blocks.0.mlp.gate.bias", (32,)),
        ("blocks.0.mlp.fc.weight", (32, 12)),
        ("blocks.0.mlp.fc.bias", (32,)),
        ("blocks.0.mlp.proj.weight", (12, 32)),
        ("blocks.0.mlp.proj.bias", (12,)),
        ("final_norm.weight", (12,)),
        ("final_norm.bias", (12,)),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_embd": 100, "n_head": 6}, ["n_embd 100", "n_head 6"]),
        ({"n_embd": 30, "n_head": 6, "position": "rope"}, ["n_embd 30", "n_head 6", "is 5"]),
        ({"dropout": 1.0}, ["dropout", "below 1.0", "got 1.0"]),
        ({"dropout": -0.1}, ["dropout", "at least 0.0"]),
        ({"n_layer": 0}, ["n_layer", "at least 1"]),
        ({"norm": "batchnorm"}, ["norm", "layernorm, rmsnorm"]),
        ({"mlp": "gelu_tan"}, ["mlp", "did you mean gelu_tanh?"]),
        ({"position": "sinus"}, ["position", "learned, rope"]),
        ({"attention": "flash"}, ["attention", "sdpa, manual"]),
        ({"norm_eps": 0.0}, ["norm_eps", "above 0.0"]),
        ({"softcap": -1.0}, ["softcap", "at least 0.0"]),
        ({"mlp_ratio": 0.0}, ["mlp_ratio", "above 0.0"]),
        ({"n_head": 4, "n_kv_head": 3}, ["n_head 4 is not a multiple of model.n_kv_head 3"]),
        ({"head_size": 7}, ["even head size, but model.head_size is 7"]),
        ({"n_embd": 30, "n_head": 4}, ["n_embd 30 is not a multiple", "set model.head_size"]),
        ({"rope_theta": float("nan")}, ["rope_theta", "finite"]),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, words):
    with pytest.raises(UserError) as caught:
        ModelConfig(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


def test_odd_heads_are_fine_with_learned_positions():
    assert ModelConfig(n_embd=30, n_head=6, position="learned").head_dim == 5


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(["gelu", "swiglu"]))
def test_any_mlp_width_can_be_set(width, n_embd, kind):
    """The ratio computed from an imported model's width gives exactly this width."""
    ratio = width / n_embd * (1.5 if kind == "swiglu" else 1)
    config = ModelConfig(n_embd=n_embd, n_head=1, position="learned", mlp=kind, mlp_ratio=ratio)
    assert config.mlp_width == width


@given(st.floats(0.01, 10), st.integers(1, 1000))
def test_mlp_width_is_whole_or_rounded_up_to_eights(ratio, n_embd):
    config = ModelConfig(n_embd=n_embd, n_head=1, position="learned", mlp_ratio=ratio)
    width, exact = config.mlp_width, ratio * n_embd
    assert width >= 1
    assert abs(width - exact) < 1e-5 * exact or (width % 8 == 0 and exact < width < exact + 8)


def test_swiglu_has_the_parameters_of_the_others():
    plain, gated = TinyGPT(ModelConfig()), TinyGPT(ModelConfig(mlp="swiglu"))
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in gated.parameters())


def initial_loss(**settings):
    """Return the loss of a new model on random targets, as a multiple of ln V."""
    config = ModelConfig(**settings)
    model = TinyGPT(config).eval()
    with torch.no_grad():
        ids, targets = torch.randint(config.vocab_size, (2, 8, config.block_size))
        nats = cross_entropy_sum(model(ids), targets)
    return (nats / targets.numel()).item() / math.log(config.vocab_size)


@pytest.mark.parametrize(
    ("position", "norm", "mlp", "qk_norm"),
    list(
        itertools.product(
            ["learned", "rope"],
            ["layernorm", "rmsnorm"],
            ["gelu", "gelu_tanh", "relu2", "swiglu"],
            [False, True],
        )
    ),
)
def test_loss_starts_near_ln_v(position, norm, mlp, qk_norm):
    for bias, tie, softcap, zero, attention in itertools.product(
        [False, True], [False, True], [0.0, 5.0], [False, True], ["sdpa", "manual"]
    ):
        settings = {
            "vocab_size": 256, "block_size": 8, "n_layer": 2, "n_head": 4, "n_embd": 64,
            "position": position, "norm": norm, "mlp": mlp, "qk_norm": qk_norm, "bias": bias,
            "tie_weights": tie, "softcap": softcap, "zero_init": zero, "attention": attention,
        }  # fmt: skip
        assert abs(initial_loss(**settings) - 1) < 0.05, settings


@pytest.mark.parametrize("n_embd", [384, 768])
@pytest.mark.parametrize("vocab_size", [256, 4096])
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_loss_starts_near_ln_v_in_wide_tied_models(n_embd, vocab_size, position):
    """With GPT-2's standard deviation a token's own logit would be too large: 15 at width 768."""
    settings = {
        "vocab_size": vocab_size, "block_size": 16, "n_layer": 1, "n_embd": n_embd,
        "position": position, "tie_weights": True, "zero_init": True,
    }  # fmt: skip
    assert abs(initial_loss(**settings) - 1) < 0.05


def test_initial_standard_deviations():
    model = TinyGPT(ModelConfig(n_layer=8, position="learned", bias=True))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm.w" in name))), name
        else:
            expected = 0.02 / 4 if name.endswith("proj.weight") else 0.02
            assert abs(parameter.std().item() / expected - 1) < 0.03, name


def test_embedding_std():
    model = TinyGPT(ModelConfig(embedding_std=1.0))
    assert abs(model.token_embedding.weight.std().item() - 1) < 0.03
    assert abs(model.head.weight.std().item() / 0.02 - 1) < 0.03
    assert abs(initial_loss(embedding_std=1.0) - 1) < 0.05
    with pytest.raises(UserError, match="model.embedding_std .* only without model.tie_weights"):
        ModelConfig(embedding_std=1.0, tie_weights=True)


def test_zero_init_starts_as_the_identity():
    model = TinyGPT(ModelConfig(zero_init=True, bias=True))
    ids = torch.randint(2048, (2, 16))
    expected = model.final_norm(model.token_embedding(ids))
    assert torch.equal(model.hidden(ids), expected)
    logits = model(ids)
    logits.logsumexp(-1).sum().backward()
    assert (model.blocks[0].attn.proj.weight.grad != 0).any()  # but training can change it


def test_more_tokens_than_block_size_are_refused(tiny):
    model = tiny()
    assert model(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, 11)
    with pytest.raises(ValueError, match=r"9 tokens .* block_size 8"):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_targets_are_not_taken_for_document_numbers(tiny):
    """nanoGPT's `logits, loss = model(x, y)` fails at once, also for a batch of 2 and in parts."""
    model, ids = tiny(), torch.zeros(2, 8, dtype=torch.long)
    for part in (model, model.forward, model.hidden, model.embed):
        with pytest.raises(TypeError, match="positional"):
            part(ids, ids)
    with pytest.raises(TypeError, match="targets"):
        model(ids, targets=ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_ids_of_smaller_integer_types_give_the_same_logits(dtype):
    shape = {"vocab_size": 200, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = TinyGPT(ModelConfig(**shape, bigram_rows=64, pointer=True)).eval()
    torch.nn.init.normal_(model.bigram_embedding.weight)
    ids, docs = torch.randint(200, (3, 8)), (torch.arange(8) >= 4).expand(3, 8)
    for doc in (None, docs):
        smaller = None if doc is None else doc.to(dtype)
        assert torch.equal(model(ids.to(dtype), doc_BT=smaller), model(ids, doc_BT=doc))


@pytest.mark.parametrize("settings", [{}, {"bigram_rows": 32}, {"pointer": True}])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_the_error_names_an_id_that_is_not_in_the_vocabulary(tiny, settings, dtype):
    for wrong in (-1, 11, 99, -100):
        ids = torch.tensor([[1, 2, wrong]], dtype=dtype)
        with pytest.raises(ValueError, match=rf"token id {wrong} is not .* ids 0 to 10$"):
            tiny(**settings)(ids)
    with pytest.raises(ValueError, match="must be integers, not torch.float32"):
        tiny(**settings)(torch.zeros(1, 3))
    for shape in ((3,), (1, 2, 3), (1, 0)):
        with pytest.raises(ValueError, match=r"token ids need the shape \(B, T\)"):
            tiny(**settings)(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("settings", [{}, {"position": "learned", "dropout": 0.5, "softcap": 1.0}])
def test_forward_gives_logits_and_nothing_else(tiny, settings):
    ids = torch.randint(11, (3, 5))
    for model in (tiny(**settings).train(), tiny(**settings).eval()):
        logits_BTV = model(ids)
        assert isinstance(logits_BTV, torch.Tensor)
        assert logits_BTV.shape == (3, 5, 11)
        assert logits_BTV.dtype == torch.float32


def test_softcap_bounds_the_logits(tiny):
    ids = torch.randint(11, (3, 5))
    free, capped = tiny(double=True), tiny(double=True, softcap=0.7)
    assert free(ids).abs().max() > 0.7
    torch.testing.assert_close(capped(ids), 0.7 * torch.tanh(free(ids) / 0.7))


def test_tied_weights_are_one_tensor(tiny):
    model = tiny(tie_weights=True)
    assert model.head_weight is model.token_embedding.weight
    assert "head.weight" not in model.state_dict()
    ids = torch.tensor([[1, 2]])
    before = model.logits(torch.ones(1, 1, 8))[0, 0, 5].item()
    with torch.no_grad():
        model.token_embedding.weight[5] += 1.0
    assert model.logits(torch.ones(1, 1, 8))[0, 0, 5].item() == pytest.approx(before + 8, rel=1e-5)
    model(ids).sum().backward()
    assert (model.token_embedding.weight.grad[5] != 0).any()  # through the head: 5 is not in ids
    assert tiny().head_weight is not tiny().token_embedding.weight


def test_dropout_reaches_embeddings_and_both_branches(tiny):
    inputs = {
        "dropout": torch.zeros(1, 8, dtype=torch.long),
        "blocks.0.attn": torch.ones(1, 8, 8),
        "blocks.1.mlp": torch.ones(1, 8, 8),
    }
    for name, x in inputs.items():
        model = tiny(dropout=0.5, qk_norm=True).train()
        part = model.get_submodule(name)
        if name == "dropout":
            zeros = []
            part.register_forward_hook(lambda _, args, out, zeros=zeros: zeros.append(out == 0))
            model(x)
            share = zeros[0].float().mean().item()
        else:
            share = (part(x) == 0).float().mean().item()
        assert 0.2 < share < 0.8, name


def test_a_batch_can_be_memorized():
    config = ModelConfig(vocab_size=16, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model = TinyGPT(config)
    ids = torch.randint(16, (4, 17))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = cross_entropy_sum(model(ids[:, :-1]), ids[:, 1:]) / ids[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.15


def test_same_seed_same_weights():
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(TinyGPT(ModelConfig()).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
