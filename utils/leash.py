"""Runs a command that ends with its starter: `python -m utils.leash COMMAND...`.

Standard input is the leash, a pipe whose other end the starter holds. It closes when the starter
lets go, or dies in any way, kill -9 too; the command is then asked to end (SIGTERM).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence


def wait_for_end(child: subprocess.Popen[bytes]) -> None:
    """Waits until standard input closes, then asks the child to end."""
    sys.stdin.buffer.read()
    child.terminate()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command to its end; its exit status, 128 + N where signal N ended it."""
    command = list(sys.argv[1:] if argv is None else argv)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for number in (signal.SIGTERM, signal.SIGINT):  # passed on: the command must not outlive this
        signal.signal(number, lambda *_: child.terminate())
    threading.Thread(target=wait_for_end, args=(child,), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread still reads standard input, which a usual exit would wait for
