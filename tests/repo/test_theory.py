"""docs/theory.md: its examples are right, and its figures are made by the lines that it gives."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
import shutil

import pytest

import sample
import scripts.plot
from model.config import ModelConfig
from model.gpt import TinyGPT
from tests.conftest import ROOT
from tests.helpers.commands import check_typed
from tests.helpers.pages import random_run
from tok.tokenizer import BPETokenizer

DOCS = ROOT / "docs"
PAGE = (DOCS / "theory.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^    python -m scripts\.plot (.*--out .*)$", PAGE, re.MULTILINE)
MAX_PICTURE_BYTES = 60_000


def test_the_examples_are_right(monkeypatch) -> None:
    """As `python -m doctest docs/theory.md` does."""
    monkeypatch.chdir(ROOT)
    failed, attempted = doctest.testfile(str(DOCS / "theory.md"), module_relative=False)
    assert failed == 0 and attempted >= 80


def test_a_wrong_number_is_found(tmp_path) -> None:
    wrong = tmp_path / "theory.md"
    wrong.write_text("    >>> 1 + 1\n    3\n\n", encoding="utf-8")
    assert doctest.testfile(str(wrong), module_relative=False, report=False).failed == 1


def test_the_diagram_names_the_modules_of_the_model() -> None:
    config = ModelConfig(pointer=True, bigram_rows=8)
    modules = [name.split(".")[-1] for name, _ in TinyGPT(config).named_modules()]
    drawing = (DOCS / "model.svg").read_text(encoding="utf-8")
    named = re.findall(r'class="name">(.*?)<', drawing)
    assert [name for name in named if name not in {*modules, "q", "k", "v"}] == []
    shown = {"token_embedding", "bigram_embedding", "blocks", "final_norm", "pointer", "head"}
    shown |= {"attn_norm", "attn", "mlp_norm", "mlp", "qkv", "proj", "fc"}
    assert shown <= set(named)
    assert "<script" not in drawing and "http" not in drawing.replace("http://www.w3.org/", "")


def test_the_lines_of_the_page_make_its_figures(text_run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(text_run, tmp_path / "runs" / "tiny")
    [command] = COMMANDS
    assert scripts.plot.main(shlex.split(command)) == 0
    run = random_run(tmp_path, BPETokenizer([(97, 98)]), block_size=128, n_head=4, pointer=True)
    monkeypatch.setattr(sample, "load_run", {"runs/tiny": run.loaded}.__getitem__)
    [block] = BLOCKS
    check_typed(block)
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    runpy.run_path(str(tmp_path / "block.py"))
    made = {path.name for path in tmp_path.glob("*.png") if path.stat().st_size > 1000}
    used = re.findall(r"^!\[.*\]\((.*)\)$", PAGE, re.MULTILINE)
    by_eval = re.findall(r"`python -m scripts.eval --run runs/tiny --where docs/(\S+)`", PAGE)
    assert by_eval, "the flag has its own tests, tests/scripts/eval/"
    by_scaling = ["scaling.png"] * ("    python -m scripts.scaling --sweep runs/scaling\n" in PAGE)
    assert {*made, *by_eval, *by_scaling, "model.svg"} == set(used)


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.png")), ids=lambda path: path.name)
def test_pictures_are_small(picture) -> None:
    assert picture.stat().st_size < 2 * MAX_PICTURE_BYTES
    used = re.findall(r"^!\[.*\]\((.*)\)$", PAGE, re.MULTILINE)
    assert picture.name not in used or picture.stat().st_size < MAX_PICTURE_BYTES
