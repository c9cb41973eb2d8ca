"""Cuts text into pre-tokens, as GPT-2's or cl100k's pattern does. Merges never cross a cut.

All that depends on the pattern is in its entry of `PATTERNS`: add a pattern there and nowhere else.
`split` here is for short text; tok.split_arrays does the same for blocks of bytes.

Text that is not UTF-8 takes part as well: an invalid byte travels as the surrogate that Python's
"surrogateescape" makes of it, and counts as neither a letter nor a number nor white space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from tok.errors import TokenizerError
from tok.split_arrays import cl100k_starts, gpt2_starts
from tok.unicode_classes import LONG_S, class_table


@dataclass(frozen=True, eq=False)
class Pattern:
    """One rule that cuts text, in three forms that must agree on every text (tests compare them).

    No field has a default: a new pattern can't get another one's rule by omission.
    """

    name: str
    regex: str  #: as published
    spellings: tuple[str, ...]  #: other regular expressions that split every text alike
    #: The same rule for class strings: text in which ASCII stands for every class (class_table).
    #: Python's own \\s is not used: it takes U+001C to U+001F for white space, Unicode does not.
    class_regex: re.Pattern[str]
    #: The same rule in arrays, from a class string and its kinds; see tok.split_arrays.
    array_rule: Callable[[np.ndarray, np.ndarray], np.ndarray]
    exceptions: Mapping[int, str]  #: code points with a class character of their own
    #: Matches one byte, and looks at the next, where a pre-token ends whatever came before. A text
    #: may be cut there without reading it from its beginning.
    safe_cut: re.Pattern[bytes]

    @cached_property
    def class_table(self) -> np.ndarray:
        """uint8[CODE_POINTS]: the ASCII character that stands for each code point."""
        return class_table(self.exceptions)


# White space after an ASCII letter or digit.
_AFTER_A_WORD = re.compile(rb"[0-9A-Za-z](?=[\t-\r ])")

_PATTERNS = (
    Pattern(
        name="gpt2",  # in its released encoder (Radford et al. 2019)
        regex=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        spellings=(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        ),
        class_regex=re.compile(
            r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+"
            r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
        ),
        array_rule=gpt2_starts,
        exceptions={},
        safe_cut=_AFTER_A_WORD,
    ),
    # GPT-3.5 and GPT-4: as in the first releases of tiktoken and in Hugging Face's copies of it.
    # Newer releases of tiktoken put `\s++$` before `\s*[\r\n]`: there "\n " at the very end of a
    # text is one pre-token, here it is two.
    Pattern(
        name="cl100k",
        regex=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        spellings=(),
        class_regex=re.compile(
            r"'(?:[stmdSTMD]|[rRvV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
            r"| ?[^\t-\r A-Za-z0-9]+[\r\n]*|[\t-\r ]*[\r\n]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
        ),
        array_rule=cl100k_starts,
        exceptions={LONG_S: "s"},  # contractions count in upper and lower case
        safe_cut=_AFTER_A_WORD,
    ),
)
PATTERNS = {pattern.name: pattern for pattern in _PATTERNS}
GPT2 = PATTERNS["gpt2"]


def check_pattern(name: object) -> Pattern:
    """The pattern of that name.

    Raises:
        TokenizerError: the name is not in PATTERNS.
    """
    if not isinstance(name, str) or name not in PATTERNS:
        raise TokenizerError(f"unknown pattern {name!r}; known: {', '.join(PATTERNS)}")
    return PATTERNS[name]


def find_pattern(regex: object) -> Pattern | None:
    """The pattern that a regular expression spells, or None."""
    return next((p for p in PATTERNS.values() if regex in (p.regex, *p.spellings)), None)


def to_text(raw: str | bytes) -> str:
    """The form of text that `split` takes: invalid bytes as escapes, nothing lost.

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


def split(text: str, pattern: Pattern = GPT2) -> list[str]:
    """The pre-tokens of `text` (as `to_text` returns it), in order; joined they are the text.

    >>> split("It's 2 o'clock,  says Zoë")
    ['It', "'s", ' 2', ' o', "'", 'clock', ',', ' ', ' says', ' Zoë']
    """
    find_all = pattern.class_regex.findall
    if text.isascii():
        return find_all(text)
    lengths = map(len, find_all(class_string(text, pattern)))
    return [text[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def class_string(text: str, pattern: Pattern = GPT2) -> str:
    """ASCII text of the same length whose characters are of the same classes.

    >>> class_string("Zoë, 年")
    'Zoa, a'
    """
    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return pattern.class_table[codes_N].tobytes().decode("ascii")
