"""Prompt loop at a terminal: answer one line after another, until an empty line."""

import contextlib
import sys
from collections.abc import Callable

from utils.errors import UserError, one_line

PROMPT = "> "


def run_repl(answer: Callable[[str], None]) -> None:
    """Read lines from stdin and call `answer` with each, until an empty line or the end of stdin.

    Ctrl-C cancels the answer or the line that is being typed, but not the loop. A UserError of
    `answer` prints one line on stderr. If stdout is a file, the prompt is printed on stderr.

    Raises:
        UserError: stdin is closed.
    """
    if sys.stdin is None:
        raise UserError("standard input: closed; give it a terminal, a file or a pipe")
    if hasattr(sys.stdin, "reconfigure"):  # like stdout: UTF-8 in any locale
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    ask, interrupted = line_reader(), False
    while True:
        try:
            if interrupted:  # handled inside `try`, as another Ctrl-C may follow
                interrupted = False
                print(file=sys.stderr)
            line = ask()
            if not line.strip():
                return
            answer(line)
        except EOFError:
            if sys.stdin.isatty():
                print(file=sys.stderr)  # ends the prompt's line, before the shell prints its own
            return
        except KeyboardInterrupt:
            interrupted = True
        except UserError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)


def line_reader() -> Callable[[], str]:
    """Return a function that reads a line; at a terminal with a prompt, history and editing.

    If only stdin is a terminal, there is no history and no editing.
    """
    if not sys.stdin.isatty():
        return input
    if not sys.stdout.isatty():  # input() would print the prompt among the answers

        def ask() -> str:
            print(PROMPT, end="", file=sys.stderr, flush=True)
            return input()

        return ask
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401, its import gives input() history and editing
    return lambda: input(PROMPT)
