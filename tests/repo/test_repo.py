"""The Makefile, the configs and the tracked files are correct."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scripts.sweep.__main__
import train
from tests.conftest import ROOT, run_program
from tests.helpers.repo import MAKEFILE, TARGETS, tracked_files

MAX_FILE_BYTES = 250_000
# A python that runs scripts/constraints.py and records other calls.
RECORDING = (
    f'case "$*" in scripts/constraints.py*) exec {sys.executable} "$@";; esac\n'
    'echo "$@" >> calls'
)
OF_TORCH = {"triton", "sympy", "setuptools"}  # packages whose versions torch chooses
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*args: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return run_program(["make", *args], cwd=cwd, env=env)


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of a target on stderr, without make's own last line."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


def fake_python(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Return a copy of the files that the Makefile needs, with a python that records its calls."""
    for name in ("Makefile", "requirements.txt", "requirements-test.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("configs", "scripts"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "scripts" / "constraints.py", tmp_path / "scripts")
    (tmp_path / "configs" / "tiny.yaml").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    tool = fake_python(tmp_path / ".venv" / "bin", 'echo "$@" >> calls\ntest ! -f fail')
    os.rename(tool, tmp_path / ".venv" / "bin" / "python")
    return tmp_path


def calls(folder: Path) -> list[str]:
    """Return the calls of the fake python since the last call of this function."""
    path = folder / "calls"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if "pip --version" not in line]


@needs_make
def test_bare_make_lists_every_target():
    done = make()
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == make("help").stdout
    listed = set(re.findall(r"^  ([a-z-]+)  +\S", done.stdout, re.MULTILINE))
    phony = set(re.search(r"\.PHONY:((?:.*\\\n)*.*)", MAKEFILE).group(1).replace("\\", "").split())
    assert listed == TARGETS == {name for name in phony if not name.startswith("check-")}


@needs_make
def test_make_installs_once_and_again_after_a_change(checkout):
    python = f"PYTHON={sys.executable}"
    assert make("install", python, cwd=checkout).returncode == 0
    assert [line.split(" -c ")[1] for line in calls(checkout)] == [
        "constraints.txt -r requirements.txt"
    ]
    assert make("-q", "install", python, cwd=checkout).returncode == 0
    assert "Nothing to be done" in make("install", python, cwd=checkout).stdout
    assert calls(checkout) == []
    later = (checkout / ".venv" / ".stamp").stat().st_mtime + 10
    os.utime(checkout / "constraints.txt", (later, later))
    assert make("-q", "install", python, cwd=checkout).returncode == 1


@needs_make
def test_a_failed_install_leaves_no_stamp(checkout):
    (checkout / "fail").touch()
    # The fake pip fails, so make creates a new environment, with a python that can't do it.
    broken = fake_python(
        checkout, 'case "$*" in *version_info*) echo 3.11;; *"import venv"*) ;; *) exit 1;; esac'
    )
    done = make("install", f"PYTHON={broken}", cwd=checkout)
    assert done.returncode == 2
    assert error_lines(done) == [
        "error: cannot make an environment in .venv: remove that folder and try again"
    ]
    assert not (checkout / ".venv" / ".stamp").exists()
    tool = checkout / ".venv" / "bin" / "python"
    tool.write_text('#!/bin/sh\ntest "$4" != install && test "$3" != install\n', encoding="utf-8")
    assert make("install", f"PYTHON={sys.executable}", cwd=checkout).returncode == 2
    assert not (checkout / ".venv" / ".stamp").exists()


@needs_make
def test_several_targets_in_one_call(checkout):
    assert make("-j2", "lint", "test", f"PYTHON={sys.executable}", cwd=checkout).returncode == 0
    words = [line.split()[1] for line in calls(checkout)]
    # Each list is installed once, in order.
    assert words == ["pip", "pip", "ruff", "black", "mypy", "pytest"]


@needs_make
def test_train_starts_then_resumes_then_shows_a_sample(checkout):
    python = f"PYTHON={sys.executable}"
    make("install", python, cwd=checkout)
    calls(checkout)
    done = make("train", python, "ARGS=--train.max_steps 5", cwd=checkout)
    assert "runs/tiny/loss.png" in done.stdout
    first, sample = calls(checkout)
    assert first == "train.py --config configs/tiny.yaml --run_dir runs/tiny --train.max_steps 5"
    assert sample == "sample.py --run runs/tiny --seed 1"
    (checkout / "runs" / "tiny").mkdir(parents=True)
    (checkout / "runs" / "tiny" / "run.json").touch()
    make("train", python, cwd=checkout)
    assert calls(checkout)[0] == "train.py --config configs/tiny.yaml --run_dir runs/tiny --resume"
    (checkout / "fail").touch()
    assert make("train", python, cwd=checkout).returncode == 2
    assert len(calls(checkout)) == 1  # no sample of a run that failed


@needs_make
def test_extras_are_installed_when_asked_for(checkout):
    python, extras = f"PYTHON={sys.executable}", "EXTRAS=safetensors transformers"
    for lists in (1, 0):  # also where all the rest is there already
        assert make("install", python, extras, cwd=checkout).returncode == 0
        *rest, last = calls(checkout)
        assert len(rest) == lists
        assert last.endswith(" -c constraints.txt safetensors transformers")
    assert make("install", "VENV=", python, extras, cwd=checkout).returncode == 0
    assert calls(checkout) == []


def versions_of(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", path.read_text(encoding="utf-8"), re.M))


@needs_make
def test_another_torch_is_installed_and_kept(checkout):
    """A choice of TORCH holds for all later calls, until another one."""
    tool = fake_python(checkout / ".venv" / "bin", RECORDING)
    os.rename(tool, checkout / ".venv" / "bin" / "python")
    python = f"PYTHON={sys.executable}"
    assert make("install", python, cwd=checkout).returncode == 0  # the tested one
    chosen = checkout / ".venv" / "constraints.txt"
    assert not chosen.exists() and len(calls(checkout)) == 1
    for version in ("2.9.1", "2.8.0"):
        assert make("install", python, f"TORCH={version}", cwd=checkout).returncode == 0
        tested, pins = versions_of(checkout / "constraints.txt"), versions_of(chosen)
        assert pins["torch"] == version and pins.items() - tested.items() == {("torch", version)}
        assert {name for name in tested if name.startswith("nvidia") or name in OF_TORCH}
        assert not {name for name in pins if name.startswith("nvidia") or name in OF_TORCH}
        *_, line = calls(checkout)
        assert line.endswith("-c .venv/constraints.txt -r requirements.txt")
    for words in (["install"], ["install", "TORCH=2.8.0"]):
        assert "Nothing to be done" in make(*words, python, cwd=checkout).stdout
    assert make("lint", python, cwd=checkout).returncode == 0
    assert calls(checkout)[0].endswith("-c .venv/constraints.txt -r requirements-test.txt")


@needs_make
@pytest.mark.parametrize(
    ("torch", "message"),
    [
        ("2.5.1", "torch 2.5.1 is too old; use 2.6 or newer"),
        ("new", "'new' is not a version; give one such as 2.9.1, or keep"),
        ("keep", " has no torch; name a Python (PYTHON=) or environment (VENV=) that has one"),
    ],
)
def test_a_wrong_torch_is_refused(torch, message, checkout):
    python = fake_python(checkout, f'exec {sys.executable} -S "$@"')  # without packages
    done = make("install", "VENV=new-venv", f"PYTHON={python}", f"TORCH={torch}", cwd=checkout)
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert line.startswith(f"error: TORCH={torch}: ") and message in line
    assert not (checkout / "new-venv").exists()


@needs_make
def test_the_torch_that_is_there_is_kept(checkout):
    """A new environment shares the packages of PYTHON; pip may not replace its torch."""
    installed = checkout / "site" / "torch-2.7.1+cu126.dist-info" / "METADATA"
    installed.parent.mkdir(parents=True)
    installed.write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.7.1+cu126\n", encoding="utf-8"
    )
    python = fake_python(
        checkout,
        'echo "$@" >> calls\n'
        f'case "$*" in "-m venv"*) mkdir -p new/bin; cp "$0" new/bin/python; exit;; esac\n'
        f'PYTHONPATH={checkout / "site"} exec {sys.executable} -S "$@"',
    )
    done = make("install", "VENV=new", f"PYTHON={python}", "TORCH=keep", cwd=checkout)
    assert any("-m venv --system-site-packages new" in line for line in calls(checkout)), done
    assert versions_of(checkout / "new" / "constraints.txt")["torch"] == "2.7.1+cu126"


@needs_make
def test_export_has_a_default_folder_for_each_format(checkout):
    python = f"PYTHON={sys.executable}"
    make("install", python, cwd=checkout)
    calls(checkout)
    assert make("export", python, "RUN=runs/mine", cwd=checkout).returncode == 0
    assert make("export", python, "RUN=runs/mine", "TO=gguf", cwd=checkout).returncode == 0
    assert make("export", python, "OUT=there", "ARGS=--license mit", cwd=checkout).returncode == 0
    assert calls(checkout) == [
        "-m scripts.export --run runs/mine --to hf --out exported/mine",
        "-m scripts.export --run runs/mine --to gguf --out exported/mine-gguf",
        "-m scripts.export --run runs/text --to hf --out there --license mit",
    ]


@needs_make
def test_without_a_venv_nothing_is_installed(checkout):
    shutil.rmtree(checkout / ".venv")
    python = fake_python(
        checkout, 'case "$*" in *version_info*) echo 3.10;; *) echo "$@" >> calls;; esac'
    )
    assert make("VENV=", f"PYTHON={python}", "sample", cwd=checkout).returncode == 0
    assert calls(checkout) == ["sample.py --run runs/tiny"]
    assert not (checkout / ".venv").exists()


@needs_make
@pytest.mark.parametrize("venv", ["VENV=new-venv", "VENV="])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, 'error: cannot run "/nonexistent/python": install Python 3.10 or newer'),
        ("exit 127", "error: cannot run .*: install Python 3.10 or newer"),
        ("echo 3.8", "is Python 3.8; 3.10 or newer is needed"),
        ("echo 3.9", "is Python 3.9; 3.10 or newer is needed"),
        ("echo 2.7", "is Python 2.7; 3.10 or newer is needed"),
    ],
)
def test_an_unsuitable_python_is_refused(body, message, venv, checkout):
    python = fake_python(checkout, body) if body else "/nonexistent/python"
    done = make("install", venv, f"PYTHON={python}", cwd=checkout)
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert re.search(message, line)
    assert not (checkout / "new-venv").exists()


@needs_make
def test_without_venv_the_error_names_the_package(checkout):
    python = fake_python(
        checkout, 'case "$*" in *version_info*) echo 3.12;; *) echo no >&2; exit 1;; esac'
    )
    done = make("install", "VENV=new-venv", f"PYTHON={python}", cwd=checkout)
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert "apt install python3-venv" in line
    assert not (checkout / "new-venv").exists()


@needs_make
@pytest.mark.parametrize(
    ("target", "name"), [("train", "CONFIG"), ("bench", "CONFIG"), ("sweep", "SWEEP")]
)
def test_a_missing_config_is_refused(target, name, checkout):
    done = make(target, f"{name}=configs/none.yaml", cwd=checkout)
    assert done.returncode == 2
    assert error_lines(done) == [
        f"error: {name}=configs/none.yaml: no such file; there are: configs/tiny.yaml"
    ]
    assert calls(checkout) == []  # before anything is installed


@needs_make
def test_clean_keeps_runs_and_the_environment(checkout):
    for name in ("runs/x/last.pt", "artifacts/train.npy", "tok/__pycache__/a.pyc", ".coverage.1"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert make("clean", cwd=checkout).returncode == 0
    assert (checkout / "runs" / "x" / "last.pt").exists()
    assert (checkout / ".venv" / "bin" / "python").exists()
    removed = ("artifacts", "tok/__pycache__", ".coverage.1")
    assert [name for name in removed if (checkout / name).exists()] == []


def test_files_are_small_and_contain_no_machine_paths():
    homes = re.compile(rb"/(?:root|home|Users|work|opt)/[A-Za-z0-9_.]+|file://|[A-Z]:\\Users")
    for path in tracked_files():
        raw = path.read_bytes()
        assert len(raw) < MAX_FILE_BYTES, path
        if b"\0" in raw or path == Path(__file__).resolve():
            continue
        assert not homes.search(raw), f"{path}: {homes.search(raw)}"
        assert (
            raw == b"" or raw.endswith(b"\n") or path.suffix == ".json"
        ), f"{path}: no last newline"


def test_git_tracks_the_packages_and_ignores_generated_files():
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("not a git checkout")

    def ignored(name: str) -> bool:
        return run_program(["git", "check-ignore", "-q", "--no-index", name]).returncode == 0

    tracked = (
        "data/prepare.py",
        "data/tiny.txt",
        "tok/bpe.json",
        "docs/loss.png",
        "tests/data/test_x.py",
    )
    generated = (
        "runs/tiny/last.pt",
        "runs/tiny/loss.png",
        "artifacts/x/train.npy",
        ".venv",  # may be a link: git refuses paths below one
    )
    assert [name for name in tracked if ignored(name)] == []
    assert [name for name in generated if not ignored(name)] == []


def test_the_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n") and "the llm-tiny contributors" in text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_config_loads(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)  # the paths in sweeps are relative to it
    if "sweep" in path.stem:
        assert scripts.sweep.__main__.main(["--config", str(path), "--dry-run"]) == 0
    else:
        assert train.main(["--config", str(path), "--print_config"]) == 0
    assert capsys.readouterr().err == ""
