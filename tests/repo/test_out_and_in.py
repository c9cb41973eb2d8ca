"""The README's commands from a corpus to transformers and llama.cpp, run as written."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import scripts.export.__main__
import train
from data.download.known_corpora import CORPORA
from tests.conftest import ROOT, run_program
from tests.data.download.serving import good, serving
from utils.metrics import read_rows

README = ROOT / "README.md"


def blocks_out_and_in() -> list[str]:
    """Return the README's blocks of commands: for transformers, llama.cpp, and finetuning."""
    section = README.read_text(encoding="utf-8").split("## Export and import")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout in which bash ran the first four of the five commands.

    A local server provides another text as the corpus, and the model and its training are smaller.
    pip is faked, because the packages are installed already.
    """
    for name in ("safetensors", "transformers", "gguf"):
        pytest.importorskip(name, reason=f"oracle: not installed (pip install {name})")
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    checkout = tmp_path_factory.mktemp("checkout")
    raw = (ROOT / "data" / "tiny.txt").read_bytes()[:60_000]
    with serving(good(raw)) as server:
        copy_checkout(checkout, raw, server.url)
        lines = blocks_out_and_in()[0].splitlines()
        assert len(lines) == 5
        script = "\n".join(lines[:4])
        path = f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "PYTHONPATH": "", "no_proxy": "*"}
        done = run_program(["bash", "-euc", script], cwd=checkout, env=environment, timeout_s=600)
    assert done.returncode == 0, done.stderr
    calls = (checkout / "calls").read_text(encoding="utf-8").splitlines()
    assert calls == ["install safetensors transformers -c constraints.txt"]
    return checkout


def copy_checkout(to: Path, raw: bytes, url: str) -> None:
    """Copy the tree, with a pip that only records its calls, and with `raw` as the corpus."""
    for name in ("tok", "data", "utils", "model", "scripts", "configs"):
        shutil.copytree(ROOT / name, to / name)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.txt")]:
        shutil.copy(path, to)
    corpus = next(one for one in CORPORA if one.name == "tinyshakespeare")
    content = corpus.sources[0].content
    replace(
        to / "data" / "download" / "corpora.yaml",
        {
            f"{content.size_bytes:_}": str(len(raw)),
            content.sha256: hashlib.sha256(raw).hexdigest(),
            r'"https://raw.*/input.txt"': f'"{url}"',
        },
    )
    replace(to / "data" / "download" / "__main__.py", {'SCHEME = "https"': 'SCHEME = "http"'})
    small = {"n_layer": 1, "n_embd": 32, "vocab_size": 300, "max_steps": 2}
    changes = {rf"\n  {name}: .*": f"\n  {name}: {value}" for name, value in small.items()}
    replace(to / "configs" / "tinyshakespeare.yaml", changes)
    replace(to / "configs" / "finetune.yaml", {r"\n  max_steps: .*": "\n  max_steps: 2"})
    tools = to / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, body in (("pip", 'echo "$@" >> calls'), ("python", f'exec "{sys.executable}" "$@"')):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tools / name).chmod(0o755)


def replace(path: Path, changes: dict[str, str]) -> None:
    """Replace the match of each pattern in a file; each pattern must match once."""
    text = path.read_text(encoding="utf-8")
    for pattern, new in changes.items():
        text, n = re.subn(pattern, lambda match, new=new: new, text)
        assert n == 1, f"{path}: {pattern}: {n} times"
    path.write_text(text, encoding="utf-8")


def test_five_commands_lead_from_a_corpus_to_transformers(exported: Path, tmp_path: Path) -> None:
    """The last command runs in a folder that contains only the exported files."""
    shutil.copytree(exported / "exported", tmp_path / "exported")
    line = blocks_out_and_in()[0].splitlines()[4]
    environment = {
        "PATH": f"{exported / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "HF_HUB_OFFLINE": "1",
    }
    done = run_program(["bash", "-euc", line], cwd=tmp_path, env=environment, timeout_s=600)
    assert done.returncode == 0 and done.stdout.startswith("ROMEO:"), done.stderr
    assert len(done.stdout.strip()) > len("ROMEO:")
    card = (exported / "exported" / "shakespeare" / "README.md").read_text(encoding="utf-8")
    assert "tinyshakespeare: scenes from Shakespeare's plays. Its licence: public domain." in card


def test_the_lines_for_llama_cpp(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second line runs llama.cpp's own program, so only its file is checked here."""
    monkeypatch.chdir(exported)
    ours, theirs = map(shlex.split, blocks_out_and_in()[1].splitlines())
    assert (
        ours[:3] == ["python", "-m", "scripts.export"]
        and scripts.export.__main__.main(ours[3:]) == 0
    )
    file = Path(theirs[theirs.index("-m") + 1])
    assert file.read_bytes().startswith(b"GGUF")
    card = (file.parent / "README.md").read_text(encoding="utf-8")
    assert f"    {theirs[0]} -m {file.name} -no-cnv -p" in card


def test_the_line_that_continues_training_an_exported_model(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)
    Path("mytext.txt").write_bytes((ROOT / "data" / "tiny.txt").read_bytes()[:60_000])
    (words,) = map(shlex.split, blocks_out_and_in()[2].splitlines())
    assert words[:2] == ["python", "train.py"] and train.main(words[2:]) == 0
    rows = [row for row in read_rows(Path("runs/tuned/metrics.csv")) if row["val_loss"]]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"]) and rows[-1]["step"] == "2"
