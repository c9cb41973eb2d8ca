"""Cuts text into pre-tokens, exactly as GPT-2's or cl100k's pattern does. Merges never cross a cut.

This file is for short text; tok.split_arrays does the same for blocks of bytes.

Text that is not UTF-8 takes part as well: an invalid byte travels as the surrogate that Python's
"surrogateescape" makes of it, and counts as a character that is no letter, number or white space.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from tok.errors import TokenizerError
from tok.unicode_classes import shadow_table

# Name -> pattern as published: GPT-2's in its released encoder (Radford et al. 2019), cl100k's
# (GPT-3.5 and GPT-4) in the first releases of tiktoken and in Hugging Face's copies of it. Newer
# releases of tiktoken put `\s++$` before `\s*[\r\n]`: there "\n " at the very end of a text is one
# pre-token, here it is two.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}

# The same patterns for text in which ASCII stands for every class (see shadow_table). Python's own
# \s is not used: it takes U+001C to U+001F for white space, Unicode does not.
_ASCII_PATTERNS = {
    "gpt2": re.compile(
        r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+"
        r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
    ),
    "cl100k": re.compile(
        r"'(?:[stmdSTMD]|[rRvV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
        r"| ?[^\t-\r A-Za-z0-9]+[\r\n]*|[\t-\r ]*[\r\n]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
    ),
}


def check_pattern(pattern: str) -> None:
    """
    Raises:
        TokenizerError: the pattern's name is not in PATTERNS.
    """
    if pattern not in PATTERNS:
        raise TokenizerError(f"unknown pattern {pattern!r}; known: {', '.join(PATTERNS)}")


def to_text(raw: str | bytes) -> str:
    """The form of text that the rest of this file takes: invalid bytes as escapes, nothing lost.

    >>> to_text(b"a\\xff")
    'a\\udcff'

    Raises:
        TokenizerError: neither str nor bytes, or a lone surrogate (it has no UTF-8 form).
    """
    if isinstance(raw, (bytes, bytearray, memoryview)):
        return bytes(raw).decode("utf-8", "surrogateescape")
    if not isinstance(raw, str):
        raise TokenizerError(f"expected str or bytes, got {type(raw).__name__}")
    if not raw.isascii():
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"lone surrogate U+{ord(raw[error.start]):04X} at character {error.start}: "
                "such text has no UTF-8 form; replace it, or encode the original bytes"
            ) from None
    return raw


def to_bytes(text: str) -> bytes:
    """The bytes that `to_text` was given.

    >>> to_bytes("a\\udcff")
    b'a\\xff'
    """
    return text.encode("utf-8", "surrogateescape")


def split(text: str, pattern: str = "gpt2") -> list[str]:
    """The pre-tokens of `text` (as `to_text` returns it), in order; joined they are the text.

    >>> split("It's 2 o'clock,  says Zoë")
    ['It', "'s", ' 2', ' o', "'", 'clock', ',', ' ', ' says', ' Zoë']
    """
    find_all = _ASCII_PATTERNS[pattern].findall
    if text.isascii():
        return find_all(text)
    lengths = map(len, find_all(shadow(text, pattern)))
    return [text[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def shadow(text: str, pattern: str = "gpt2") -> str:
    """ASCII text of the same length whose characters are of the same classes.

    >>> shadow("Zoë, 年")
    'Zoa, a'
    """
    import numpy as np

    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return shadow_table(pattern)[codes_N].tobytes().decode("ascii")
