"""What docs/theory.md says about the code is there."""

from __future__ import annotations

import importlib
import re
from functools import reduce

import pytest

from tests.conftest import ROOT

THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
PARAGRAPHS = re.findall(r"^In the code:.*?(?=\n\n|\Z)", THEORY, re.MULTILINE | re.DOTALL)
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
