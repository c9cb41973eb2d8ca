"""train.init_from: a Hugging Face model is fine-tuned, evaluated, sampled and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import sample
import train
from model.config import ModelConfig
from model.gpt import TinyGPT
from model.hf import folder as hf_folder
from model.hf.weights import NAMES, from_hf_weights
from model.training.trainer import Trainer
from scripts.eval import __main__ as score
from scripts.export.hf_config import hf_model_type
from scripts.export.hf_weights import to_hf_weights
from scripts.sweep import __main__ as sweep
from scripts.sweep.grid_file import load_sweep
from tests.helpers.hf import COMBINATIONS, ORACLE, config_of, make_model, name_of, read, write
from tests.helpers.runs import assert_same_run, flags, make_text, state_of
from tok.tokenizer import BPETokenizer
from train import Config
from utils.errors import UserError
from utils.metrics import read_rows
from utils.run import plot

safetensors = pytest.importorskip("safetensors.torch", reason=ORACLE)

RUN = {
    "data.doc_sep": "blank-line",
    "optim.lr": 0.001,
    "optim.warmup_steps": 1,
    "train.max_steps": 4,
    "train.batch_size": 2,
    "train.eval_every_steps": 2,
    "train.sample_tokens": 0,
    "train.num_threads": 1,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(plot, "plot_losses", lambda *args, **kwargs: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a GPT-2 and its tokenizer, in the format of transformers."""
    tokenizer = BPETokenizer.train([make_text(50)], vocab_size=300)
    gpt2 = make_model(config_of(COMBINATIONS[0]))
    assert gpt2.config.position == "learned" and gpt2.config.bias
    return write(tmp_path_factory.mktemp("pretrained"), gpt2, tokenizer)


@pytest.fixture
def settings(folder, tmp_path):
    (tmp_path / "text.txt").write_text(make_text(60, seed=5), encoding="utf-8")
    return RUN | {
        "train.init_from": folder,
        "data.files": tmp_path / "text.txt",
        "data.cache_dir": tmp_path / "cache",
    }


def test_settings_may_repeat_those_of_the_folder(folder, settings, tmp_path):
    model = read(folder)[0].config
    assert model.n_embd % ModelConfig().n_head  # with the other defaults it would be refused
    more = {"model.n_embd": model.n_embd, "model.n_kv_head": model.kv_heads}
    assert train.parse(flags(tmp_path / "run", settings | more))[0].model == model


def test_a_run_starts_with_the_pretrained_weights_and_tokenizer(
    folder, settings, tmp_path, printed_json
):
    run = tmp_path / "run"
    assert train.main(flags(run, settings)) == 0
    pretrained, tokenizer = read(folder)
    assert BPETokenizer.load(run / "tokenizer.json") == tokenizer
    rows = [row for row in read_rows(run / "metrics.csv") if row["val_loss"]]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    config, _, _ = train.parse(flags(tmp_path / "other", settings))
    trainer, _ = train.build_trainer(config, train.RunFolder(tmp_path / "other"))
    assert config.model == pretrained.config
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, pretrained.weights[name])
    first = trainer.evaluate().nats_per_token
    assert float(rows[0]["val_loss"]) == first
    trainer.batches.close()
    assert sample.main(["--run", str(run), "--steps", "3"]) == 0
    shutil.rmtree(tmp_path / "cache")
    figures = printed_json(score.main, "--run", run, "--checkpoint", "last")
    assert figures["nats_per_token"] == pytest.approx(float(rows[-1]["val_loss"]))


@pytest.fixture
def printed_json(capsys):
    def run(main, *argv):
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_a_run_resumes_without_the_pretrained_folder(folder, settings, tmp_path, monkeypatch):
    pretrained = shutil.copytree(folder, tmp_path / "pretrained")
    settings |= {"train.init_from": pretrained, "train.sample_tokens": 2}
    assert train.main(flags(tmp_path / "whole", settings)) == 0
    step = Trainer.train_step

    def killed(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train.main(flags(tmp_path / "part", settings))
    monkeypatch.setattr(Trainer, "train_step", step)
    shutil.rmtree(pretrained)
    assert state_of(tmp_path / "part" / "last.pt")["step"] == 2
    assert train.main(["--run_dir", str(tmp_path / "part"), "--resume"]) == 0
    assert_same_run(tmp_path / "part", tmp_path / "whole")


def test_a_sweep_recognizes_its_finished_points(folder, settings, tmp_path):
    lines = [f"  {name}: {value}" for name, value in settings.items() if name != "optim.lr"]
    text = "\n".join(["grid:", "  lr: [0.001, 0.002]", "set:", *lines]) + "\n"
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    grid = load_sweep(str(tmp_path / "sweep.yaml"), Config)
    jobs = sweep.make_jobs(grid, "sweep.yaml", tmp_path / "runs", 1)
    assert [job.config.model for job in jobs] == 2 * [hf_folder.read_config(folder)]
    argv = jobs[0].command("")[2:]
    assert train.main(argv) == 0
    jobs = sweep.make_jobs(grid, "sweep.yaml", tmp_path / "runs", 1)
    assert [job.status for job in jobs] == ["done", "new"]


def test_a_shorter_block_size_keeps_the_first_positions(folder, settings, tmp_path):
    config, _, _ = train.parse(flags(tmp_path / "run", settings, model__block_size=10))
    trainer, data = train.build_trainer(config, train.RunFolder(tmp_path / "run"))
    trainer.batches.close()
    whole = hf_folder.read_folder(folder)
    long = TinyGPT(whole.config).eval()
    long.load_state_dict(whole.weights)
    ids_BT = torch.randint(300, (2, 10))
    with torch.no_grad():
        assert torch.equal(trainer.model.eval()(ids_BT), long(ids_BT))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model.n_layer": 3}, r"model.n_layer is 3, but 2 in .*; leave it out"),
        ({"model.block_size": 25}, r"model.block_size is 25, but 24 in"),
        ({"model.pointer": True}, r"model.pointer is True, but False in"),
        ({"data.tokenizer": "tok/bpe.json"}, "train.init_from comes with a tokenizer; drop data"),
        ({"train.init_from": "nowhere"}, r"nowhere.config.json: No such file"),
    ],
)
def test_settings_that_contradict_it_are_refused(more, message, settings, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        train.main(flags(tmp_path / "run", settings | more))
    assert sorted(tmp_path.rglob("*")) == before


def test_data_prepared_with_another_tokenizer_is_refused(settings, tmp_path):
    plain = {name: value for name, value in settings.items() if name != "train.init_from"}
    small = {"model.vocab_size": 300, "model.block_size": 16, "model.n_embd": 6}
    config, _, _ = train.parse(flags(tmp_path / "run", plain | small | {"model.n_head": 1}))
    trainer, data = train.build_trainer(config, train.RunFolder(tmp_path / "run"))
    trainer.batches.close()
    files = {name: value for name, value in settings.items() if not name.startswith("data.")}
    with pytest.raises(UserError, match="another tokenizer than the run's"):
        train.main(flags(tmp_path / "run", files | {"data.dir": data.folder}))


LLAMA = next(one for one in COMBINATIONS if one["mlp"] == "swiglu" and not one["qk_norm"])
NEOX = next(one for one in COMBINATIONS if (one["position"], one["norm"]) == ("rope", "layernorm"))
MODERN = next(one for one in COMBINATIONS if one["embedding_norm"])
GPT2 = COMBINATIONS[0]


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (LLAMA, {"num_key_value_heads": 1}, "self_attn.k_proj.weight has shape (16, 16), but"),
        (MODERN, {"num_key_value_heads": 3}, "n_head 2 is not a multiple of model.n_kv_head 3"),
        (LLAMA, {"head_dim": 16}, "self_attn.q_proj.weight has shape (16, 16), but config.json"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act is 'gelu', not one of silu"),
        (
            LLAMA,
            {"rope_parameters": {"rope_type": "llama3"}},
            "rope_parameters: rope_type is 'llama3'",
        ),
        (LLAMA, {"mlp_bias": False}, "attention_bias is True; TinyGPT has biases everywhere"),
        (NEOX, {"use_parallel_residual": True}, "use_parallel_residual is true"),
        (NEOX, {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        (
            NEOX,
            {"attention_bias": False},
            "gpt_neox.layers.0.attention.dense.bias is unknown",
        ),
        (GPT2, {"model_type": "mamba"}, "model_type 'mamba' is not one of gpt2, gpt_neox"),
        (
            GPT2,
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx is True",
        ),
        (GPT2, {"activation_function": "relu"}, "activation_function is 'relu', not one of gelu"),
        (GPT2, {"n_layer": 0}, "n_layer is 0, not 1 or more"),
        (GPT2, {"n_layer": "2"}, "n_layer is '2', not of type int"),
        (GPT2, {"n_layer": 1}, "tensor transformer.h.1.attn.c_attn.bias is unknown to the class"),
        (GPT2, {"n_layer": 3}, "tensor transformer.h.2.ln_1.weight is missing"),
        (GPT2, {"n_head": 3}, "n_embd 16 is not a multiple of"),
        (GPT2, {"n_inner": 64}, "h.0.mlp.c_fc.weight has shape (16, 40), but config.json asks for"),
        (GPT2, {"vocab_size": 400}, "the model has 400 tokens, the tokenizer 300"),
        (GPT2, {"tie_word_embeddings": True}, "tensor lm_head.weight is unknown to the class"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unsupported_model_is_refused(settings, change, message, folder, tmp_path):
    _, tokenizer = read(folder)
    write(tmp_path, make_model(config_of(settings)), tokenizer)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert message in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def broken(folder: Path, to: Path, how: str) -> str:
    """Copy the folder with one defect; return the message about it."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    weights = to / hf_folder.WEIGHTS
    if how == "pickle":
        weights.rename(to / "pytorch_model.bin")
        return "pytorch_model.bin: a pickle, which may run code"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-5])
        return "model.safetensors: damaged or not a safetensors file"
    if how == "garbage":
        weights.write_bytes(b"garbage")
        return "model.safetensors: damaged or not a safetensors file"
    if how == "no weights":
        weights.unlink()
        return "no model.safetensors in it"
    if how == "no tokenizer":
        (to / "tokenizer.json").unlink()
        return "no tokenizer.json, and no vocab.json with merges.txt"
    if how == "half an index":
        weights.unlink()
        (to / hf_folder.INDEX).write_text('{"weight_map": 3}', encoding="utf-8")
        return "model.safetensors.index.json: damaged"
    if how == "whole numbers":
        tensors = safetensors.load(weights.read_bytes())
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].to(torch.int8)
        weights.write_bytes(safetensors.save(tensors))
        return "transformer.wte.weight is torch.int8; quantised weights are not supported"
    (to / "config.json").write_text("[1]", encoding="utf-8")
    return "config.json: not a JSON object"


HOWS = ("pickle", "cut", "garbage", "no weights", "no tokenizer", "half an index", "list")


@pytest.mark.parametrize("how", [*HOWS, "whole numbers"])
def test_a_damaged_folder_is_refused(how, folder, tmp_path):
    message = broken(folder, tmp_path, how)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.1.ln_1.bias"])
def test_weights_that_are_not_finite_are_refused_and_leave_no_files(
    name, value, folder, settings, tmp_path
):
    shutil.copytree(folder, tmp_path / "damaged")
    weights = tmp_path / "damaged" / hf_folder.WEIGHTS
    tensors = safetensors.load(weights.read_bytes())
    tensors[name].view(-1)[-1] = value
    weights.write_bytes(safetensors.save({k: one.contiguous() for k, one in tensors.items()}))
    before = sorted(tmp_path.rglob("*"))
    damaged = settings | {"train.init_from": tmp_path / "damaged"}
    with pytest.raises(UserError, match=rf"damaged: tensor {name} holds NaN or infinity"):
        train.main(flags(tmp_path / "run", damaged))
    assert sorted(tmp_path.rglob("*")) == before


def tied(one):
    return hf_model_type(config_of(one)), one | {"tie_weights": True}


@pytest.mark.parametrize("settings", dict(map(tied, COMBINATIONS)).values(), ids=name_of)
@pytest.mark.parametrize("bare", [False, True])
def test_a_tied_embedding_may_be_saved_as_the_head(settings, bare, tmp_path):
    model = make_model(config_of(settings))
    kind = hf_model_type(model.config)
    tensors = to_hf_weights(kind, model.config, model.state_dict())
    names = NAMES[kind]
    head = tensors.pop(f"{names.base}{names.outer['token_embedding']}.weight")
    if bare:
        tensors = {name.removeprefix(names.base): one for name, one in tensors.items()}
    found = from_hf_weights(kind, model.config, tensors | {f"{names.head}.weight": head})
    assert found.keys() >= model.state_dict().keys()
    assert torch.equal(found["token_embedding.weight"], model.token_embedding.weight)
    with pytest.raises(UserError, match="is missing, but config.json asks for it"):
        from_hf_weights(kind, model.config, tensors)


def test_other_ways_to_save_the_same_model(folder, tmp_path):
    """In two files, in fp16, without the prefix of the head's class, with masks and vocab.json."""
    tensors = safetensors.load((folder / hf_folder.WEIGHTS).read_bytes())
    bare = {name.removeprefix("transformer."): one.half() for name, one in tensors.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    names, index = sorted(bare), {}
    for number, part in enumerate((names[:5], names[5:])):
        file = f"model-{number}.safetensors"
        raw = safetensors.save({name: bare[name] for name in part})
        (tmp_path / file).write_bytes(raw)
        index |= dict.fromkeys(part, file)
    (tmp_path / hf_folder.INDEX).write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    shutil.copy(folder / "config.json", tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (one, one_tokenizer), (other, other_tokenizer) = read(folder), read(tmp_path)
    assert one.config == other.config and one_tokenizer == other_tokenizer
    for name, weight in one.weights.items():
        assert torch.equal(weight.half().float(), other.weights[name])
