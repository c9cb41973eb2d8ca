"""Decoding id by id, for text that appears while it is sampled."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Gives whole characters only; what `feed` and `finish` return, joined, is `decode(ids)`."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` gives the bytes of one id and raises for an id that does not exist."""
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The characters that `token_id` completes; "" while a character is unfinished.

        Raises:
            TokenizerError: no such id; the decoder stays as it was.
        """
        return self._decoder.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        """What is left: U+FFFD for an unfinished character, or "". The decoder starts afresh."""
        return self._decoder.decode(b"", final=True)
