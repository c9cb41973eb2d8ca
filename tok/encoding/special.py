"""Finding special tokens in a stream of bytes, without ever holding all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from tok.errors import TokenizerError


def allowed_tokens(
    special_ids: Mapping[str, int], allowed: bool | Collection[str]
) -> tuple[str, ...]:
    """The special tokens that may be found in a text; the others are plain text.

    >>> allowed_tokens({"<a>": 256, "<b>": 257}, True), allowed_tokens({"<a>": 256}, False)
    (('<a>', '<b>'), ())

    Raises:
        TokenizerError: a token in `allowed` that is not one of `special_ids`.
    """
    if isinstance(allowed, str):
        raise TokenizerError(f"allowed_special must be True, False or a set, not {allowed!r}")
    tokens = tuple(special_ids) if allowed is True else tuple(allowed or ())
    for token in tokens:
        if token not in special_ids:
            raise TokenizerError(
                f"allowed_special: {token!r} is no special token of this tokenizer"
            )
    return tokens


def special_pattern(tokens: Collection[str]) -> re.Pattern[str]:
    """Finds special tokens in text, the longest where several fit; one group, for `split`.

    >>> special_pattern(["<a>", "<a>b"]).split("one<a>btwo")
    ['one', '<a>b', 'two']
    """
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


class SpecialReader:
    """Reads a stream up to the next special token, then up to the next, and so on.

    >>> from io import BytesIO
    >>> reader = SpecialReader(BytesIO(b"one<a>two").read, ["<a>"])
    >>> reader.read(100), reader.read(100), reader.next_part()
    (b'one', b'', '<a>')
    >>> reader.read(100), reader.read(100), reader.next_part()
    (b'two', b'', None)
    """

    def __init__(self, read: Callable[[int], bytes], tokens: Collection[str]) -> None:
        """`read` gives at most so many next bytes, b"" at the end."""
        self._read = read
        # UTF-8 characters don't begin inside one another: bytes match where characters do.
        self._pattern = re.compile(special_pattern(tokens).pattern.encode())
        self._longest = max(len(token.encode()) for token in tokens)
        self._buffer, self._place = b"", 0
        self._at_end = False
        self._found: str | None = None

    def read(self, size: int) -> bytes:
        """Next bytes of this part of the stream, b"" at its end; about `size` of them."""
        while self._found is None:
            found = self._pattern.search(self._buffer, self._place)
            # Before this place it is certain where tokens begin; after it, or beyond what is read,
            # one may begin or go on.
            certain = len(self._buffer) - (0 if self._at_end else self._longest - 1)
            if found and found.start() < certain:
                text = self._buffer[self._place : found.start()]
                self._found, self._place = found.group().decode(), found.end()
                return text
            if self._at_end or self._place + size <= certain:
                text, self._place = self._buffer[self._place : certain], certain
                return text
            more = self._read(size)
            self._at_end = not more
            self._buffer, self._place = self._buffer[self._place :] + more, 0
        return b""

    def next_part(self) -> str | None:
        """Goes on after the special token that ended this part, and returns it; None at the end."""
        found, self._found = self._found, None
        return found
