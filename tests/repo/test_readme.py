"""The README shows what works: its commands, its map, its lines for one's own text."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import data.download.__main__
import data.download.fetch
import sample
import scripts.eval.__main__
import train
from data.download.known_corpora import Content, KnownCorpus, Source
from model.hf.config import kind_of
from tests.conftest import ROOT, run_program
from tests.data.download.serving import good, serving
from tests.helpers.repo import README, TARGETS
from utils.metrics import read_rows


def readme_commands() -> list[str]:
    """The commands in the README's ```sh blocks, continued lines joined, comments dropped."""
    if not README.exists():
        pytest.skip("README.md is not there yet")
    blocks = re.findall(
        r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [
        " ".join(shlex.split(line, comments=True))
        for line in lines
        if shlex.split(line, comments=True)
    ]


def test_the_readme_shows_the_two_commands():
    assert {"make train", "make test"} <= set(readme_commands())


def test_every_command_of_the_readme_exists(run_python):
    helps: dict[str, str] = {}
    for command in readme_commands():
        words = command.partition(" && ")[0].split()
        if words[0] == "make":
            targets = {word for word in words[1:] if "=" not in word and word[0] not in "-'\""}
            quoted = re.search("ARGS|EXTRAS", command)
            assert targets <= TARGETS | (targets if quoted else set()), command
        elif words[0] in ("python", "python3"):
            target = words[1:3] if words[1] == "-m" else words[1:2]
            key = " ".join(target)
            if key in ("-m venv", "-m pip", "-m pytest") or words[1] == "-c":
                continue
            name = target[-1].replace(".", "/") if words[1] == "-m" else target[0][:-3]
            assert any(
                (ROOT / f"{name}{end}").is_file() for end in (".py", "/__main__.py")
            ), command
            rest = words[1 + len(target) :]
            sub = rest[:1] if rest and re.fullmatch(r"[a-z]+", rest[0]) else []
            if key + str(sub) not in helps:
                done = run_python(*target, *sub, "--help")
                assert done.returncode == 0, f"{command}: {done.stderr}"
                helps[key + str(sub)] = done.stdout.replace("_", "-")
            for flag in re.findall(r"(?<=\s)--[a-z][\w.-]*", " " + " ".join(rest)):
                assert flag.replace("_", "-") in helps[key + str(sub)], f"{command}: no flag {flag}"


def test_the_readme_commands_on_files_run_in_a_fresh_checkout(tmp_path):
    for name in ("tok", "data", "utils"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    with gzip.open(tmp_path / "stories.jsonl.gz", "wb") as file:
        file.write(b'{"story": "The cat sat."}\n' * 12)
    lines = [line for line in readme_commands() if re.search("tok.tokenizer|data.prepare", line)]
    assert len(lines) == 6
    for line in lines:
        done = run_program(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={"PATH": path, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_map_of_the_readme_names_what_exists():
    if not README.exists():
        pytest.skip("README.md is not there yet")
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)[)#]", text):
        assert (ROOT / target).exists(), f"README.md links {target}"


def small_text_config(folder: Path) -> None:
    """configs/text.yaml for two steps of a smaller model, and 100 kB in mytext.txt."""
    text = (ROOT / "configs" / "text.yaml").read_text(encoding="utf-8")
    for name, value in (("n_layer", 1), ("n_embd", 32), ("max_steps", 2), ("vocab_size", 300)):
        text, n = re.subn(rf"(?m)^  {name}: .*$", f"  {name}: {value}", text)
        assert n == 1
    (folder / "configs").mkdir()
    (folder / "configs" / "text.yaml").write_text(text, encoding="utf-8")
    (folder / "mytext.txt").write_bytes((ROOT / "data" / "tiny.txt").read_bytes()[:100_000])


def test_the_lines_for_ones_own_text_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 100 kB, with two steps of a smaller model; .ci/run runs them whole."""
    small_text_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").split("## Your own text")[1]
    lines = section.split("```sh\n")[1].split("```")[0].splitlines()
    assert 1 <= len(lines) <= 4
    programs: dict[str, Callable[[list[str]], int]] = {
        "train.py": train.main,
        "sample.py": sample.main,
    }
    for line in lines:
        python, program, *argv = shlex.split(line)
        capsys.readouterr()
        assert python == "python" and programs[program](argv) == 0
    assert program == "sample.py" and capsys.readouterr().out.startswith("The")
    assert read_rows(tmp_path / "runs" / "mine" / "metrics.csv")[-1]["step"] == "2"


def test_the_lines_on_known_corpora_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a server of our own, which has another text; with two steps of a smaller model."""
    name = "tinyshakespeare"
    config = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    for key, value in (("n_layer", 1), ("n_embd", 32), ("max_steps", 2), ("vocab_size", 300)):
        config, n = re.subn(rf"(?m)^  {key}: .*$", f"  {key}: {value}", config)
        assert n == 1
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / f"{name}.yaml").write_text(config, encoding="utf-8")
    raw = (ROOT / "data" / "tiny.txt").read_bytes()[:60_000]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(data.download.fetch, "SCHEMES", ("http",))
    section = README.read_text(encoding="utf-8").split("## Known corpora")[1]
    lines = [shlex.split(line) for line in section.split("```sh\n")[1].split("```")[0].splitlines()]
    assert [words[1] for words in lines] == ["-m", "-m", "train.py", "sample.py"]
    with serving(good(raw)) as server:
        content = Content("input.txt", len(raw), hashlib.sha256(raw).hexdigest())
        source = Source(content, (server.url,), "this test", verified=True)
        corpus = KnownCorpus(name, "a text", "MIT", (source,))
        monkeypatch.setattr(data.download.__main__, "CORPORA", (corpus,))
        for words in lines[:2]:
            assert words[2] == "data.download" and data.download.__main__.main(words[3:]) == 0
    assert train.main(lines[2][2:]) == 0
    capsys.readouterr()
    assert sample.main(lines[3][2:]) == 0 and capsys.readouterr().out.startswith("ROMEO:")


def test_the_lines_on_samples_and_scores_run_as_they_stand(
    text_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a tiny run; what a line writes into a file is taken from stdout here."""
    shutil.copytree(text_run, tmp_path / "runs" / "tiny")
    (tmp_path / "prompts.txt").write_text("the cat\nAnna\n", encoding="utf-8")
    (tmp_path / "mytext.txt").write_text("the cat sat.\n\nAnna saw 🙂.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").split("## Samples and scores")[1]
    lines = section.split("```sh\n")[1].split("```")[0].splitlines()
    printed = {}
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        program, argv = (
            (scripts.eval, words[3:])
            if words[1:3] == ["-m", "scripts.eval"]
            else ({"sample.py": sample}[words[1]], words[2:])
        )
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the\n\n"), encoding="utf-8")
        )
        capsys.readouterr()
        assert words[0] == "python" and program.main(argv) == 0
        printed[line.rpartition(" --")[2]] = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines) == 5
    samples = [json.loads(line) for line in printed["json > samples.jsonl"]]
    assert [one["prompt"] for one in samples] == ["the cat", "Anna"]
    assert printed["steps 100"][0].startswith("the")
    assert sum(line.startswith("Once") for line in printed["num-samples 3"]) == 3
    tokens = [json.loads(line) for line in printed["tokens > tokens.jsonl"]]
    assert len(tokens) == tokens[-1]["tokens"] + 1 and "logprob" in tokens[0]
    assert (tmp_path / "heat.png").stat().st_size > 1000


def test_the_modern_family_can_leave() -> None:
    """As configs/modern.yaml says: after another file, whose model it changes."""
    files = ["--config", "configs/text.yaml", "--config", "configs/modern.yaml"]
    config, _, _ = train.parse([*files, "--data.files", "mytext.txt"])
    assert kind_of(config.model) == "nanochat"
