"""Fixtures for tests of errors: a run, and a program that must fail with one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import train
from tests.helpers.runs import flags
from utils import errors
from utils.run import plot

Settings = dict[str, object]
Fails = Callable[..., str]

# Warnings and progress that may precede the error.
PROGRESS = re.compile(
    r"^warning: |^read \d+ files?: |^encoding the (train|val) documents$|: training a tokenizer of "
)


@pytest.fixture(scope="module")
def done(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short run that can be resumed; tests copy it."""
    run = tmp_path_factory.mktemp("done") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "plot_losses", lambda *args, **kwargs: None)
        assert train.main(flags(run, settings, train__max_steps=4)) == 0
    return run


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Return fails(main, argv) -> the program's one error line; it may not change tmp_path."""

    def tree() -> dict[str, bytes | None]:
        return {
            str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else None
            for path in tmp_path.rglob("*")
        }

    def run(main: Callable[[list[str]], int], argv: list[str]) -> str:
        before = tree()
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            errors.run_cli(lambda _: main(argv))
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert lines and lines[-1].startswith("error: "), lines
        assert not [line for line in lines if "Traceback" in line]
        assert [line for line in lines if not PROGRESS.search(line)] == lines[-1:]
        assert tree() == before, "no file is left behind"
        return lines[-1]

    return run
