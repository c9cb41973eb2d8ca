"""Fixtures of the scripts' tests: a tiny run on stories that is trained once and never changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

import train
from scripts.sweep.pools import LocalPool
from tests.conftest import ROOT
from tests.helpers.runs import TINY, Child, flags, forkserver, make_corpus

STORIES = TINY | {
    "model.vocab_size": 400,
    "model.block_size": 640,  # tokens; the longest story has 900 bytes
    "data.doc_sep": "",
    "data.windows": "documents",
    "data.story_bytes": 30_000,
    "data.val_story_bytes": 4_000,
    "optim.lr": 0.01,
    "train.max_steps": 4,
    "train.eval_every_steps": 2,
    "train.sample_tokens": 0,
}


@pytest.fixture(scope="session")
def story_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the settings of the tiny run. All tests share the prepared data."""
    return STORIES | {"data.cache_dir": tmp_path_factory.mktemp("stories") / "cache"}


@pytest.fixture(scope="session")
def story_run(story_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "stories"
    assert train.main(flags(folder, story_settings)) == 0
    return folder


@pytest.fixture
def forked_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The points of sweeps are trained in forks of a process that has imported train.py already.

    They have neither a watchdog nor a plot.
    """
    # Starting a process reads the exit statuses of all earlier ones that have ended. If another
    # thread reads one of them at the same time, it may get 255 instead.
    lock = threading.Lock()
    forkserver()  # skips the test if there is none

    def run(pool: LocalPool, command: list[str], log: Path) -> int | None:
        argv = command[command.index(str(ROOT / "train.py")) + 1 :]
        with lock:
            child = Child([word for word in argv if word != "--"], log)
        connection.wait([child.process.sentinel], 60)
        with lock:
            return child.process.exitcode

    monkeypatch.setattr(LocalPool, "_run", run)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[dict[str, Any], str]]:
    """Return printed(main, *argv) -> (the JSON object on the last line of stdout, stderr)."""

    def run(main: Callable[[list[str]], int], *argv: str | Path) -> tuple[dict[str, Any], str]:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 0
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]), err

    return run


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Return the path of a base config for tiny runs on text."""
    folder = tmp_path_factory.mktemp("base")
    lines = [f"{name}: {value}" for name, value in make_corpus(folder).items()]
    path = folder / "base.yaml"
    sections: dict[str, list[str]] = {}
    for line in lines:
        section, _, rest = line.partition(".")
        sections.setdefault(section, []).append(f"  {rest}\n")
    text = "".join(f"{name}:\n{''.join(rest)}" for name, rest in sections.items())
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def sweep_file(base, tmp_path):
    """Return sweep_file("grid: ...") -> the arguments of a sweep that writes to tmp_path/out."""

    def make(text: str) -> list[str]:
        path = tmp_path / "sweep.yaml"
        path.write_text(f"config: {base}\nout: {tmp_path / 'out'}\n{text}\n", encoding="utf-8")
        return ["--config", str(path)]

    return make
