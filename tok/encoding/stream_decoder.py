"""Decode token by token, to show a text while it is sampled."""

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Returns complete characters only; together the results are exactly `decode(ids)`."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` returns the bytes of one id and raises TokenizerError for an unknown one."""
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """Return the characters that `token_id` completes; "" while a character is incomplete.

        Raises:
            TokenizerError: unknown id; the state of the decoder is unchanged.
        """
        return self._decoder.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        """Return U+FFFD for an incomplete character, else "", and reset the decoder."""
        return self._decoder.decode(b"", final=True)
