"""docs/library.md: its blocks run as written; `run.sample` and `save_run` do as the commands."""

from __future__ import annotations

import io
import math
import re
import runpy
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sample
import scripts.eval.__main__
import train
from model.gpt import TinyGPT
from model.training.loss import cross_entropy_per_token
from sample import load_run, save_run
from tests.conftest import ROOT
from tests.helpers.commands import check_typed
from utils.errors import UserError
from utils.run import checkpoint
from utils.run.folder import RunFolder

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def page(text_run, tmp_path_factory) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder in which the page ran, its names, and what each block has printed."""
    folder, names, printed = tmp_path_factory.mktemp("page"), dict[str, Any](), list[str]()
    shutil.copytree(text_run, folder / "runs" / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(BLOCKS):
            file = folder / f"block_{number + 1}.py"
            file.write_text(block, encoding="utf-8")
            with redirect_stdout(io.StringIO()) as output:
                names = runpy.run_path(str(file), names)
            printed.append(output.getvalue())
    return folder, names, printed


def test_ten_things_take_at_most_six_lines_each() -> None:
    assert len(BLOCKS) == len(re.findall(r"^\*\*\d+\. ", PAGE, re.MULTILINE)) == 10
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line.strip()]) <= 6
        assert max(map(len, block.splitlines())) <= 100


def test_the_blocks_can_be_typed() -> None:
    for block in BLOCKS:
        check_typed(block)


def test_the_page_does_what_it_says(page, text_run) -> None:
    folder, names, printed = page
    original = load_run(text_run)
    assert "n_layer" in printed[0] and names["text"] == "Once there was a curious girl"
    ids = [original.tokenizer.eot_id, *original.tokenizer.encode("Once there was a curious girl")]
    assert names["ids"] == ids[1:] and names["ids_BT"].tolist() == [ids]
    logits_BTV = original.model(torch.tensor([ids]))
    torch.testing.assert_close(names["logits_BTV"], logits_BTV)
    nats = -logits_BTV.log_softmax(-1)[0, range(len(ids) - 1), ids[1:]]
    assert float(printed[3]) == pytest.approx(nats.mean().item(), rel=1e-5)
    assert printed[4].startswith("Once") and len(set(names["texts"])) == 3
    assert len(names["inside"].hidden) == original.model.config.n_layer + 1
    assert names["deeper"].config.n_layer == 6 and (folder / "loss.png").stat().st_size > 1000
    assert printed[9] == "True\n"
    assert not names["changed"].model.blocks[0].attn.proj.weight.any()


def test_the_step_by_hand_lowers_the_loss(page, text_run) -> None:
    """With the weights that the later block sets to zero put back."""
    _, names, _ = page
    model, ids_BT = load_run(text_run).model, names["ids_BT"]
    before = cross_entropy_per_token(model(ids_BT[:, :-1]), ids_BT[:, 1:]).mean()
    proj = model.blocks[0].attn.proj.weight.clone()
    model.load_state_dict(names["changed"].model.state_dict())
    with torch.no_grad():
        model.blocks[0].attn.proj.weight.copy_(proj)
    after = cross_entropy_per_token(model(ids_BT[:, :-1]), ids_BT[:, 1:]).mean()
    assert after < before - 0.01


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("", {}),
        ("--prompt Once --steps 30 --temperature 0.8", {"prompt": "Once", "temperature": 0.8}),
        ("--prompt Once --steps 30 --temp 0.8", {"prompt": "Once", "temperature": 0.8}),
        ("--steps 30 --seed 5 --top-k 3", {"seed": 5, "top_k": 3}),
        ("--steps 30 --top-p 0.9 --min-p 0.01", {"top_p": 0.9, "min_p": 0.01}),
        ("--steps 30 --repetition-penalty 1.3", {"repetition_penalty": 1.3}),
    ],
)
def test_a_sample_is_the_text_of_the_command(flags, arguments, text_run, capsys) -> None:
    assert sample.main(["--run", str(text_run), *flags.split()]) == 0
    steps = {"steps": 30} if flags else {}
    assert load_run(text_run).sample(**arguments, **steps) + "\n" == capsys.readouterr().out


def test_a_sample_has_the_present_weights_and_leaves_the_mode(text_run) -> None:
    run = load_run(text_run)
    before, engine = run.sample("Once", steps=30), run.engine
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.mul_(-3)
    run.model.train()
    after = run.sample("Once", steps=30)
    assert run.model.training and run.engine is engine
    assert after != before and after == replace(run).sample("Once", steps=30)
    with pytest.raises(ValueError, match="temperature must be 0 or more"):
        run.sample(temperature=-1)
    with pytest.raises(TypeError, match="temp"):
        run.sample(temp=1)


def test_a_saved_run_is_the_same_run(text_run, tmp_path) -> None:
    run = load_run(text_run)
    save_run(run, tmp_path / "saved")
    again = load_run(tmp_path / "saved")
    ours, theirs = dict(run.state), dict(again.state)
    ours["config"] = ours["config"] | {"run_dir": str(tmp_path / "saved")}
    ours["logs"] = {}
    assert checkpoint.digest(ours) == checkpoint.digest(theirs)
    assert again.tokenizer == run.tokenizer
    record = RunFolder(tmp_path / "saved").read_record()
    assert record == RunFolder(text_run).read_record()
    assert (tmp_path / "saved" / "best.pt").read_bytes() == (
        tmp_path / "saved" / "last.pt"
    ).read_bytes()


def test_a_changed_model_is_not_evaluated_and_trains_on(text_run, tmp_path, capsys) -> None:
    run = load_run(text_run)
    with torch.no_grad():
        run.model.token_embedding.weight.mul_(9)
    save_run(run, tmp_path / "saved")
    assert sample.main(["--run", str(tmp_path / "saved"), "--steps", "5"]) == 0
    assert "step 4, not evaluated\n" in capsys.readouterr().err
    assert scripts.eval.__main__.main(["--run", str(tmp_path / "saved")]) == 0
    more = ["--run_dir", str(tmp_path / "saved"), "--resume", "--train.max_steps", "6"]
    assert train.main(more) == 0
    state = load_run(tmp_path / "saved").state
    assert state["step"] == 6 and state["best_val"] == state["last_val"] < math.inf


def test_a_model_of_other_settings_can_be_saved(text_run, tmp_path, capsys) -> None:
    run = load_run(text_run)
    run.model = TinyGPT(replace(run.model.config, n_layer=2)).eval()
    save_run(run, tmp_path / "saved")
    again = load_run(tmp_path / "saved")
    assert again.model.config.n_layer == 2
    assert again.sample(steps=20) == run.sample(steps=20)
    assert scripts.eval.__main__.main(["--run", str(tmp_path / "saved")]) == 0
    more = ["--run_dir", str(tmp_path / "saved"), "--resume", "--train.max_steps", "6"]
    with pytest.raises(UserError, match="optimizer"):
        train.main(more)


def test_nothing_is_written_if_a_run_cannot_be_saved(text_run, tmp_path) -> None:
    run = load_run(text_run)
    other = shutil.copytree(text_run, tmp_path / "other")
    before = {path: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(UserError, match="holds a run"):
        save_run(run, other)
    assert {path: path.read_bytes() for path in other.iterdir()} == before
    moved = load_run(other)
    shutil.rmtree(other)
    with pytest.raises(UserError, match="no run there"):
        save_run(moved, tmp_path / "saved")
    run.model.blocks[0].mlp.fc = torch.nn.Linear(3, 3)
    with pytest.raises(UserError, match=r"weight blocks\.0\.mlp\.fc"):
        save_run(run, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
