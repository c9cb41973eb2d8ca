"""Print pip's constraints for another torch: `python scripts/constraints.py 2.9.1`, or `keep`.

`keep` pins the torch that this Python has, so that pip leaves it alone. The other versions are
those of constraints.txt. The Makefile runs this before anything is installed, so it imports only
the standard library.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

OLDEST = "2.6"
OF_TORCH = ("torch=", "triton=", "sympy=", "setuptools=", "nvidia-", "cuda-")  # torch pins these


def problem_of(version: str) -> str:
    """Return why this torch can't be used, with a fix, or an empty text.

    >>> problem_of("2.13.0+cpu"), problem_of("2.5.1")
    ('', 'torch 2.5.1 is too old; use 2.6 or newer')
    """
    parts = [re.match(r"(\d+)\.(\d+)\S*$", text) for text in (version, OLDEST)]
    if not parts[0]:
        return f"{version!r} is not a version; give one such as 2.9.1, or keep"
    ours, oldest = (tuple(map(int, found.groups())) for found in parts if found)
    return f"torch {version} is too old; use {OLDEST} or newer" * (ours < oldest)


def main(wanted: str = "keep") -> int:
    """Print the constraints and return 0, or print an error and return 2."""
    try:
        version = metadata.version("torch") if wanted == "keep" else wanted
        problem = problem_of(version)
    except metadata.PackageNotFoundError:
        problem = f"{sys.executable} has no torch; name a Python (PYTHON=) or environment (VENV=)"
        problem += " that has one, or give a version"
    if problem:
        print(f"error: TORCH={wanted}: {problem}", file=sys.stderr)
        return 2
    lines = (Path(__file__).resolve().parents[1] / "constraints.txt").read_text(encoding="utf-8")
    print(*(line for line in lines.splitlines() if not line.startswith(OF_TORCH)), sep="\n")
    print(f"torch=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
