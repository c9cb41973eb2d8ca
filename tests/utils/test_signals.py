"""Ctrl-C and SIGTERM: the first signal is recorded, the second ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import uncovered_environment
from utils.signals import SignalCatcher

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
if hasattr(signal, "SIGHUP"):
    SIGNALS.append((signal.SIGHUP, 129))


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_the_first_signal_is_recorded(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with SignalCatcher() as catcher:
        assert catcher.number is None and catcher.exit_status == 0
        signal.raise_signal(number)
        assert catcher.number == number and catcher.exit_status == status
    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="a free signal, on POSIX only")
def test_ctrl_break_of_windows_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with SignalCatcher() as catcher:
        signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert catcher.number == signal.SIGUSR1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo-terminals, on POSIX only")
def test_ctrl_c_is_acknowledged_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = os.openpty()
    with open(terminal, "w", encoding="utf-8") as stream, SignalCatcher():
        monkeypatch.setattr(sys, "stderr", stream)
        signal.raise_signal(signal.SIGINT)
        assert b"stopping; Ctrl-C again ends it at once" in os.read(main, 200)
    os.close(main)


CTRL_C_IN_IMPORT = """
import os, signal, sys
os.kill(os.getpid(), signal.SIGINT)
sys.exit("still going")
"""


@pytest.mark.parametrize(
    "program",
    ["sample.py", "train.py", "scripts/plot.py", "scripts/eval"]
    + ["-m tok.bpe", "-m data.prepare", "-m data.stories", "-m data.download"]
    + [f"-m scripts.{name}" for name in ("bench", "doctor", "eval", "export", "plot", "sweep")],
)
def test_ctrl_c_during_the_imports_ends_the_program_silently(
    program: str, root: Path, tmp_path: Path
) -> None:
    # The first of these imports raises the signal; bench imports none of the libraries.
    for name in ("torch", "matplotlib", "tqdm", "numpy", "yaml", "argparse"):
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


HANGUP = """
import signal, sys
from utils.signals import SignalCatcher
with SignalCatcher() as catcher:
    print("ready", flush=True)
    sys.stdin.readline()
    print("to a closed terminal", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write(str(catcher.number))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="oracle: no SIGHUP on Windows")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_is_recorded_unless_ignored(
    ignored: bool, root: Path, tmp_path: Path
) -> None:
    import pty

    master, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", HANGUP, str(tmp_path / "number")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if ignored else terminal,
        cwd=root,
        env=uncovered_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) if ignored else None,
    )
    assert child.stdin and child.stdout and child.stdout.readline() == b"ready\n"
    os.close(terminal)
    os.close(master)
    for _ in range(2):  # the system and the shell may both send it
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
    child.communicate(b"\n", timeout=60)
    assert child.returncode == 0
    assert (tmp_path / "number").read_text(encoding="utf-8") == str(
        None if ignored else int(signal.SIGHUP)
    )
