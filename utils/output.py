"""Output for people and programs: log lines on stderr, JSON lines for stdout."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

tqdm.get_lock()  # made here: Ctrl-C while it is made, during the first message, would break tqdm


def log_if_not_tty(line: str) -> None:
    """Print a line on stderr unless it is a terminal, where a progress bar replaces such lines."""
    if not sys.stderr.isatty():
        print(as_utf8(line), file=sys.stderr, flush=True)


def log(line: str) -> None:
    """Print a line on stderr, above the progress bar if there is one."""
    tqdm.write(as_utf8(line), file=sys.stderr)


def progress_bar(iterable: Any = None, *, disable: bool | None = None, **settings: Any) -> Any:
    """Return a tqdm bar; by default, it is silent unless stderr is a terminal.

    tqdm hides the bar in a terminal that reports no size, such as those of some containers. Here
    such a terminal has 80 columns.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr has no descriptor
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
        if not columns or not lines:
            size = {"ncols": (columns or 80) - 1, "nrows": 24}  # the last column stays empty
            settings |= size | {"dynamic_ncols": False}
    return tqdm(iterable, disable=disable, **settings)


def describe_count(count: float) -> str:
    """Return a rounded number for people: as it is, or in thousands (k) or millions (M).

    >>> describe_count(999), describe_count(45_600), describe_count(1_049_000)
    ('999', '46k', '1.0M')
    """
    if count < 1000:
        return f"{count:.0f}"
    return f"{count / 1000:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"


def json_line(record: Mapping[str, Any]) -> str:
    r"""Return one line of JSON. Infinities and NaN, which JSON does not have, become null.

    >>> json_line({"loss": 0.5, "perplexity": math.inf, "name": "é", "path": "\udce9"})
    '{"loss": 0.5, "perplexity": null, "name": "é", "path": "\\udce9"}'
    """
    return as_utf8(json.dumps(_replace_nonfinite(record), ensure_ascii=False, allow_nan=False))


def as_utf8(text: str) -> str:
    r"""Return a text with escapes for what has no UTF-8 form, such as odd bytes of a file name.

    >>> as_utf8("caf\udce9")
    'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _replace_nonfinite(value: Any) -> Any:
    """Return `value` with None in place of infinities and NaN, at any depth."""
    if isinstance(value, Mapping):
        return {key: _replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
