"""The names that theory.md, tokenizer.md, sampling.md and sweeps.md cite exist and are used."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from functools import cache

import pytest

import scripts.sweep.__main__
from tests.conftest import ROOT
from tests.helpers.source import PRODUCT, module_of, reached, words_of

SWEEPS = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
TOKENIZER = (ROOT / "docs" / "tokenizer.md").read_text(encoding="utf-8")
SAMPLING = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
CITING = "\n\n".join([THEORY, TOKENIZER, SAMPLING, SWEEPS])
PARAGRAPHS = re.findall(r"^In the code:.*?(?=\n\n|\Z)", CITING, re.MULTILINE | re.DOTALL)
NAMES = sorted({name for text in PARAGRAPHS for name in re.findall(r"`([\w.]+)`", text)})


def test_every_section_of_the_theory_names_its_code() -> None:
    sections = THEORY.split("\n## ")[1:]
    assert len(sections) >= 10
    assert [text.splitlines()[0] for text in sections if "In the code:" not in text] == []


Used = tuple[Mapping[str, ast.Module], dict[str, set[str]], set[str]]


def usage(sources: Mapping[str, ast.Module]) -> Used:
    """Return the sources, the names of each module that a program reaches, and all identifiers."""
    return sources, reached(sources), set().union(*map(words_of, sources.values()))


@cache
def product() -> Used:
    return usage({module_of(path): ast.parse(path.read_bytes()) for path in PRODUCT})


def mistake(name: str, code: Used) -> str:
    """Return why a cited name is wrong: it does not exist, or no program uses it; "" if right."""
    sources, used, words = code
    parts = name.split(".")
    cuts = [cut for cut in range(len(parts)) if ".".join(parts[:cut]) in sources]
    if not cuts:
        return "no such module"
    module, inside = ".".join(parts[: cuts[-1]]), parts[cuts[-1] :]
    body: list[ast.stmt] = sources[module].body
    for part in inside:
        found = [node for node in body if getattr(node, "name", "") == part]
        if not found:
            return f"no {part} there"
        body = getattr(found[0], "body", [])
    if inside[0] not in used[module]:
        return f"no program uses {inside[0]}"
    called = len(inside) == 1 or inside[-1] in words
    return "" if called else f"nothing calls {inside[-1]}"


@pytest.mark.parametrize("name", NAMES)
def test_the_cited_code_exists_and_is_used(name: str) -> None:
    assert mistake(name, product()) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.used", ""),
        ("a.helper", ""),
        ("a.by_module", ""),
        ("a.Thing.method", ""),
        ("a.Thing.silent", "nothing calls silent"),
        ("a.Thing.nothing", "no nothing there"),
        ("a.lonely", "no program uses lonely"),
        ("a.itself", "no program uses itself"),
        ("a.missing", "no missing there"),
        ("c.used", "no such module"),
    ],
)
def test_a_wrong_pointer_is_found(name: str, reason: str) -> None:
    module = "def used(): return helper(Thing().method)\ndef helper(x): pass\n"
    module += "def lonely(): helper()\ndef itself(): itself()\ndef by_module(): pass\n"
    module += "class Thing:\n    def method(self): pass\n    def silent(self): pass\n"
    sources = {"a": module, "b": "from a import used", "p": "import a\na.by_module()"}
    code = usage({key: ast.parse(text) for key, text in sources.items()})
    assert mistake(name, code) == reason


def test_every_sweep_of_the_docs_is_valid(tmp_path, monkeypatch, capsys) -> None:
    """Sweeps by file and by flags, with --dry-run, which checks the settings of every point."""
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
    assert points == [16, 9, 12, 20, 12, 48, 16, *points[-3:]]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES.remove(ROOT / "docs" / "log.md")  # names files of its time
PATH = re.compile(
    r"(?<![\w./-])((?:tok|model|data|utils|scripts|tests|configs|docs)/[\w./-]+\.\w+)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []
