"""The prompt loop: prompts at a terminal, Ctrl-C, and settings that apply to every prompt."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sample
from tests.conftest import ROOT, uncovered_environment
from utils.errors import UserError

PROMPT = "> "


class Terminal:
    """sample.py with a pseudo-terminal for stdin, stdout and stderr."""

    def __init__(self, run: Path, *argv: str) -> None:
        self.fd, child_fd = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, str(ROOT / "sample.py"), "--run", str(run), "--interactive", *argv],
            stdin=child_fd,
            stdout=child_fd,
            stderr=child_fd,
            env=uncovered_environment(TERM="dumb", OMP_NUM_THREADS="1"),
            start_new_session=True,
        )
        os.close(child_fd)

    def wait_for(self, text: str, timeout_s: float = 60, must: bool = True) -> str:
        """Return the output up to `text`; after a timeout fail, unless `must` is False."""
        seen, end = b"", time.monotonic() + timeout_s
        while text.encode() not in seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready or not must, f"no {text!r} within {timeout_s} s: {seen!r}"
            if not ready:
                break
            seen += os.read(self.fd, 1)  # nothing after `text`
        return seen.decode("utf-8", "replace")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt(self) -> str:
        """Send Ctrl-C until the next prompt appears; return the output.

        Once may not suffice: readline ignores a signal that arrives during its set-up.
        """
        seen = ""
        while PROMPT not in seen:
            self.program.send_signal(signal.SIGINT)
            seen += self.wait_for(PROMPT, timeout_s=1, must=False)
        return seen

    def rest(self) -> str:
        """Return the output until the program ends."""
        seen = b""
        try:
            while part := os.read(self.fd, 4096):
                seen += part
        except OSError:  # the other side is closed
            pass
        assert self.program.wait(60) == 0
        return seen.decode("utf-8", "replace")

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self.fd)


@pytest.fixture
def terminal(text_run) -> Iterator[Terminal]:
    opened = Terminal(text_run, "--steps", "100000", "--stop-token", "", "--top-k", "20")
    yield opened
    opened.close()


def test_ctrl_c_stops_the_sample_and_not_the_program(terminal):
    assert "Ctrl-D quits" in terminal.wait_for(PROMPT)
    terminal.type("the cat\n")
    terminal.wait_for("the cat\r\nthe cat")  # what was typed, then the text
    os.read(terminal.fd, 1)  # the text continues
    assert "tokens/s" in terminal.interrupt()
    terminal.type("half a line")
    terminal.wait_for("line")
    terminal.interrupt()
    pytest.importorskip("readline")
    terminal.type("\x1b[A\n")  # arrow up: the previous line
    terminal.wait_for("the cat\r\nthe cat")
    terminal.interrupt()
    terminal.type("\x04")
    assert "Traceback" not in terminal.rest()


@pytest.fixture
def run_repl(text_run, monkeypatch, capsys):
    """Return a function: run_repl("one\\ntwo\\n", "--steps", "5") returns stdout and stderr."""

    def run(lines: str, *argv: str) -> tuple[str, str]:
        raw = io.BytesIO(lines.encode("utf-8", "surrogateescape"))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="ascii"))
        capsys.readouterr()
        assert sample.main(["--run", str(text_run), "--interactive", *argv]) == 0
        out, err = capsys.readouterr()
        return out, err

    return run


def test_each_line_is_a_prompt_with_the_same_settings(text_run, run_repl, capsys):
    argv = ["--steps", "12", "--temp", "0.7", "--seed", "5", "--num-samples", "2"]
    out, err = run_repl("the cat\nGrüße 🙂\n", *argv)
    assert err.count("tokens/s") == 2 and "Traceback" not in err
    capsys.readouterr()
    sample.main(["--run", str(text_run), "--prompt", "the cat", *argv])
    first = capsys.readouterr().out
    assert out.startswith(first) and out[len(first) :].count("Grüße 🙂") == 2


def test_a_repeated_line_gets_another_sample_and_a_repeated_session_the_same(run_repl):
    once, _ = run_repl("a\n", "--steps", "20")
    twice, _ = run_repl("a\na\n", "--steps", "20")
    assert twice.startswith(once) and twice[len(once) :] not in ("", once)
    assert run_repl("a\na\n", "--steps", "20")[0] == twice


@pytest.mark.parametrize("lines", ["", "\n", "  \nthe\n", "the\n\nthe\n"])
def test_an_empty_line_or_the_end_of_stdin_quits(run_repl, lines):
    out, _ = run_repl(lines, "--steps", "3")
    assert out.count("the") == lines.startswith("the")


def test_an_invalid_line_prints_one_error(run_repl):
    out, err = run_repl("a\udcff\nthe\n", "--steps", "3")
    assert out.startswith("the") and err.count("error: the prompt: lone surrogate") == 1


def test_the_prompt_loop_can_print_json(run_repl):
    import json

    out, _ = run_repl("one\ntwo\n", "--steps", "3", "--json")
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["one", "two"]


def test_a_closed_stdin_is_a_user_error(text_run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    for argv in (["--interactive"], ["--prompt-file", "-"]):
        with pytest.raises(UserError, match="standard input: closed"):
            sample.main(["--run", str(text_run), *argv])


@pytest.mark.parametrize("other", [["--prompt", "a"], ["--prompt-file", "x"]])
def test_interactive_with_another_prompt_flag_is_refused(text_run, other):
    with pytest.raises(UserError, match=f"--interactive: .* leave out {other[0]}$"):
        sample.main(["--run", str(text_run), "--interactive", *other])
