"""User errors: one line on stderr that names the problem and a fix, and exit status 2."""

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from utils.suggest import did_you_mean

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report Ctrl-C


MAX_VALUE = 200  # characters of one value that a message repeats
# Values with more than MAX_VALUE characters: words (with paths), quoted texts, and lists. 199 and
# more characters between two quotes or brackets are 201 and more with them.
VALUES = re.compile(r"\S{201,}|'[^']{199,}'|\"[^\"]{199,}\"|\[[^\[\]]{199,}\]")
MAX_MESSAGE = 1000


class UserError(Exception):
    """An error that the user can fix. The message names the file, key or flag, and the fix."""

    def __init__(self, message: object) -> None:
        """Store the message with long values shortened."""
        super().__init__(shorten_values(str(message)))


def shorten_values(message: str) -> str:
    """Return a message in which no value has more than MAX_VALUE characters.

    >>> shorten_values("a.txt: expected a number, got " + "9" * 5000).count("9")
    199
    """
    message = cut_middle(message, 10**6)  # the pattern would be slow on longer messages
    message = VALUES.sub(lambda found: cut_middle(found[0], MAX_VALUE), message)
    return cut_middle(message, MAX_MESSAGE)


def cut_middle(text: str, size: int) -> str:
    """Return at most `size` characters: the start and the end of the text.

    >>> cut_middle("d_model=64, lr=0.001", 13)
    'd_mode…=0.001'
    """
    half = size // 2
    return text if len(text) <= size else f"{text[:half]}…{text[len(text) - (size - half - 1):]}"


def brief(value: object, size: int = 40) -> str:
    """Return the repr of a value in at most `size` characters.

    >>> brief(["abc", "def"], 9)
    "['ab…ef']"
    """
    return cut_middle(repr(value), size)


def one_line(message: object) -> str:
    """Return a message as a single line, with long values shortened.

    >>> one_line("two\\n  lines")
    'two lines'
    """
    return shorten_values(" ".join(str(message).split()))


def plural(count: int, word: str) -> str:
    """Return a number with its word.

    >>> plural(1, "thread"), plural(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count} {word}" + "s" * (count != 1)


# A message says how to fix the error if one of these verbs begins a part of it.
FIX = re.compile(
    r"[;,:] (?:pip|choose|drop|export|get|give|leave|name|put|resize|set|start|train|use)\b"
)


def with_fix(error: UserError, fix: str) -> str:
    """Return the message of an error; append `fix` unless the message has a fix already.

    >>> with_fix(UserError("weight a is missing"), "put the original back")
    'weight a is missing; put the original back'
    """
    message = str(error)
    return message if FIX.search(message) else f"{message}; {fix}"


@contextlib.contextmanager
def errors_at(where: object, fix: str = "", kind: type[UserError] = UserError) -> Iterator[None]:
    """Put `where` before the message of the block's UserError; append `fix` as `with_fix` does.

    Args:
        kind: the class of the new error.
    """
    try:
        yield
    except UserError as error:
        raise kind(f"{where}: {with_fix(error, fix) if fix else error}") from None


# Torch's errors: GPUs; the CPU on Linux and macOS; on Windows; cuBLAS.
OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|ALLOC_FAILED")
OS_ERROR_HINTS = {
    errno.ENOSPC: "free some space there, or write to another disk",
    errno.EDQUOT: "delete files there to get below your quota, or write to another disk",
    errno.EACCES: "change its permissions, or name another path",
    errno.EPERM: "change its permissions, or name another path",
    errno.EROFS: "name a path on a disk that can be written",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "name a path below a folder",
    errno.ENOTEMPTY: "name another folder",
    errno.EIO: "the disk may be failing; copy the file to another one",
    errno.ENAMETOOLONG: "name a shorter path",
}


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of this machine or of a device is exhausted."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def looked_in(path: object) -> str:
    """Return the end of a message about a missing path: where a relative one was searched.

    >>> looked_in("/a.txt")
    ''
    """
    try:
        return "" if os.path.isabs(str(path)) else f" (looked in {os.getcwd()})"
    except OSError:  # the folder was removed
        return ""


def describe_os_error(error: OSError) -> str:
    """Return file, reason and, for most errors, a fix of a failed file operation.

    >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "/a.txt"))
    '/a.txt: No such file or directory'
    """
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno == errno.ENOENT and isinstance(error.filename, str):
        reason += looked_in(error.filename)
    line = f"{error.filename}: {reason}" if error.filename is not None else reason
    if error.errno == errno.ENOENT and error.filename is not None:
        return line + did_you_mean(os.fsdecode(error.filename))
    return f"{line}; {OS_ERROR_HINTS[error.errno]}" if error.errno in OS_ERROR_HINTS else line


@contextlib.contextmanager
def user_error_if_os_error() -> Iterator[None]:
    """Turn an OSError of the block into a UserError with its `describe_os_error`."""
    try:
        yield
    except OSError as error:
        raise UserError(describe_os_error(error)) from None


def run_cli(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run `main(None)` as a program and exit: a UserError prints one line and exits with status 2.

    A closed pipe (`| head -1`) is not an error, and Ctrl-C exits with status 130. Any other
    exception is a bug in llm-tiny and keeps its traceback. Stdout is UTF-8 in any locale.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`): use /dev/null
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if hasattr(sys.stdout, "reconfigure"):  # a test may have replaced it by a simpler object
        # A path that is not UTF-8 is printed with its own bytes.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    # SIG_DFL: utils.signals.before_slow_imports was called. From here on, Ctrl-C raises.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main(None) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except OSError as error:
        unwritten = not _discard_stdout() or getattr(sys.stdout, "write_through", False)
        if unwritten and error.filename is None:
            error.filename = "stdout"
        # The reader of stdout has exited. Windows has another error for that.
        closed = os.name == "nt" and error.filename == "stdout" and error.errno == errno.EINVAL
        status = 0 if closed or isinstance(error, BrokenPipeError) else EXIT_USER_ERROR
        if status:
            print(f"error: {one_line(describe_os_error(error))}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("error: not enough memory; reduce the work, or add memory", file=sys.stderr)
        status = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _discard_stdout() -> bool:
    """Redirect stdout to /dev/null if it can't be flushed, as Python's flush at exit would fail.

    Returns:
        True if it could be flushed.
    """
    try:
        sys.stdout.flush()
        return True
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def missing_package(package: str, what: str) -> UserError:
    """Return the error for an optional library that is not installed.

    >>> str(missing_package("gguf", "--to gguf"))
    '--to gguf needs a library that is not installed: pip install gguf'

    Args:
        package: the name of the library on PyPI.
        what: the flag or setting that needs it.
    """
    return UserError(f"{what} needs a library that is not installed: pip install {package}")
