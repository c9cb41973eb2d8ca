"""Fixtures for all tests: the root of the repository, and programs started as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# No deadline: on a busy machine correct tests would fail. CI repeats the same examples.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# In the background (nohup, `&`) pytest ignores SIGINT, and programs that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_report_header() -> str:
    return f"torch {metadata.version('torch')}, numpy {metadata.version('numpy')}"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: compressed ones hold the time and differ between workers."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds the Makefile."""
    return ROOT


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without the variables that an outer make or pytest has set."""
    dropped = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTEST_ADDOPTS", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", **changes}


def uncovered_environment(**more: str) -> dict[str, str]:
    """The same without coverage, which may deadlock in a program that receives Ctrl-C."""
    variables = clean_environment(**more).items()
    return {name: value for name, value in variables if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="session")
def run_python() -> Run:
    """Return a function: run_python("-m", "tok.bpe", ..., stdin=b"", cwd=path, env={})."""

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
    """Run a program to its end; its output is decoded as UTF-8, with newlines unchanged."""
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
    """A tiny run with 4 steps, whose samples contain invalid UTF-8. Tests must not change it."""
    import train  # not at the top: tests of tok/ also run without torch
    from tests.helpers.runs import flags, make_corpus

    folder = tmp_path_factory.mktemp("text")
    settings = make_corpus(folder) | {"train.sample_tokens": 0, "train.max_steps": 4}
    assert train.main(flags(folder / "run", settings)) == 0
    return folder / "run"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread for torch: for tiny tensors a second one costs more than it gains."""
    try:
        import torch
    except ImportError:  # tests of tok/ also run without torch
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Settings of a tiny run, on one text per test file; see tests/helpers/runs.py."""
    from tests.helpers.runs import make_corpus  # not at the top: it imports torch

    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def quick() -> Iterator[None]:
    """Runs without a plot and without git; a separate patch, as tests may undo monkeypatch's."""
    from utils.run import environment, plot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "plot_losses", lambda *args, **kwargs: None)
        patch.setattr(environment, "git_commit", lambda: None)
        yield
