"""Every UserError in the product says how to fix it."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from model.hf.pretrained import pretrained_settings
from scripts.export import __main__ as export
from scripts.export.hf_config import hf_model_type
from tests.conftest import ROOT
from tests.helpers.source import PRODUCT
from tok.formats.convert import import_tokenizer
from tok.tokenizer import BPETokenizer
from train import Config
from utils.config.load import load
from utils.errors import UserError
from utils.run import checkpoint

RAISERS = {"UserError", "TokenizerError", "error"}  # the last is Parser.error
# A message says what to do, or what is accepted: a clause that begins with an imperative, or words
# for the accepted values.
IMPERATIVE = (
    "add|change|check|choose|convert|copy|decompress|delete|download|drop|export|free|get|give|"
    "install|keep|leave|lower|make|move|name|pass|pip install|prepare|put|quote|raise|redirect|"
    "remove|rename|repair|replace|restore|run|save|see|set|split|start|train|try|unset|use|wait|write"
)
FIX = re.compile(
    rf"(?:^|[;:,(] ?|\b(?:or|and) )(?:{IMPERATIVE})\b"
    r"|\bdid you mean\b|\bexpected\b|\bmust\b|\bneeds?\b|\brequires?\b|\bat (?:least|most)\b"
    r"|\bone of\b|\bnot allowed\b|\bhas an effect only\b|\bhave an effect only\b|, not \b"
    r"|\bis required\b|\breads \{|\bsupported: |\bare whole numbers\b"
)
# A placeholder whose value is a fix, or a whole message that has one.
FIX_NAMES = re.compile(
    r"\{[^{}]*(?:hint|ending|fix|error|reason|message|problem|meant|unknown_)[^{}]*\}"
)


# Errors about the content of a file. The caller adds the name of the file and a fix, by `with_fix`.
WRAPPED = (
    "tok/encoding/",
    "tok/formats/",
    "tok/patterns.py",
    "tok/tokenizer.py",
    "tok/tokenizer_file.py",
    "tok/vocabulary.py",
    "model/hf/",
    "model/load.py",
    "scripts/export/gguf.py",
)


def template(node: ast.expr) -> str:
    """The text of a message, with placeholders in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            (
                str(part.value)
                if isinstance(part, ast.Constant)
                else "{" + ast.unparse(part.value).replace("{", "(").replace("}", ")") + "}"
            )
            for part in node.values
            if isinstance(part, (ast.Constant, ast.FormattedValue))
        )
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "{" + ast.unparse(node).replace("{", "(").replace("}", ")") + "}"


def messages(path: Path) -> list[tuple[int, str]]:
    """Line and template of each message that a file raises as an error of the user."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and node.args:
            name = (
                node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            )
            if name in RAISERS:
                found.append((node.lineno, template(node.args[0])))
    return found


def says_how_to_fix(message: str) -> bool:
    return bool(FIX.search(message) or FIX_NAMES.search(message))


def test_every_user_error_says_how_to_fix_it() -> None:
    wrong, n_found = [], 0
    for path in PRODUCT:
        name = path.relative_to(ROOT).as_posix()
        for line, text in messages(path):
            n_found += 1
            if not name.startswith(WRAPPED) and not says_how_to_fix(text):
                wrong.append(f"{name}:{line}: {text}")
    assert wrong == [] and n_found > 200


def test_messages_without_a_fix_are_detected() -> None:
    assert not says_how_to_fix("{path}: damaged")
    assert not says_how_to_fix("{path}: the reader has no end")
    assert says_how_to_fix("{path}: damaged; put the original back")
    assert says_how_to_fix("{where}: must be {words} {limit}, got {value}")


def test_errors_about_the_content_of_a_file_get_a_fix(tmp_path: Path) -> None:
    """Of the modules in WRAPPED, one each."""
    path = tmp_path / "tok.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="; put the original file back$"):
        BPETokenizer.load(path)
    path.write_text('{"model": {"type": "WordPiece"}}', encoding="utf-8")
    with pytest.raises(UserError, match="; use another file$"):
        import_tokenizer([str(path)], pattern=None, special={})
    with pytest.raises(UserError, match="give vocab.bpe too$"):
        path.write_text("{}", encoding="utf-8")
        import_tokenizer([str(path)], pattern=None, special={})
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="; get the folder again, or name another$"):
        pretrained_settings(str(tmp_path), {})


def test_a_model_that_no_class_supports_names_configs_that_do(
    text_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(text_run, run)
    state = checkpoint.load(run / "best.pt")
    del state["format"]
    state["config"]["model"]["mlp"] = "relu2"
    state["config"]["model"]["softcap"] = 3.0
    checkpoint.save(run / "best.pt", state)
    with pytest.raises(UserError, match="no Hugging Face class .*; export a run of configs/text"):
        export.main(["--run", str(run), "--out", str(tmp_path / "out")])


def test_the_config_of_the_examples_of_export_can_be_exported() -> None:
    assert all("configs/text.yaml" in line or "runs/mine" in line for line in export.EXAMPLES)
    config, _ = load(Config, [str(ROOT / "configs" / "text.yaml")], {})
    assert hf_model_type(config.model) == "qwen3"
