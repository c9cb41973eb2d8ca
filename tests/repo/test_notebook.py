"""docs/llm_tiny.ipynb is valid, short, and without outputs; its commands exist, its cells run."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment
from tests.helpers.commands import mistakes

NOTEBOOK = json.loads((ROOT / "docs" / "llm_tiny.ipynb").read_text(encoding="utf-8"))
CELLS = NOTEBOOK["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
COMMANDS = re.findall(r"^ *!(.*)$", "\n".join(CODE), re.MULTILINE)
QUICK = "--train.max_steps 2 --model.n_layer 1 --model.n_embd 32"


def test_the_notebook_is_valid_and_short_and_has_no_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    assert 1 < len(CELLS) <= 12
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None and cell["outputs"] == []
        assert cell.keys() == keys and cell["cell_type"] in ("code", "markdown")
        assert all(isinstance(line, str) for line in cell["source"])
        assert len("".join(cell["source"]).splitlines()) <= 10
    for name in re.findall(r"\]\(([^)#:]+)\)", "".join("".join(c["source"]) for c in CELLS)):
        assert (ROOT / "docs" / name).exists(), name


def test_the_notebook_has_no_logic() -> None:
    """But for the guard of the second cell, which finds a checkout."""
    words = r"\b(for|while|if|def|class|lambda|try|with)\b"
    assert [n for n, text in enumerate(CODE) if re.search(words, re.sub("#.*", "", text))] == [1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_notebook_exist(command: str) -> None:
    names = dict(re.findall(r'^(\w+) = "(.*?)"', CODE[0], re.MULTILINE))
    assert mistakes(command.format(**names)) == []


@pytest.mark.slow
def test_the_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the tree, opened in docs/; two steps of small models instead of minutes."""
    reason = "pip install nbclient ipykernel"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("configs", "data", "docs", "model", "scripts", "tok", "utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("train.py", "sample.py"):
        shutil.copy(ROOT / name, tmp_path)
    config = (tmp_path / "configs" / "tiny.yaml").read_text(encoding="utf-8")
    for name, size in (("story_bytes", 100_000), ("val_story_bytes", 3000)):
        config, n = re.subn(rf"(?m)^  {name}: .*$", f"  {name}: {size}", config)
        assert n == 1
    (tmp_path / "configs" / "tiny.yaml").write_text(config, encoding="utf-8")
    notebook = nbformat.read(tmp_path / "docs" / "llm_tiny.ipynb", as_version=4)
    nbformat.validate(notebook)
    parameters = notebook.cells[1]
    assert parameters.source.count("--train.max_minutes 2") == 1
    parameters.source = parameters.source.replace("--train.max_minutes 2", QUICK)
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    resources = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "\n".join(output.get("text", "") for output in outputs)
    assert "error" not in printed.lower() and "Traceback" not in printed
    assert "\nOnce" in printed and "\nThe" in printed
    shown = [output["data"] for output in outputs if "data" in output]
    assert [name for name in ("image/png", "text/html") for one in shown if name in one] == [
        "image/png",
        "text/html",
    ]
    assert "&lt;script" in shown[-1]["text/html"] and "Once" in shown[-1]["text/html"]
