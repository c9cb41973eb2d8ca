"""Find special tokens in a stream of bytes with bounded memory."""

import re
from collections.abc import Callable, Collection, Mapping

from tok.errors import TokenizerError


def allowed_tokens(
    special_ids: Mapping[str, int], allowed: bool | Collection[str]
) -> tuple[str, ...]:
    """Return the special tokens that are recognised in a text. All others are plain text.

    >>> allowed_tokens({"<a>": 256, "<b>": 257}, True), allowed_tokens({"<a>": 256}, False)
    (('<a>', '<b>'), ())

    Raises:
        TokenizerError: a token in `allowed` is not in `special_ids`.
    """
    if isinstance(allowed, str):
        raise TokenizerError(f"allowed_special must be True, False or a set, not {allowed!r}")
    tokens = tuple(special_ids) if allowed is True else tuple(allowed or ())
    for token in tokens:
        if token not in special_ids:
            raise TokenizerError(
                f"allowed_special: {token!r} is not a special token of this tokenizer"
            )
    return tokens


def special_pattern(tokens: Collection[str]) -> re.Pattern[str]:
    """Return a regular expression that matches special tokens, at each place the longest.

    It has one group, so that its `split` returns text and special tokens alternately.

    >>> special_pattern(["<a>", "<a>b"]).split("one<a>btwo")
    ['one', '<a>b', 'two']
    """
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


class SpecialReader:
    """Reads a stream of bytes. `read` stops before each special token; `pop_special` returns it.

    >>> from io import BytesIO
    >>> reader = SpecialReader(BytesIO(b"one<a>two").read, ["<a>"])
    >>> reader.read(100), reader.read(100), reader.pop_special()
    (b'one', b'', '<a>')
    >>> reader.read(100), reader.read(100), reader.pop_special()
    (b'two', b'', None)
    """

    def __init__(self, read: Callable[[int], bytes], tokens: Collection[str]) -> None:
        """`read` returns at most the given number of next bytes, b"" at the end."""
        self._read = read
        # UTF-8 is self-synchronising, so matching bytes is the same as matching characters.
        self._pattern = re.compile(special_pattern(tokens).pattern.encode())
        self._longest = max(len(token.encode()) for token in tokens)
        self._buffer, self._position = b"", 0
        self._at_end = False
        self._found: str | None = None

    def read(self, size: int) -> bytes:
        """Return about `size` next bytes; b"" before a special token and at the end."""
        while self._found is None:
            found = self._pattern.search(self._buffer, self._position)
            # A match that starts before `final_end` is final. From there on, bytes that are not
            # read yet could start a match or make it longer.
            final_end = len(self._buffer) - (0 if self._at_end else self._longest - 1)
            if found and found.start() < final_end:
                text = self._buffer[self._position : found.start()]
                self._found, self._position = found.group().decode(), found.end()
                return text
            if self._at_end or self._position + size <= final_end:
                text, self._position = self._buffer[self._position : final_end], final_end
                return text
            more = self._read(size)
            self._at_end = not more
            self._buffer, self._position = self._buffer[self._position :] + more, 0
        return b""

    def pop_special(self) -> str | None:
        """Return the special token at which `read` stopped, and skip it; None at the end."""
        found, self._found = self._found, None
        return found
