"""A wrong Python, a too old torch or a missing NumPy ends every program with one line."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

import model
from tests.conftest import run_program

PROGRAMS = ("train", "sample", "tok.bpe", "data.prepare", "data.download", "data.stories")
SCRIPTS = ("eval", "export", "sweep", "bench", "torture", "plot", "doctor", "bench.gpu_check")
ALL = (*PROGRAMS, *(f"scripts.{name}" for name in SCRIPTS))


def error_of(module: str, before: str) -> str:
    """Run a module as a program, after a line of Python; return its one line on stderr."""
    code = f"import runpy, sys; {before}; runpy.run_module({module!r}, run_name='__main__')"
    done = run_program([sys.executable, "-c", code])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("module", ALL)
def test_an_old_python_is_refused(module: str) -> None:
    before = "sys.version_info, sys.version = (3, 9, 1), '3.9.1 (main)'"
    assert error_of(module, before) == "error: this is Python 3.9.1; use 3.10 or newer"


@pytest.mark.parametrize("module", ["train", "tok.bpe", "scripts.plot"])
def test_a_python_without_the_requirements_is_refused(module: str) -> None:
    assert "numpy is not installed" in error_of(module, "sys.modules['numpy'] = None")


@pytest.mark.parametrize("module", ["train", "sample", "scripts.eval", "scripts.doctor"])
def test_an_old_torch_is_refused(module: str) -> None:
    before = "import torch; torch.__version__ = type(torch.__version__)('2.5.1+cu121')"
    assert error_of(module, before) == "error: torch 2.5.1+cu121 is too old; use 2.6 or newer"


@pytest.mark.parametrize("version", ["2.6.0", "2.10.0a0+git1", "2.15.0", "3.0"])
def test_versions_are_compared_by_number(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)(version))
    importlib.reload(model)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("1.13.1"))
    with pytest.raises(SystemExit):
        importlib.reload(model)
    assert capsys.readouterr().err == "error: torch 1.13.1 is too old; use 2.6 or newer\n"
