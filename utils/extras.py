"""Optional libraries: imported where they are used, and how to get the one that is missing."""

from __future__ import annotations

from utils.errors import UserError


def missing(package: str, what: str) -> UserError:
    """The error for a library that is not installed.

    >>> str(missing("gguf", "--to gguf"))
    '--to gguf needs a library that is not installed: pip install gguf'
    """
    return UserError(f"{what} needs a library that is not installed: pip install {package}")
