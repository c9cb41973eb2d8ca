"""The README is correct: its commands exist and run, and its links lead to files."""

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
import sample
import scripts.eval.__main__
import train
from data.download.known_corpora import Content, KnownCorpus, Source
from scripts.export.hf_config import hf_model_type
from tests.conftest import ROOT, run_program
from tests.data.download.serving import good, serving
from tests.helpers.commands import help_examples, indented_commands, mistakes, shell_commands
from tests.helpers.repo import README
from utils.metrics import read_rows

TEXT = README.read_text(encoding="utf-8")
COMMANDS = shell_commands(TEXT)
DOCS = [command for path in sorted(ROOT.glob("docs/*.md")) for command in indented_commands(path)]
EXAMPLES = help_examples()


def blocks_of(title: str) -> list[str]:
    """The shell blocks of a section of the README."""
    section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def test_the_lines_for_uv_are_those_for_pip() -> None:
    pip, uv, *_ = (block.splitlines() for block in blocks_of("Quick start"))
    assert uv == ["uv venv", pip[1], f"uv {pip[2]}"]
    for name in re.findall(r"-[rc] (\S+)", pip[2]):
        assert (ROOT / name).is_file()
    assert {"`make train`", "`make test`"} <= set(re.findall("`make [^`]+`", TEXT))


def test_the_quick_start_needs_neither_make_nor_git(tmp_path: Path) -> None:
    """In a tree from an archive, in a folder whose name has a blank and a letter beyond ASCII.

    pip and venv are faked, because the packages are installed already; .ci/run runs them. The run
    has two steps, on few stories.
    """
    tree = tmp_path / "my modèles x"
    for name in ("configs", "data", "model", "tok", "utils"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "sample.py", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tree)
    tools = tree / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f"PATH='{tools}'\n", encoding="utf-8")
    for name, body in (
        ("python", f"""case "$*" in "-m venv "*) ;; *) exec '{sys.executable}' "$@";; esac"""),
        ("pip", "for name; do case $name in *.txt) test -f $name || exit 1;; esac; done"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    settings = {"data.story_bytes": 100_000, "data.val_story_bytes": 3000, "model.n_layer": 1}
    settings |= {"train.max_steps": 2, "model.n_embd": 32, "train.num_threads": 1}
    replaced = {name.partition(".")[2]: value for name, value in settings.items()}
    config = (tree / "configs" / "tiny.yaml").read_text(encoding="utf-8")
    for name, value in replaced.items():
        config = re.sub(rf"(?m)^  {name}: .*\n", "", config)
        section = next(key for key in settings if key.endswith(f".{name}")).partition(".")[0]
        config = config.replace(f"{section}:\n", f"{section}:\n  {name}: {value}\n")
    (tree / "configs" / "tiny.yaml").write_text(config, encoding="utf-8")
    script = f"PATH='{tools}'\n" + blocks_of("Quick start")[0]
    bash = shutil.which("bash")
    assert bash is not None
    done = run_program([bash, "-euc", script], cwd=tree, env={"PYTHONPATH": "", "PATH": str(tools)})
    assert done.returncode == 0 and done.stdout, done.stderr
    record = json.loads((tree / "runs" / "tiny" / "run.json").read_text(encoding="utf-8"))
    assert record["starts"][0]["commit"] is None
    assert "make" not in done.stderr and "git" not in done.stderr


@pytest.mark.parametrize("command", sorted({*COMMANDS, *DOCS, *EXAMPLES}))
def test_every_command_of_the_docs_and_help_texts_exists(command: str) -> None:
    assert mistakes(command) == []


def test_every_script_has_examples_in_its_help() -> None:
    assert len(EXAMPLES) >= 20


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("make tarin", "no target tarin"),
        ('make tarin ARGS="--run x"', "no target tarin"),
        ('make train ARGS="--print-config"', ""),
        ('make train ARGS="--rum x"', "train.py: no flag --rum"),
        ('make plot train ARGS="--run x"', "train.py: no flag --run"),
        ("make lint ARGS=--fix", "lint takes no ARGS"),
        ("make train CONFIGS=x", "no variable CONFIGS"),
        ('make install EXTRAS="nosuch numpy"', "EXTRAS: nosuch is not in constraints.txt"),
        ("python train.py --run x", "train.py: no flag --run"),
        ("python -m scripts.plot --run-dir x", "-m scripts.plot: no flag --run-dir"),
        ("python nosuch.py", "no program nosuch.py"),
        ("python -m scripts.nosuch", "no program scripts.nosuch"),
        ("echo --x | python -m scripts.plot --rum", "-m scripts.plot: no flag --rum"),
        ("python -m scripts.plot > --rum && tarin", "unknown program tarin"),
        ("torchrun --nproc-per-nod 2 train.py", "torch.distributed.run: no flag --nproc-per-nod"),
        ("torchrun --nproc_per_node 2 train.py --resum", "train.py: no flag --resum"),
    ],
)
def test_mistakes_in_a_command_are_detected(command: str, mistake: str) -> None:
    known = {"train.py": {"--run-dir", "--resume", "--print-config"}, "scripts.plot": {"--run"}}
    known["torch.distributed.run"] = {"--nproc-per-node"}
    found = mistakes(command, lambda program: known[program[-1]])
    assert len(found) == bool(mistake) and (not found or found[0].endswith(mistake))


def test_the_commands_on_files_run_in_a_fresh_checkout(tmp_path):
    for name in ("tok", "data", "utils"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    with gzip.open(tmp_path / "stories.jsonl.gz", "wb") as file:
        file.write(b'{"story": "The cat sat."}\n' * 12)
    formats = shell_commands((ROOT / "docs" / "formats.md").read_text(encoding="utf-8"))
    lines = [line for line in COMMANDS + formats if re.search("tok.bpe|data.prepare", line)]
    assert len(lines) == 9
    for line in lines:
        done = run_program(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={"PATH": path, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_links_of_the_readme_lead_to_files():
    for target in re.findall(r"\]\(([^)#:\s]+)[)#]", TEXT):
        assert (ROOT / target).exists(), f"README.md links {target}"


def test_the_reading_path_is_short_and_its_line_counts_are_right():
    section = TEXT.split("## Read the code in this order")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| (\d+) \|", section, re.MULTILINE)
    assert 10 <= len(rows) <= 14 and all(name == target for name, target, _ in rows)
    counts = [(ROOT / name).read_text(encoding="utf-8").count("\n") for name, _, _ in rows]
    assert sum(counts) <= 2600
    wrong = [(row, n) for row, n in zip(rows, counts) if abs(int(row[2]) - n) > 10]
    assert wrong == []


def small_text_config(folder: Path) -> None:
    """Write configs/text.yaml for two steps of a smaller model, and 100 kB into mytext.txt."""
    text = (ROOT / "configs" / "text.yaml").read_text(encoding="utf-8")
    for name, more in (
        ("n_layer: 4", "n_embd: 32\n  vocab_size: 300"),
        ("batch_size: 16", "max_steps: 2"),
    ):
        text, n = re.subn(rf"(?m)^  {name}$", f"  {name}\n  {more}", text)
        assert n == 1
    (folder / "configs").mkdir()
    (folder / "configs" / "text.yaml").write_text(text, encoding="utf-8")
    (folder / "mytext.txt").write_bytes((ROOT / "data" / "tiny.txt").read_bytes()[:100_000])


def test_the_commands_for_your_own_text_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 100 kB, with two steps of a smaller model; .ci/run runs them unchanged."""
    small_text_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    section = TEXT.split("## Your own text")[1]
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


def test_the_commands_for_known_corpora_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A local server provides another text; two steps of a smaller model."""
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
    monkeypatch.setattr(data.download.__main__, "SCHEME", "http")
    (block,) = (block for block in blocks_of("Your own text") if "data.download --list" in block)
    lines = [shlex.split(line) for line in block.splitlines()]
    assert [words[1] for words in lines] == ["-m", "-m", "train.py", "sample.py"]
    with serving(good(raw)) as server:
        content = Content("input.txt", len(raw), hashlib.sha256(raw).hexdigest())
        source = Source(content, (server.url,), "this test", tried_by_us=True)
        corpus = KnownCorpus(name, "a text", "MIT", (source,))
        monkeypatch.setattr(data.download.__main__, "CORPORA", (corpus,))
        for words in lines[:2]:
            assert words[2] == "data.download" and data.download.__main__.main(words[3:]) == 0
    assert train.main(lines[2][2:]) == 0
    capsys.readouterr()
    assert sample.main(lines[3][2:]) == 0 and capsys.readouterr().out.startswith("ROMEO:")


def test_the_commands_for_samples_and_scores_run_as_written(
    text_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a tiny run; output that a command redirects into a file is read from stdout."""
    shutil.copytree(text_run, tmp_path / "runs" / "tiny")
    (tmp_path / "prompts.txt").write_text("the cat\nAnna\n", encoding="utf-8")
    (tmp_path / "mytext.txt").write_text("the cat sat.\n\nAnna saw 🙂.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    lines = "".join(blocks_of("Sampling")).splitlines()
    printed = {}
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        program, argv = (
            (scripts.eval.__main__, words[3:])
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
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_modern_family_can_leave() -> None:
    """As configs/modern.yaml says: after another file, whose model it changes."""
    files = ["--config", "configs/text.yaml", "--config", "configs/modern.yaml"]
    config, _, _ = train.parse([*files, "--data.files", "mytext.txt"])
    assert hf_model_type(config.model) == "nanochat"
