"""What docs/theory.md says about the code is there."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import reduce

import pytest

import scripts.sweep.__main__
from tests.conftest import ROOT

SWEEPS = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
PARAGRAPHS = re.findall(r"^In the code:.*?(?=\n\n|\Z)", THEORY + SWEEPS, re.MULTILINE | re.DOTALL)
NAMES = sorted({name for text in PARAGRAPHS for name in re.findall(r"`([\w.]+)`", text)})


def test_every_section_names_its_code() -> None:
    sections = THEORY.split("\n## ")[1:]
    assert len(sections) >= 10
    assert [text.splitlines()[0] for text in sections if "In the code:" not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_there(name: str) -> None:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        assert callable(reduce(getattr, parts[cut:], module))
        return
    pytest.fail(f"{name}: no such module")


def test_every_sweep_of_the_docs_can_begin(tmp_path, monkeypatch, capsys) -> None:
    """Files and flags alike, as far as --dry-run goes: every point's settings are checked."""
    files = re.findall(r"^```yaml\n(.*?)^```", SWEEPS, re.DOTALL | re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python -m scripts\.sweep (.*)$", readme + SWEEPS, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    for number, text in enumerate(files):
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
        commands.append(["--config", str(tmp_path / f"{number}.yaml")])
    monkeypatch.chdir(ROOT)
    points = []
    for words in commands:
        moved = words if "--out" in words else [*words, "--out", str(tmp_path / "out")]
        assert scripts.sweep.__main__.main([*moved, "--dry-run"]) == 0
        points.append(len(capsys.readouterr().out.splitlines()))
    assert len(files) == 3 and points[-3:] == [12, 15, 20]
    assert points == [16, 9, 20, 16, 12, 20, 12, 48, 16, *points[-3:]]
