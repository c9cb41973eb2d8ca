"""What every test may use: the root of the repo, and programs run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# No deadline: a busy machine would fail tests that are right. CI tries the same examples each time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# Started in the background (nohup, `&`) pytest ignores Ctrl-C, as would each program of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds the Makefile."""
    return ROOT


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment less what an outer make or pytest put there."""
    dropped = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTEST_ADDOPTS", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", **changes}


def uncovered_environment(**more: str) -> dict[str, str]:
    """The same for a program that gets a Ctrl-C: coverage may wait for its own lock forever."""
    known = clean_environment(**more).items()
    return {name: value for name, value in known if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="session")
def run_python() -> Run:
    """run_python("-m", "tok.bpe", ..., stdin=b"", cwd=path, env={}): what the program printed."""

    def run(
        *args: str | Path,
        stdin: bytes = b"",
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        return run_program([sys.executable, *map(str, args)], stdin, cwd, env, timeout_s)

    return run


def run_program(
    command: Sequence[str],
    stdin: bytes = b"",
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; output is decoded as UTF-8, newlines as they are."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=clean_environment(**(env or {})),
        timeout=timeout_s,
        check=False,
    )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    )


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on text, hardly trained: its samples are full of odd bytes. No test changes it."""
    import train  # tok/ is tested without torch too
    from tests.helpers.runs import flags, make_corpus

    folder = tmp_path_factory.mktemp("text")
    settings = make_corpus(folder) | {"train.sample_tokens": 0, "train.max_steps": 4}
    assert train.main(flags(folder / "run", settings)) == 0
    return folder / "run"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors: a second thread costs more than it does, very much so on a busy machine."""
    try:
        import torch
    except ImportError:  # tok/ is tested without torch too
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Those of a tiny run on a text that is this file's own; see tests/helpers/runs.py."""
    from tests.helpers.runs import make_corpus  # it imports torch, which tests of tok/ do without

    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def quick() -> Iterator[None]:
    """Runs without a picture and without git; its own patch, as a test may undo monkeypatch's."""
    import train
    from utils.run import environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "plot_losses", lambda *args, **kwargs: None)
        patch.setattr(environment, "git_commit", lambda: None)
        yield
