"""What a tokenizer says when it is used wrongly."""

from __future__ import annotations

from utils.errors import UserError


class TokenizerError(UserError, ValueError):
    """Bad text, ids, settings or file: a ValueError in Python, one line and exit 2 on a shell."""
