"""Every command works in folders whose names are not UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.documents import split_documents
from scripts.eval import __main__ as evaluate
from scripts.export import __main__ as export
from scripts.sweep.points import to_csv
from tests.conftest import ROOT, clean_environment
from tests.helpers.runs import flags
from train import parse
from utils.errors import UserError
from utils.suggest import shell_quote

ODD = "caf\udce9 \udcff"  # a file name with the bytes e9 and ff


@pytest.fixture
def odd_run(story_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(story_run, tmp_path / ODD)


def test_a_path_on_stdout_has_its_own_bytes(odd_run: Path) -> None:
    out = odd_run / "loss.pdf"
    command = [sys.executable, "-m", "scripts.plot", "--run", str(odd_run), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == os.fsencode(out) + b"\n"
    assert out.read_bytes().startswith(b"%PDF")


def test_pages_and_json_of_an_evaluation(odd_run, printed) -> None:
    text = odd_run / "text.txt"
    text.write_text("Once upon a time", encoding="utf-8")
    argv = ["--run", odd_run, "--text", text, "--html", odd_run / "page.html"]
    record, _ = printed(evaluate.main, *argv)
    assert record["text"] == str(text)
    assert r"caf\udce9" in (odd_run / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("to, library", [("hf", "safetensors"), ("gguf", "gguf")])
def test_exports(odd_run: Path, printed, to: str, library: str) -> None:
    pytest.importorskip(library, reason=f"oracle: not installed (pip install {library})")
    out = odd_run.parent / f"{ODD}2"
    record, _ = printed(export.main, "--run", odd_run, "--out", out, "--to", to)
    assert record["out"] == str(out)
    assert "caf\\udce9" in (out / "README.md").read_text(encoding="utf-8")


def test_a_path_is_quoted_for_the_shell() -> None:
    for path in (ODD, "it's", "a\\b \udce9'", "\n\udc80"):
        words = ["bash", "-c", f"printf %s {shell_quote(path)}"]
        assert subprocess.run(words, capture_output=True, check=True).stdout == os.fsencode(path)


def test_tables_of_a_sweep_are_utf8() -> None:
    rows = [{"point": ODD, "data.files": ODD, "status": "done"}]
    assert "caf\\udce9" in to_csv(rows, ["data.files"]).decode()


def test_a_separator_may_be_any_byte_but_no_setting_half_a_character(
    tmp_path: Path, story_settings: dict[str, object]
) -> None:
    assert split_documents(b"one\xe9two", "\udce9") == [b"one", b"two"]
    for name in ("data.doc_sep", "run_dir", "train.sample_prompt"):
        content: object = "\ud800"
        for key in reversed(name.split(".")):
            content = {key: content}
        (tmp_path / "c.yaml").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=f"{name}: character 0 is half of a surrogate pair"):
            parse(["--config", str(tmp_path / "c.yaml")])
    assert parse(flags(tmp_path / ODD, story_settings))[0].run_dir == str(tmp_path / ODD)
