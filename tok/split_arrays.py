"""Split blocks of text into pre-tokens with NumPy, by comparing classes of adjacent characters.

    for raw, starts in blocks(open(path, "rb").read, PATTERNS["gpt2"]):  # files larger than RAM
        raw                         # bytes[B], whole pre-tokens of the text
        starts                      # int64[P], pre-token i is raw[starts[i] : starts[i + 1]]

The array rules below implement the patterns of tok.patterns, whose regular expressions are used for
short text. Both work on the same *class string* (tok.unicode_classes): one ASCII character for each
character of the text, of the same class. ASCII text is its own class string.

    text          Z  o  ë  '  s     2  €     bytes 5a 6f c3 ab 27 73 20 32 e2 82 ac
    class string  Z  o  a  '  s     2  !
    class         L  L  L  O  L  S  N  O     letter, number, white space, other
    start         x        x     x     x     `'s` is a pre-token; a blank joins the run after it
    byte offset   0        4     6     8
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from tok.unicode_classes import LETTER_RUNS, NUMBER_RUNS, SPACE_RUNS, class_members

# A block and its arrays fit the processor's cache: several times faster than one long array.
BLOCK_BYTES = 1 << 18

SPACE, LETTER, NUMBER, OTHER = 0, 1, 2, 3


class SplitRule(Protocol):
    """The part of tok.patterns.Pattern that this file uses."""

    @property
    def class_table(self) -> np.ndarray:
        """uint8[CODE_POINTS]: the ASCII character that represents each code point."""

    @property
    def array_rule(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Function (class string uint8[C], classes uint8[C]) -> bool[C], where pre-tokens start."""


def split_starts(raw: bytes, pattern: SplitRule) -> np.ndarray:
    """Return int64[P]: the byte offset of each pre-token of `raw`, ascending from 0.

    >>> from tok.patterns import GPT2
    >>> split_starts("Zoë's 2€".encode(), GPT2).tolist()
    [0, 4, 6, 8]
    """
    return _find_starts(raw, pattern)[0]


def blocks(
    read: Callable[[int], bytes], pattern: SplitRule, size: int | None = None
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Read a text in blocks of about `size` bytes that end at a pre-token boundary.

    The patterns never look back: from the start of a pre-token on, the text is split in the same
    way whatever precedes it. So a block ends at the last start that no later byte can change, and
    the remaining bytes go into the next block. A block without such a start (a very long run of
    letters) is doubled until it has one.

    >>> from io import BytesIO
    >>> from tok.patterns import GPT2
    >>> read = BytesIO(b"one two three").read
    >>> [(raw, starts.tolist()) for raw, starts in blocks(read, GPT2, size=6)]
    [(b'one two', [0, 3]), (b' three', [0])]

    Args:
        read: returns at most the given number of next bytes, b"" at the end of the text.
        size: bytes per block; default: BLOCK_BYTES.

    Yields:
        (raw, starts): whole pre-tokens and their starts in `raw`, int64[P]; never empty.
    """
    size = size or BLOCK_BYTES
    rest = b""
    while True:
        more = read(max(size, len(rest)))
        raw = rest + more
        if not raw:
            return
        starts, final_end = _find_starts(raw, pattern)
        if not more:
            yield raw, starts
            return
        # Starts before `final_end`, without the last: its pre-token may not be complete.
        n_whole = int(np.searchsorted(starts, final_end)) - 1
        if n_whole < 1:
            rest = raw
            continue
        cut = int(starts[n_whole])
        yield raw[:cut], starts[:n_whole]
        rest = raw[cut:]


def _find_starts(raw: bytes, pattern: SplitRule) -> tuple[np.ndarray, int]:
    """Return the starts, and the byte offset below which no text after `raw` can change them."""
    if not raw:
        return np.zeros(0, dtype=np.int64), 0
    if raw.isascii():
        ascii_C, offsets_C = np.frombuffer(raw, dtype=np.uint8), None
    else:
        ascii_C, offsets_C = _class_string(raw, pattern.class_table)
    class_C = np.frombuffer(ascii_C.tobytes().translate(_ascii_classes()), dtype=np.uint8)
    starts_P = np.flatnonzero(pattern.array_rule(ascii_C, class_C))
    final_end = _last_run_start(class_C)
    if offsets_C is None:
        return starts_P, final_end
    return offsets_C[starts_P], int(offsets_C[final_end])


def _class_string(raw: bytes, class_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class string uint8[C] and the byte offset of each character, int64[C].

    An invalid byte is a separate character: Python's "surrogateescape" decodes it to U+DC80 + (byte
    - 0x80), so 0xff becomes U+DCFF, whose class in the table is "other".
    """
    text = raw.decode("utf-8", "surrogateescape")
    # A NumPy array of one string holds its code points. Encoding the text to UTF-32 instead would
    # fail at surrogates.
    codes_C = np.array([text], dtype=f"<U{len(text)}").view("<u4")
    ascii_C = class_table.take(codes_C)
    escaped_C = (codes_C >> 7) == 0xDC80 >> 7
    if not escaped_C.any():  # valid UTF-8: a character begins at every non-continuation byte
        return ascii_C, np.flatnonzero((np.frombuffer(raw, dtype=np.uint8) & 0xC0) != 0x80)
    n_bytes_C = np.ones(len(codes_C), dtype=np.uint8)
    for longer_from in (0x80, 0x800, 0x10000):
        n_bytes_C += codes_C >= longer_from
    n_bytes_C[escaped_C] = 1
    return ascii_C, np.cumsum(n_bytes_C, dtype=np.int64) - n_bytes_C


@lru_cache(maxsize=1)
def _ascii_classes() -> bytes:
    """Return the class of each of the 128 ASCII characters, as a table for bytes.translate."""
    classes = bytearray([OTHER] * 256)
    for char_class, runs in ((SPACE, SPACE_RUNS), (LETTER, LETTER_RUNS), (NUMBER, NUMBER_RUNS)):
        for code in class_members(runs)[:128].nonzero()[0]:
            classes[code] = char_class
    return bytes(classes)


def _last_run_start(class_C: np.ndarray) -> int:
    """Return the index of the first character of the last run of equal classes.

    Pre-token starts before it depend on complete runs only. The last three characters are ignored:
    they may be the bytes of an incomplete UTF-8 character.
    """
    begun_C = class_C[:-3]
    n_tail = 64  # search from the end: the last run is usually short
    while True:
        tail = begun_C[-n_tail:]
        changes = np.flatnonzero(tail[1:] != tail[:-1])
        if len(changes):
            return len(begun_C) - len(tail) + int(changes[-1]) + 1
        if n_tail >= len(begun_C):
            return 0
        n_tail *= 8


def _run_starts(class_C: np.ndarray) -> np.ndarray:
    """Return bool[C]: True at the first character of each run of equal classes."""
    start_C = np.empty(len(class_C), dtype=bool)
    start_C[0] = True
    np.not_equal(class_C[1:], class_C[:-1], out=start_C[1:])
    return start_C


def gpt2_starts(ascii_C: np.ndarray, class_C: np.ndarray) -> np.ndarray:
    r"""Return bool[C]: True where a pre-token of GPT-2's pattern starts.

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    """
    start_C = _run_starts(class_C)
    space_C = class_C == SPACE
    # \s+(?!\S): the last white-space character before another class is a separate pre-token ...
    last_C = space_C[:-1] & ~space_C[1:]
    start_C[:-1] |= last_C
    # ... and if it is a blank, the run after it belongs to the same pre-token.
    start_C[1:] &= ~(last_C & (ascii_C[:-1] == ord(" ")))
    _cut_contractions(start_C, ascii_C)
    return start_C


def cl100k_starts(ascii_C: np.ndarray, class_C: np.ndarray) -> np.ndarray:
    r"""Return bool[C]: True where a pre-token of the cl100k pattern starts.

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
    | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    """
    start_C = _run_starts(class_C)
    space_C, letter_C, other_C = class_C == SPACE, class_C == LETTER, class_C == OTHER
    newline_C = (ascii_C == ord("\n")) | (ascii_C == ord("\r"))
    # \s+(?!\S): the last white-space character before another class is a separate pre-token, unless
    # it is a newline.
    last_C = space_C[:-1] & ~space_C[1:] & ~newline_C[:-1]
    start_C[:-1] |= last_C
    # Letters after that character belong to its pre-token; characters of class "other" do only if
    # it is a blank.
    blank_C = ascii_C[:-1] == ord(" ")
    start_C[1:] &= ~(last_C & (letter_C[1:] | (blank_C & other_C[1:])))
    # [^\r\n\p{L}\p{N}]?\p{L}+: letters also join a single character of class "other" before them,
    # unless that character has joined a blank.
    start_C[1:] &= ~(letter_C[1:] & other_C[:-1] & start_C[:-1])
    _cut_newlines(start_C, newline_C, space_C, other_C)
    _cut_numbers(start_C, class_C)
    _cut_contractions(start_C, ascii_C, ignore_case=True)
    return start_C


def _cut_contractions(
    start_C: np.ndarray, ascii_C: np.ndarray, *, ignore_case: bool = False
) -> None:
    """Change `start_C`: 's 't 'm 'd 're 've 'll are pre-tokens where an apostrophe starts one."""
    n = len(ascii_C)
    at_Q = np.flatnonzero(start_C & (ascii_C == ord("'")))
    at_Q = at_Q[at_Q < n - 1]
    one_Q = ascii_C[at_Q + 1]
    two_Q = np.where(at_Q < n - 2, ascii_C[np.minimum(at_Q + 2, n - 1)], 0)
    if ignore_case:
        one_Q, two_Q = one_Q | 0x20, two_Q | 0x20  # ASCII letters in lower case
    short_Q = (one_Q == ord("s")) | (one_Q == ord("t")) | (one_Q == ord("m")) | (one_Q == ord("d"))
    r_or_v_Q = (one_Q == ord("r")) | (one_Q == ord("v"))
    long_Q = (r_or_v_Q & (two_Q == ord("e"))) | ((one_Q == ord("l")) & (two_Q == ord("l")))
    start_C[at_Q[short_Q | long_Q] + 1] = False
    for end in (at_Q[short_Q] + 2, at_Q[long_Q] + 3):
        start_C[end[end < n]] = True


def _cut_newlines(
    start_C: np.ndarray, newline_C: np.ndarray, space_C: np.ndarray, other_C: np.ndarray
) -> None:
    r"""Apply [^\s\p{L}\p{N}]+[\r\n]* and \s*[\r\n]+: a pre-token ends after its newlines.

    Newlines directly after the class "other" belong to its pre-token. Otherwise white space up to
    its last newline is one pre-token. "!\n \n  x" is split into  !\n | " \n" | " " | " x".
    """
    n = len(newline_C)
    start_C[1:] &= ~(newline_C[1:] & other_C[:-1])
    # Only newlines followed by more white space matter: after all others a run starts anyway.
    end_E = np.flatnonzero(newline_C[:-1] & ~newline_C[1:] & space_C[1:]) + 1
    if not len(end_E):
        return
    newlines = np.flatnonzero(newline_C)
    first_newlines = newlines[np.diff(newlines, prepend=-2) > 1]  # of each run of newlines
    # The ends of the runs of white space.
    run_ends = np.append(np.flatnonzero(space_C[:-1] & ~space_C[1:]) + 1, n)
    next_newline_E = np.append(newlines, n)[np.searchsorted(newlines, end_E)]
    is_last_E = next_newline_E >= run_ends[np.searchsorted(run_ends, end_E, side="right")]
    begin_E = first_newlines[np.searchsorted(first_newlines, end_E) - 1]
    after_other_E = (begin_E > 0) & other_C[begin_E - 1]
    start_C[end_E[is_last_E | after_other_E]] = True


def _cut_numbers(start_C: np.ndarray, class_C: np.ndarray) -> None:
    r"""Apply \p{N}{1,3}: split a run of digits after every third."""
    number_D = np.flatnonzero(class_C == NUMBER)
    if not len(number_D):
        return
    digit_D = np.arange(len(number_D))
    begins_D = np.diff(number_D, prepend=-2) > 1
    # 0 1 2 3 ... in each run of digits
    position_D = digit_D - np.maximum.accumulate(np.where(begins_D, digit_D, 0))
    start_C[number_D[position_D % 3 == 0]] = True
