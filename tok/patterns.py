"""Split text into pre-tokens, by one of several patterns. Merges never cross a boundary.

Everything that depends on the pattern is in its entry of `PATTERNS`; to add a pattern, add an
entry. `split` is for short text; tok.split_arrays does the same for blocks of bytes.

Text may contain bytes that are not UTF-8. Such a byte is represented by the surrogate that Python's
"surrogateescape" decodes it to; its class is "other" (not a letter, number or white space).
"""

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
    """A split rule in three forms that must agree on every text (tests compare them).

    No field has a default, so that a new pattern cannot inherit another pattern's rule by omission.
    """

    name: str
    regex: str  #: as published
    equivalents: tuple[str, ...]  #: other regular expressions that split every text identically
    #: The same rule for class strings (see class_table): ASCII characters represent all classes.
    #: Without \\s: in Python it matches U+001C to U+001F, which are not White_Space in Unicode.
    class_regex: re.Pattern[str]
    #: The same rule on arrays: (class string, classes) -> bool[C], where pre-tokens start; see
    #: tok.split_arrays.
    array_rule: Callable[[np.ndarray, np.ndarray], np.ndarray]
    exceptions: Mapping[int, str]  #: code point -> ASCII character that represents it instead
    #: Matches the last byte of a pre-token (with a look-ahead to the next byte) at places where a
    #: pre-token ends whatever precedes. A text may be split there without reading its beginning.
    safe_cut: re.Pattern[bytes]

    @cached_property
    def class_table(self) -> np.ndarray:
        """uint8[CODE_POINTS]: the ASCII character that represents each code point."""
        return class_table(self.exceptions)


# An ASCII letter or digit before white space.
_AFTER_A_WORD = re.compile(rb"[0-9A-Za-z](?=[\t-\r ])")

_PATTERNS = (
    Pattern(
        name="gpt2",  # in its released encoder (Radford et al. 2019)
        regex=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        equivalents=(
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
    # GPT-3.5 and GPT-4, as in the first releases of tiktoken and in Hugging Face's copies. Newer
    # releases of tiktoken put `\s++$` before `\s*[\r\n]`: they make "\n " at the end of a text one
    # pre-token; this pattern makes two.
    Pattern(
        name="cl100k",
        regex=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        equivalents=(),
        class_regex=re.compile(
            r"'(?:[stmdSTMD]|[rRvV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
            r"| ?[^\t-\r A-Za-z0-9]+[\r\n]*|[\t-\r ]*[\r\n]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
        ),
        array_rule=cl100k_starts,
        exceptions={LONG_S: "s"},  # contractions match in upper and lower case
        safe_cut=_AFTER_A_WORD,
    ),
)
PATTERNS = {pattern.name: pattern for pattern in _PATTERNS}
GPT2 = PATTERNS["gpt2"]


def check_pattern(name: object) -> Pattern:
    """Return the pattern of that name.

    Raises:
        TokenizerError: the name is not in PATTERNS.
    """
    if not isinstance(name, str) or name not in PATTERNS:
        raise TokenizerError(f"unknown pattern {name!r}; known: {', '.join(PATTERNS)}")
    return PATTERNS[name]


def find_pattern(regex: object) -> Pattern | None:
    """Return the pattern that a regular expression denotes, or None."""
    return next((p for p in PATTERNS.values() if regex in (p.regex, *p.equivalents)), None)


def to_text(raw: str | bytes) -> str:
    """Return text in the form that `split` takes: invalid bytes become surrogates (lossless).

    >>> to_text(b"a\\xff")
    'a\\udcff'

    Raises:
        TokenizerError: `raw` is neither str nor bytes, or contains a lone surrogate, which has no
            UTF-8 form.
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
    """Invert `to_text`: return the UTF-8 bytes, with surrogates converted back to invalid bytes.

    >>> to_bytes("a\\udcff")
    b'a\\xff'
    """
    return text.encode("utf-8", "surrogateescape")


def split(text: str, pattern: Pattern = GPT2) -> list[str]:
    """Return the pre-tokens of `text` (as from `to_text`), in order; joined they give the text.

    >>> split("It's 2 o'clock,  says Zoë")
    ['It', "'s", ' 2', ' o', "'", 'clock', ',', ' ', ' says', ' Zoë']
    """
    find_all = pattern.class_regex.findall
    if text.isascii():
        return find_all(text)
    lengths = map(len, find_all(class_string(text, pattern)))
    return [text[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def class_string(text: str, pattern: Pattern = GPT2) -> str:
    """Return the class string of `text`: ASCII characters of the same classes, of the same length.

    >>> class_string("Zoë, 年")
    'Zoa, a'
    """
    codes_C = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return pattern.class_table[codes_C].tobytes().decode("ascii")
