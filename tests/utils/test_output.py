"""Progress lines on stderr where there is no progress bar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from utils.output import log_if_not_tty


@pytest.mark.parametrize("terminal", [False, True])
def test_log_if_not_tty_prints_nothing_on_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    log_if_not_tty("window 1/5")
    assert capsys.readouterr() == ("", "" if terminal else "window 1/5\n")


def test_the_lock_of_tqdm_is_made_before_the_first_message(root: Path) -> None:
    program = "import tqdm, utils.output; print(hasattr(tqdm.tqdm, '_lock'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", cwd=root, check=True
    )
    assert done.stdout == "True\n"
