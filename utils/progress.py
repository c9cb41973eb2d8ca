"""Progress of long jobs for people who see no bar: plain lines where stderr is no terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm


def plain(line: str) -> None:
    """One line on stderr, unless that is a terminal, which shows a bar instead."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """One line for people, above the progress bar."""
    tqdm.write(line, file=sys.stderr)
