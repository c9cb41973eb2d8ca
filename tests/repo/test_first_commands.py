"""What a new user types first, with its usual mistakes: the right run, or the right suggestion."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sample
import scripts.eval.__main__
import scripts.plot
import scripts.sweep.__main__
import train
from tests.conftest import ROOT, run_program
from tests.helpers.commands import help_examples, indented_commands, programs_of, shell_commands
from tok.cli import EXAMPLES as TOKENIZER_EXAMPLES
from tok.encoding.progress import ProgressLine
from utils.errors import UserError

Main = Callable[[list[str]], object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: configs, a run runs/mine and a text."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("runs/mine/run.json", "runs/mine/best.pt", "runs/mine/metrics.csv", "my.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_arguments_the_documented_config_is_used(folder: Path, capsys) -> None:
    config, _, _ = train.parse([])
    assert config == train.parse(["--config", "configs/tiny.yaml"])[0]
    assert config.run_dir == "runs/tiny"
    assert capsys.readouterr().err.count("--config configs/tiny.yaml is used") == 1
    config, _, _ = train.parse(["--run_dir", "elsewhere"])
    assert (config.run_dir, config.model.vocab_size) == ("elsewhere", 2048)
    machine = ["--train.max_minutes", "2", "--train.num_threads", "1", "--train.device", "cpu"]
    config, _, _ = train.parse(machine)
    assert (config.model.vocab_size, config.train.max_minutes, config.run_dir) == (
        2048,
        2,
        "runs/tiny",
    )
    assert train.parse(["--train.max_steps", "2"])[0].model == train.Config().model
    assert train.parse(["--print_config"])[0].model == train.Config().model
    capsys.readouterr()
    config, _, _ = train.parse(["--data.files", "my.txt"])
    assert config.model == train.Config().model and config.run_dir == "runs/default"
    err = capsys.readouterr().err
    assert "configs/tiny.yaml for stories" in err and "configs/text.yaml for your own" in err
    train.parse(["--data.files", "my.txt", "--model.n_layer", "2"])
    train.parse(["--config", "configs/tiny.yaml"])
    assert capsys.readouterr().err == ""


def test_resume_without_arguments_finds_the_run(folder: Path) -> None:
    assert train.parse(["--resume"])[0].run_dir == "runs/tiny"
    assert train.parse(["--resume"])[1] == {}, "the run keeps its own settings"
    for name in ("default", "tiny"):
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "run.json").touch()
        if name == "default":
            assert train.parse(["--resume"])[0].run_dir == "runs/default"
    with pytest.raises(UserError, match="two runs, runs/tiny and runs/default; name one with"):
        train.parse(["--resume"])


MISTAKES = [
    (train.main, "--config config/text.yaml", "did you mean configs/text.yaml?"),
    (train.main, "--config text", "did you mean configs/text.yaml?"),
    (train.main, "--config tiny.yaml", "did you mean configs/tiny.yaml?"),
    (train.main, "configs/tiny.yaml", "did you mean --config configs/tiny.yaml?"),
    (train.main, "my.txt", "did you mean --data.files my.txt?"),
    (train.main, "runs/mine", "did you mean --run_dir runs/mine?"),
    (train.main, "--resume --run_dir runs/mne", "did you mean runs/mine?"),
    (train.main, "--config configs/text.yaml", "data.files is not set; name your text"),
    (train.main, "--config configs/text.yaml --data.files mi.txt", "did you mean my.txt?"),
    (train.main, "--config configs/tiny.yaml --config configs/finetune.yaml", "data.files is not"),
    (sample.main, "runs/mine", "did you mean --run runs/mine?"),
    (sample.main, "runs/mine/best.pt", "did you mean --run runs/mine?"),
    (sample.main, "Once upon a time", "did you mean --prompt 'Once upon a time'?"),
    (sample.main, "runs/x", "did you mean --run runs/x?"),
    (sample.main, "runs/x/", "did you mean --run runs/x/?"),
    (sample.main, "runs/v1.5/best.pt", "did you mean --run runs/v1.5?"),
    (sample.main, "texts/x.txt", "did you mean --prompt-file texts/x.txt?"),
    (sample.main, "Once", "did you mean --prompt Once?"),
    (sample.main, "He/she was", "did you mean --prompt 'He/she was'?"),
    (sample.main, "--temprature 1", "did you mean --temperature?"),
    (sample.main, "--max_new_tokens 9", "did you mean --steps?"),
    (sample.main, "--max-new-tokens=9", "did you mean --steps?"),
    (sample.main, "--max_tokens 9", "did you mean --steps?"),
    (sample.main, "--max_length 9", "did you mean --steps?"),
    (sample.main, "--num_return_sequences 2", "did you mean --num-samples?"),
    (sample.main, "--n_samples 2", "did you mean --num-samples?"),
    (sample.main, "--start Once", "did you mean --prompt?"),
    (sample.main, "--run runs/mine/best.pt", "name runs/mine, with --checkpoint best"),
    (sample.main, "--run runs/mine/metrics.csv", "not a run folder; name runs/mine"),
    (sample.main, "--run mine", "did you mean runs/mine?"),
    (scripts.eval.__main__.main, "runs/mine", "did you mean --run runs/mine?"),
    (scripts.eval.__main__.main, "--temprature 1", "did you mean --temperature?"),
    (scripts.eval.__main__.main, "runs/x", "did you mean --run runs/x?"),
    (train.main, "runs/x", "did you mean --run_dir runs/x?"),
    (train.main, "texts/x.txt", "did you mean --data.files texts/x.txt?"),
    (scripts.eval.__main__.main, "my.txt", "did you mean --text my.txt?"),
    (scripts.plot.main, "runs/mine", "did you mean --run runs/mine?"),
    (scripts.sweep.__main__.main, "--base configs/tiny.yaml --out x --grid lrr=1,2", "optim.lr?"),
    (scripts.sweep.__main__.main, "--base configs/tny.yaml --out x --grid lr=1,2", "tiny.yaml?"),
]


@pytest.mark.parametrize(("main", "words", "suggestion"), MISTAKES)
def test_a_mistake_gets_the_right_suggestion(
    main: Main, words: str, suggestion: str, folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        main(words.split())
    assert suggestion in str(error.value)
    assert sorted(folder.rglob("*")) == before


def test_a_missing_run_is_not_confused_with_a_config(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        train.main(["--resume"])
    assert "runs/tiny: no run to resume" in str(error.value)
    assert "configs" not in str(error.value)


def outputs(line: str) -> list[str]:
    """The files and folders that a command of the docs writes."""
    found = re.findall(r"(?<!2)> (\S+)", line)
    for words in programs_of(line):
        for flag, value in zip(words, words[1:]):
            if flag in ("--out", "--html", "--plot", "--run_dir", "--json") and value[0] != "-":
                found.append(value)
    return found


@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="no git")
def test_git_ignores_what_the_commands_of_the_docs_write() -> None:
    readme = shell_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    docs = [line for path in ROOT.glob("docs/*.md") for line in indented_commands(path)]
    lines = [*readme, *docs, *help_examples(), *sum(TOKENIZER_EXAMPLES.values(), [])]
    written = {name for line in lines for name in outputs(line)} | {"gpu-check.json"}
    assert {"samples.jsonl", "page.html", "tok.json", "exported/shakespeare"} <= written
    check = ["git", "check-ignore", "--no-index", "--stdin"]
    done = run_program(check, stdin="\n".join(sorted(written)).encode(), cwd=ROOT)
    assert written - set(done.stdout.split("\n")) == set()
    tracked = run_program(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT)
    assert tracked.stdout == "", "no tracked file is ignored"


def test_a_progress_line_leaves_no_estimate_behind(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    line = ProgressLine("bytes", 3_000_000_000, enabled=True)
    line._shown -= 1
    line(1_000_000)
    shown = capsys.readouterr().err
    assert shown == "\rbytes 1,000,000/3,0"
    line.close()
    assert capsys.readouterr().err == "\rbytes 1,000,000/3,0\n"
    line(3_000_000_000)
    assert capsys.readouterr().err == "\rbytes 3,000,000,000\n"
    line.close()
    monkeypatch.setenv("COLUMNS", "30")  # a shorter line erases a longer one with blanks alone
    line.name = "x"
    line(3_000_000_000)
    assert capsys.readouterr().err == "\r" + "x 3,000,000,000/3,000,000,000"[:29] + "\n"
    line.total = 5
    line(5)
    assert capsys.readouterr().err == f"\r{'x 5/5, 0 s':29}\n"
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("word", "flag"),
    [("MINUTES=1.5", ' --train.max_minutes "1.5"'), ("MINUTES=", "")],
)
def test_make_train_takes_minutes(word: str, flag: str) -> None:
    done = run_program(["make", "-n", "train", "RUN=runs/new", f"PYTHON={sys.executable}", word])
    (line,) = [line for line in done.stdout.splitlines() if "train.py" in line]
    assert line.rstrip().endswith(f"|| echo --resume){flag}")
