import io
import os
import signal
import subprocess
import sys

import pytest

from utils.errors import UserError, describe_os_error, one_line, run_cli
from utils.signals import before_slow_imports

PROGRAM = """
from utils.errors import UserError, run_cli
def main(argv):
    {body}
run_cli(main)
"""


def test_run_cli_handles_ctrl_c_after_the_imports():
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        before_slow_imports()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert status_of(lambda argv: signal.raise_signal(signal.SIGINT)) == 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does
        before_slow_imports()
        assert status_of(lambda argv: signal.raise_signal(signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def status_of(main) -> int:
    with pytest.raises(SystemExit) as caught:
        run_cli(main)
    return caught.value.code


def raising(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.txt:\n  no such\tfile"), 2, "error: a.txt: no such file\n"),
        (FileNotFoundError(2, "No such file", "/b.txt"), 2, "error: /b.txt: No such file\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "error: No space left on device; free some space there, or write to another disk\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
)
def test_an_error_prints_one_line_and_sets_the_status(error, status, line, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as pytest's is not buffered
    assert status_of(raising(error)) == status
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", line)


class ClosedPipe(io.StringIO):
    """Stdout whose reader has exited, on Windows."""

    write_through = True

    def flush(self) -> None:
        raise OSError(22, "Invalid argument")

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize(("name", "status"), [("nt", 0), ("posix", 2)])
def test_a_closed_pipe_on_windows_is_not_an_error(name, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", name)
        found = status_of(lambda argv: sys.stdout.flush())
    assert found == status
    assert capsys.readouterr().err == ("error: stdout: Invalid argument\n" if status else "")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(raising(ZeroDivisionError("a bug")))


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_the_status_that_main_returns(returned, status):
    assert status_of(lambda argv: returned) == status


def test_stdout_may_be_a_plain_object(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert status_of(lambda argv: print("x")) == 0


def test_os_error_without_a_file():
    assert describe_os_error(OSError("odd")) == "odd"
    assert describe_os_error(OSError()) == "OSError"
    assert one_line(" a\n\n b ") == "a b"


def test_closed_streams_change_only_the_output(root):
    program = PROGRAM.format(body="print('out', flush=True); raise UserError('bad')")
    for closed, expected in ((">&-", b"error: bad\n"), ("2>&-", b""), (">&- 2>&-", b"")):
        command = ["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, program]
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (2, expected)
        assert done.stdout == (b"" if closed.startswith(">") else b"out\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the flush at exit fails, or print itself
def test_stdout_on_a_full_disk_is_a_user_error(unbuffered, root):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-c", PROGRAM.format(body="print('x')")]
    with open("/dev/full", "wb") as full:
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=root, env=env)
    assert (done.returncode, done.stderr) == (
        2,
        b"error: stdout: No space left on device; free some space there, or write to another "
        b"disk\n",
    )


def test_a_closed_pipe_is_quiet(root):
    body = "[print('x' * 1000) for _ in range(10000)]"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=30), errors) == (0, b"")


def test_text_is_utf8_in_an_ascii_locale(run_python):
    code = PROGRAM.format(body=r"print('\u00e9\U0001f600')")
    done = run_python("-c", code, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "\u00e9\U0001f600\n", "")


@pytest.mark.parametrize(
    "value", ["x" * 10**6, repr("a b " * 10**5), "[" + "1, " * 10**6 + "]", '"' + "é " * 500 + '"']
)
def test_a_message_repeats_at_most_200_characters_of_a_value(value: str) -> None:
    message = str(UserError(f"c.yaml:3: optim.lr: expected number, got {value}; fix it"))
    assert message.startswith("c.yaml:3: optim.lr: expected number, got ")
    assert message.endswith("; fix it") and len(message) <= 41 + 200 + 8
    assert one_line(f"c.yaml: {value}").count(value[1]) <= 200
