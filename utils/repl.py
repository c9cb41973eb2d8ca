"""A session at a terminal: one prompt line after the other, until an empty one."""

from __future__ import annotations

import sys
from collections.abc import Callable

from utils.errors import UserError, one_line

PROMPT = "> "


def run_repl(answer: Callable[[str], None]) -> None:
    """Reads lines from stdin and calls `answer` with each, up to an empty line or the end.

    Ctrl-C ends the answer, or the line that is being typed, not the session. A mistake in a line
    costs a line on stderr. Where stdout is a file, the mark goes to stderr.

    Raises:
        UserError: stdin is closed.
    """
    if sys.stdin is None:
        raise UserError("standard input: closed; prompts are read from it")
    if hasattr(sys.stdin, "reconfigure"):  # as stdout: UTF-8 in any locale
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    ask, interrupted = line_reader(), False
    while True:
        try:
            if interrupted:  # told here, where one more Ctrl-C is caught too
                interrupted = False
                print(file=sys.stderr)
            line = ask()
            if not line.strip():
                return
            answer(line)
        except EOFError:
            if sys.stdin.isatty():
                print(file=sys.stderr)  # what the shell says next shall not stand behind the mark
            return
        except KeyboardInterrupt:
            interrupted = True
        except UserError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)


def line_reader() -> Callable[[], str]:
    """What reads a line: with a mark, history and editing where a person types at a terminal."""
    if not sys.stdin.isatty():
        return input
    if not sys.stdout.isatty():

        def ask() -> str:
            print(PROMPT, end="", file=sys.stderr, flush=True)
            return input()

        return ask
    try:
        import readline  # noqa: F401, from here on input() has history and editing
    except ImportError:  # not on Windows
        pass
    return lambda: input(PROMPT)
