"""scripts.export: the folder, its card, and what is refused."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

import train
from data.download import known_corpora as corpora
from model.config import ModelConfig
from model.hf.config import hf_model_type
from scripts.export import __main__ as export
from scripts.export import model_card
from tests.helpers.runs import flags, make_corpus
from utils.errors import UserError
from utils.metrics import read_rows

ORACLE = "oracle: not installed (pip install transformers safetensors)"


def test_a_run_becomes_a_folder_that_transformers_use(story_run, tmp_path, printed):
    pytest.importorskip("safetensors", reason=ORACLE)
    out = tmp_path / "deep" / "tiny"
    result, err = printed(export.main, "--run", story_run, "--out", out)
    assert result["kind"] == "GPTNeoXForCausalLM" and "step" in err
    assert sorted(path.name for path in out.iterdir()) == result["files"]
    assert [path.name for path in out.parent.iterdir()] == ["tiny"], "no temporary folder"
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o666 & ~umask}
    with pytest.raises(UserError, match="the folder is not empty; name another"):
        export.main(["--run", str(story_run), "--out", str(out)])
    transformers = pytest.importorskip("transformers", reason=ORACLE)
    generate = transformers.pipeline("text-generation", model=str(out))
    (sample,) = generate("Once", do_sample=False)
    assert sample["generated_text"].startswith("Once")


def test_the_card_is_complete(story_run, tmp_path, printed):
    pytest.importorskip("safetensors", reason=ORACLE)
    printed(export.main, "--run", story_run, "--out", tmp_path / "tiny")
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "mit",
        "language": "en",
        "tags": ["llm-tiny"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    for part, name in (("train", "training"), ("val", "validation")):
        counts = [f"{record['data'][part][key]:,}" for key in ("tokens", "bytes", "documents")]
        assert f"| {name} | {' | '.join(counts)} |" in body
    assert f"A GPT of {record['parameters']:,} parameters" in body
    assert "trained from random weights with llm-tiny" in body and "## Limits" in body
    train_bytes = record["data"]["train"]["bytes"]
    assert f"no more of the world than {train_bytes:,} bytes of text" in body
    row = read_rows(story_run / "metrics.csv")[-1]
    tokens, epochs = int(row["tokens"]), float(row["epoch"])
    assert f"Step {row['step']} of" in body
    assert f"{tokens:,} tokens or {epochs:.2f} times the training part" in body
    assert "drawn from llm-tiny's own grammar (seed 1; 2 for validation)" in body
    assert re.search(r"\d\.\d{4} nats per token, perplexity [\d.]+, \d\.\d{4} bits per byte", body)
    assert f"{record['floor_nats_per_token']:.4f} nats per token there" in body
    settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    config = yaml.safe_load((story_run / "config.yaml").read_text(encoding="utf-8"))
    assert settings["model"] == config["model"] and settings["optim"] == config["optim"]
    assert str(story_run) not in card and str(tmp_path) not in card


def test_of_ones_own_text_the_licence_is_asked_for(text_run, tmp_path, printed):
    pytest.importorskip("safetensors", reason=ORACLE)
    printed(export.main, "--run", text_run, "--out", tmp_path / "one")
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert "license: other\n" in card and "export with `--license`" in card
    assert "Text of text.txt." in card and str(text_run.parent) not in card
    printed(export.main, "--run", text_run, "--out", tmp_path / "two", "--license", "cc0-1.0")
    card = (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    assert "license: cc0-1.0\n" in card and "said: cc0-1.0." in card


def test_a_known_corpus_is_named_with_its_licence(text_run, tmp_path, printed, monkeypatch):
    """Known by the content of the files, whatever their names."""
    pytest.importorskip("safetensors", reason=ORACLE)
    raw = (text_run.parent / "text.txt").read_bytes()
    content = corpora.Content("other.txt", len(raw), hashlib.sha256(raw).hexdigest())
    source = corpora.Source(content, (), "this test")
    known = corpora.KnownCorpus("cats", "cats that sat", "CC0", (source,))
    monkeypatch.setattr(corpora, "CORPORA", (*corpora.CORPORA, known))
    monkeypatch.setattr(model_card, "CORPORA", corpora.CORPORA)
    settings = make_corpus(tmp_path) | {"train.max_steps": 1, "train.sample_tokens": 0}
    assert train.main(flags(tmp_path / "run", settings)) == 0
    printed(export.main, "--run", tmp_path / "run", "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "cats: cats that sat. Its licence: CC0." in card and "language: en\n" in card
    assert "license: other\n" in card and "of the training text (CC0)" in card


def test_a_model_that_began_as_another_says_so(text_run, tmp_path, printed):
    pytest.importorskip("safetensors", reason=ORACLE)
    printed(export.main, "--run", text_run, "--out", tmp_path / "first")
    settings = make_corpus(tmp_path) | {"train.max_steps": 1, "train.sample_tokens": 0}
    settings = {name: value for name, value in settings.items() if "model." not in name}
    settings["train.init_from"] = tmp_path / "first"
    assert train.main(flags(tmp_path / "run", settings)) == 0
    printed(export.main, "--run", tmp_path / "run", "--out", tmp_path / "second")
    card = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert "trained from the weights of first with llm-tiny" in card
    assert "knows what first knew" in card and "init_from: first\n" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pointer": True}, "model.pointer true: no Hugging Face class supports it"),
        ({"bigram_rows": 8}, "model.bigram_rows 8: no Hugging Face class supports it"),
        ({"softcap": 5.0}, "nearest, GPTNeoXForCausalLM, needs model.softcap 0.0 (here 5.0)"),
        ({"norm": "rmsnorm"}, "GPTNeoXForCausalLM, needs model.norm layernorm (here rmsnorm)"),
        (
            {"norm": "rmsnorm", "mlp": "swiglu", "softcap": 9.0},
            "LlamaForCausalLM, needs model.softcap 0.0 (here 9.0)",
        ),
        ({"qk_norm": True}, "GPTNeoXForCausalLM, needs model.qk_norm false (here true)"),
        (
            {"position": "learned", "mlp": "swiglu"},
            "GPT2LMHeadModel, needs model.mlp gelu or gelu_tanh or relu2 (here swiglu)",
        ),
        (
            {"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": True, "bias": True},
            "LlamaForCausalLM, needs model.qk_norm false (here true)",
        ),
        (
            {"norm": "rmsnorm", "embedding_norm": True, "mlp": "relu2", "qk_norm": True},
            "NanoChatForCausalLM, needs model.norm_gain false (here true)",
        ),
    ],
)
def test_what_no_class_holds_is_refused_with_the_reason(settings, message):
    with pytest.raises(UserError) as caught:
        hf_model_type(ModelConfig(**settings))
    assert message in str(caught.value)


def test_a_refusal_names_the_run_and_leaves_nothing(tmp_path, capsys):
    settings = make_corpus(tmp_path) | {"model.pointer": True, "train.max_steps": 1}
    assert train.main(flags(tmp_path / "run", settings)) == 0
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"run.best.pt: model.pointer true: no class"):
        export.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "a" / "b")])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out", "FILE"], "this is a file; name a folder"),
        (["--out", "FILE/x"], "is not a folder; name another path"),
        (["--out", "new", "--license", "My own!"], "give Hugging Face's identifier"),
        (["--out", "new", "--to", "onnx"], "invalid choice: 'onnx'"),
        ([], "the following arguments are required: --out"),
        (["--out", "new", "--run", "nowhere"], "nowhere: no run there"),
    ],
)
def test_bad_arguments(argv, message, text_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    with pytest.raises(UserError) as caught:
        export.main(["--run", str(text_run), *argv] if "--run" not in argv else argv)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_without_safetensors_one_line_says_how_to_get_it(text_run, tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "safetensors":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="--to hf needs .* pip install safetensors$"):
        export.main(["--run", str(text_run), "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())
