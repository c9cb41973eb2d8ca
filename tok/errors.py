"""The exception that the tokenizer raises for invalid input."""

from utils.errors import UserError


class TokenizerError(UserError, ValueError):
    """Invalid text, ids, settings or file.

    A ValueError in Python; on the command line one line on stderr and exit status 2.
    """
