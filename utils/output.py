"""Progress of long jobs for people who see no bar: plain lines where stderr is no terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm


def log_if_not_tty(line: str) -> None:
    """One line on stderr, unless that is a terminal, which shows a bar instead."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def log(line: str) -> None:
    """One line for people, above the progress bar."""
    tqdm.write(line, file=sys.stderr)


def json_line(record: Mapping[str, Any]) -> str:
    """One line of standard JSON; numbers that are not finite, which it can't hold, become null.

    >>> json_line({"loss": 0.5, "perplexity": math.inf, "name": "é"})
    '{"loss": 0.5, "perplexity": null, "name": "é"}'
    """
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first to the left and the others to the right.

    >>> print(table(["point", "loss"], [["a", "0.5"], ["long name", "12.25"]]))
    point       loss
    a            0.5
    long name  12.25
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
