"""Ctrl-C and SIGTERM: the first signal is recorded, the second ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import uncovered_environment
from utils.signals import SignalCatcher


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_recorded(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with SignalCatcher() as catcher:
        assert catcher.number is None and catcher.exit_status == 0
        signal.raise_signal(number)
        assert catcher.number == number and catcher.exit_status == status
    assert signal.getsignal(number) == before


CTRL_C_IN_IMPORT = """
import os, signal, sys
os.kill(os.getpid(), signal.SIGINT)
sys.exit("still going")
"""


@pytest.mark.parametrize("program", ["sample.py", "train.py", "-m scripts.eval", "-m scripts.plot"])
def test_ctrl_c_during_the_imports_ends_the_program_silently(
    program: str, root: Path, tmp_path: Path
) -> None:
    for name in ("torch", "matplotlib", "tqdm"):  # the first import raises the signal
        (tmp_path / f"{name}.py").write_text(CTRL_C_IN_IMPORT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *program.split(), "--help"],
        capture_output=True,
        cwd=root,
        env=uncovered_environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{root}"),
        check=False,
    )
    # Shells report this status as 130.
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process(
    first: signal.Signals, second: signal.Signals, root: Path
) -> None:
    program = (
        "import signal\nfrom utils.signals import SignalCatcher\nwith SignalCatcher():\n"
        f"    signal.raise_signal({int(first)})\n    print('on', flush=True)\n"
        f"    signal.raise_signal({int(second)})\n    print('still on')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert done.stdout == "on\n" and done.returncode == -second


def test_an_error_restores_the_signal_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError), SignalCatcher():
        raise KeyError
    assert signal.getsignal(signal.SIGINT) == before
