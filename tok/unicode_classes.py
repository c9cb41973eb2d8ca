"""Character classes (letter, number, white space) of all code points, pinned to Unicode 16.0.

Letters are the general categories L*, numbers N*, white space is the property White_Space. Python's
`unicodedata` is not used: its Unicode version depends on the interpreter (3.10, 3.11 and 3.12
disagree on thousands of letters), so the same tokenizer would give different ids.

The tables, letters, numbers and white space, are in unicode_runs.txt. Their source: tiktoken 0.14
encoded every code point except surrogates with the patterns \\p{L}, \\p{N} and \\s. It drops what a
pattern does not match, so the rest is the class. The tests repeat this where tiktoken is installed.
The version is 16.0 because U+1C89 (new in 16.0) is among the letters and U+10940 (new in 17.0) is
not.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

UNICODE_VERSION = "16.0"
CODE_POINTS = 0x110000
# "ſ", the only non-ASCII letter that equals one of s t m d r e v l when case is ignored.
LONG_S = 0x17F

# Each class as run lengths from code point 0: characters outside, characters inside, outside, ...
LETTER_RUNS, NUMBER_RUNS, SPACE_RUNS = (
    Path(__file__).with_name("unicode_runs.txt").read_text(encoding="ascii").split("\n\n")
)


def class_members(runs: str) -> np.ndarray:
    """Return bool[CODE_POINTS]: True for code points of the class that `runs` describes.

    >>> [chr(c) for c in range(128) if class_members(NUMBER_RUNS)[c]] == list("0123456789")
    True
    """
    lengths = np.array(runs.split(), dtype=np.int64)
    inside = np.arange(len(lengths)) % 2 == 1
    members = np.zeros(CODE_POINTS, dtype=bool)
    members[: lengths.sum()] = np.repeat(inside, lengths)
    return members


def class_table(exceptions: Mapping[int, str]) -> np.ndarray:
    """Return uint8[CODE_POINTS]: the ASCII character that represents each code point.

    ASCII characters represent themselves. Of the others, letters become "a", numbers "0", white
    space a tab, and the rest (including surrogates) "!". White space is not mapped to a blank,
    because in the split patterns only U+0020 may precede a word in the same pre-token.

    >>> bytes(class_table({})[[ord(c) for c in "Zé٣\\u3000€ "]])
    b'Za0\\t! '

    Args:
        exceptions: code point -> the ASCII character to use instead.
    """
    table = np.full(CODE_POINTS, ord("!"), dtype=np.uint8)
    for runs, character in ((LETTER_RUNS, "a"), (NUMBER_RUNS, "0"), (SPACE_RUNS, "\t")):
        table[class_members(runs)] = ord(character)
    table[:128] = np.arange(128)
    for code, character in exceptions.items():
        table[code] = ord(character)
    table.flags.writeable = False
    return table
