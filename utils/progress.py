"""Progress of long jobs for people who see no bar: plain lines where stderr is no terminal."""

from __future__ import annotations

import sys


def plain(line: str) -> None:
    """One line on stderr, unless that is a terminal, which shows a bar instead."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
