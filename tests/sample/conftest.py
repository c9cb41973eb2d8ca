"""What the tests of sample.py share: a run, and what the program prints for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import sample


@pytest.fixture
def run(text_run) -> Path:
    return text_run


@pytest.fixture
def text(run, capsys):
    """text("--seed", "2", ...): the stdout of sample.py."""

    def get(*argv: str, run: Path = run) -> str:
        capsys.readouterr()
        assert sample.main(["--run", str(run), *argv]) == 0
        return capsys.readouterr().out

    return get
