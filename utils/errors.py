"""Users' mistakes: one line on stderr that names what was wrong and the hint, exit status 2."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C


class UserError(Exception):
    """A mistake the user can mend. The message names the file, key or flag, and the hint."""


def one_line(message: object) -> str:
    """Folds any message into a single line.

    >>> one_line("two\\n  lines")
    'two lines'
    """
    return " ".join(str(message).split())


OS_ERROR_HINTS = {
    errno.ENOSPC: "free some space there, or write to another disk",
    errno.EDQUOT: "free some of your quota there, or write to another disk",
}


def describe_os_error(error: OSError) -> str:
    """Names the file and the reason of a failed file operation, and the hint where it is known.

    >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'a.txt: No such file or directory'
    """
    reason = error.strerror or str(error) or type(error).__name__
    line = f"{error.filename}: {reason}" if error.filename is not None else reason
    return f"{line}; {OS_ERROR_HINTS[error.errno]}" if error.errno in OS_ERROR_HINTS else line


def run_cli(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Runs `main(None)` as a program: users' mistakes become one line on stderr and status 2.

    A closed pipe (`| head -1`) ends quietly; Ctrl-C exits with the status shells use for it.
    Anything else is a defect of ours and keeps its traceback. Stdout is UTF-8 in any locale.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`): as if it were /dev/null
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if hasattr(sys.stdout, "reconfigure"):  # a test may have put something simpler there
        sys.stdout.reconfigure(encoding="utf-8")
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    ):  # see utils.signals.exit_silently_on_sigint
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main(None) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except BrokenPipeError:  # the reader is gone: nothing is left to say
        _discard_stdout()
        status = 0
    except OSError as error:
        print(f"error: {one_line(describe_os_error(error))}", file=sys.stderr)
        status = EXIT_USER_ERROR
        _discard_stdout()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _discard_stdout() -> None:
    """Keeps Python from flushing once more, at exit, what stdout could not take (status 120)."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def missing_package(package: str, what: str) -> UserError:
    """The error for a library that is not installed.

    >>> str(missing_package("gguf", "--to gguf"))
    '--to gguf needs a library that is not installed: pip install gguf'
    """
    return UserError(f"{what} needs a library that is not installed: pip install {package}")
