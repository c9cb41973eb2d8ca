"""Exported folders in Hugging Face's own classes, for each combination of supported settings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.gpt import TinyGPT
from model.hf import folder as hf_folder
from model.hf.config import CLASSES, from_hf
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams
from scripts.export.hf_config import SUPPORTED_VALUES, hf_model_type, to_hf
from tests.helpers.hf import (
    COMBINATIONS,
    ORACLE,
    UNUSUAL,
    config_of,
    files_of,
    make_model,
    name_of,
    read,
    write,
)
from tests.helpers.hostile import hostile_strings
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.suggest import shell_quote


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train([make_text(50), "année 年 🙂"], vocab_size=300)


@pytest.fixture(scope="module")
def auto() -> Callable[[Path], tuple[Any, Any]]:
    """auto(folder): the model and the tokenizer that transformers loads from it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers", reason=ORACLE)
    transformers.utils.logging.disable_progress_bar()

    def load(folder: Path) -> tuple[Any, Any]:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        if kind not in transformers.CONFIG_MAPPING:  # NanoChat needs version 5
            pytest.skip(f"oracle: this transformers has no {kind} (pip install -U transformers)")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        return model, transformers.AutoTokenizer.from_pretrained(folder)

    return load


def test_the_combinations_cover_every_class():
    kinds = [hf_model_type(config_of(settings)) for settings in COMBINATIONS]
    counts = {kind: kinds.count(kind) for kind in CLASSES}
    assert counts == {"gpt2": 18, "gpt_neox": 18, "llama": 18, "qwen3": 14, "nanochat": 13}
    assert set(SUPPORTED_VALUES) == set(CLASSES)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=name_of)
def test_hugging_faces_model_equals_ours(settings, tokenizer, auto, tmp_path):
    """Compare the logits, and the greedy ids of `generate` with its cache."""
    model = make_model(config_of(settings))
    theirs, _ = auto(write(tmp_path, model, tokenizer))
    assert type(theirs).__name__ == CLASSES[hf_model_type(model.config)]
    ids_BT = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours_BTV, theirs_BTV = model(ids_BT), theirs.eval()(ids_BT).logits
    assert ours_BTV.std() > 0.2
    assert (ours_BTV - theirs_BTV).abs().max() <= 1e-5 * max(1.0, ours_BTV.abs().max())
    prompt = ids_BT[:1, :4]
    prompt[0, 1] = 0  # if this were a pad token, it would be masked
    sampled = theirs.generate(prompt, do_sample=False)[0, 4:]
    greedy = SamplingParams(temperature=0.0)
    stop = tokenizer.eot_id
    (expected,) = generate_ids(
        model, prompt.tolist(), seeds=[1], max_new_tokens=20, params=greedy, stop_id=stop
    )
    assert sampled.tolist() == expected
    assert tokenizer.decode(sampled) == tokenizer.decode(expected)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=name_of)
def test_import_then_export_is_the_identity(settings, tokenizer, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason=ORACLE)
    model = make_model(config_of(settings))
    write(tmp_path, model, tokenizer)
    found, found_tokenizer = read(tmp_path)
    exported = files_of(found.config, found.weights, found_tokenizer)
    for name, content in exported.items():
        old = (tmp_path / name).read_bytes()
        if name == hf_folder.WEIGHTS:
            before, after = safetensors.load(old), safetensors.load(content)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key], after[key]) for key in before)
        else:
            assert json.loads(old) == json.loads(content)
    ids_BT = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(2))
    imported = TinyGPT(found.config).eval()
    imported.load_state_dict(found.weights)
    with torch.no_grad():
        assert torch.allclose(imported(ids_BT), model(ids_BT), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", CLASSES)
def test_hugging_faces_tokenizer_gives_our_ids(kind, tokenizer, auto, tmp_path):
    """For every model type, because some choose another tokenizer class by default."""
    settings = next(one for one in COMBINATIONS if hf_model_type(config_of(one)) == kind)
    _, theirs = auto(write(tmp_path, make_model(config_of(settings)), tokenizer))
    texts = hostile_strings(150)
    found = theirs(texts)["input_ids"]
    assert found == [tokenizer.encode(text, allowed_special=True) for text in texts]
    assert theirs.bos_token_id == theirs.eos_token_id == tokenizer.eot_id
    assert theirs.batch_decode(found) == [tokenizer.decode(ids) for ids in found]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_keys_of_transformers_4_give_the_same_settings(kind):
    settings = next(one for one in COMBINATIONS if hf_model_type(config_of(one)) == kind)
    content = to_hf(config_of(settings))
    found = from_hf(content)
    content.pop("rope_parameters", None)
    assert from_hf(content) == found
    assert found.rope_theta == (10000.0 if kind == "gpt2" else 500.0)


@pytest.mark.parametrize("kind", CLASSES)
def test_folders_saved_by_transformers_are_read(kind, tokenizer, auto, tmp_path):
    """As after fine-tuning with transformers: its config.json, names, files, half precision."""
    settings = next(one for one in COMBINATIONS if hf_model_type(config_of(one)) == kind)
    model = make_model(config_of(settings))
    theirs, their_tokenizer = auto(write(tmp_path, model, tokenizer))
    theirs.half().save_pretrained(tmp_path / "again")
    their_tokenizer.save_pretrained(tmp_path / "again")
    found, found_tokenizer = read(tmp_path / "again")
    assert found.config.mlp_width == model.config.mlp_width and found_tokenizer == tokenizer
    assert replace(found.config, mlp_ratio=UNUSUAL["mlp_ratio"]) == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(found.weights[name], weight.half().float())


@pytest.mark.parametrize("name", [None, 3, 1.5, "", "..", [], {}])
def test_a_weight_index_that_names_no_file(name, tokenizer, tmp_path):
    pytest.importorskip("safetensors.torch", reason=ORACLE)
    write(tmp_path, make_model(config_of(COMBINATIONS[0])), tokenizer)
    (tmp_path / hf_folder.WEIGHTS).unlink()
    index = json.dumps({"weight_map": {"a": name}})
    (tmp_path / hf_folder.INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(UserError, match=str(tmp_path)):
        hf_folder.read_folder(tmp_path)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**30, 0, -1])
@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "num_attention_heads"])
def test_an_impossible_size_in_config_json(name, value, tmp_path):
    settings = next(one for one in COMBINATIONS if hf_model_type(config_of(one)) == "gpt_neox")
    content = json.dumps(to_hf(config_of(settings)) | {name: value})
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="config.json"):
        hf_folder.read_folder(tmp_path)


def test_a_run_has_to_be_exported_first(tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "best.pt").touch()
    out = shell_quote(Path("exported", "my run"))
    command = f"`python -m scripts.export --run {shell_quote(run)} --out {out}`"
    with pytest.raises(
        UserError, match=f"my run: a run, which has to be exported first: {re.escape(command)}"
    ):
        hf_folder.read_config(run)


def test_a_safetensors_header_of_a_million_tensors_is_refused(tmp_path):
    pytest.importorskip("safetensors.torch", reason=ORACLE)
    entry = '"k%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % i for i in range(100_000)) + "}").encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="model.safetensors: .*a header of more than 4194304 bytes"):
        hf_folder.read_tensors(tmp_path)
