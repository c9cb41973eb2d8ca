"""Where pre-tokens start, found for a whole block of bytes at once by comparing neighbours.

    for raw, starts in blocks(open(path, "rb").read, PATTERNS["gpt2"]):  # files larger than RAM
        raw                         # bytes[n], whole pre-tokens of the text
        starts                      # int64[P], where each begins: raw[starts[i] : starts[i + 1]]

The array rules below are those of the patterns in tok.patterns, whose regular expressions are for
short text. Both read the same *class string* (tok.unicode_classes): one ASCII character for each
character of the text, of the same class. ASCII text is its own class string.

    text     Z  o  ë  '  s     2  €     bytes 5a 6f c3 ab 27 73 20 32 e2 82 ac
    class    Z  o  a  '  s     2  !
    kind     L  L  L  O  L  S  N  O     letter, number, white space, other
    start    x        x     x     x     `'s` is a word; a blank takes the run after it along
    bytes    0        4     6     8
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from tok.unicode_classes import LETTER_RUNS, NUMBER_RUNS, SPACE_RUNS, class_members

# Work on blocks that stay in the processor's cache: several times faster than one long array.
BLOCK_BYTES = 1 << 18

SPACE, LETTER, NUMBER, OTHER = 0, 1, 2, 3


class SplitRule(Protocol):
    """What this file needs of tok.patterns.Pattern."""

    @property
    def class_table(self) -> np.ndarray:
        """uint8[CODE_POINTS]: the ASCII character that stands for each code point."""

    @property
    def array_rule(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """bool[C]: where pre-tokens start, from the class string and kinds of C characters."""


def split_starts(raw: bytes, pattern: SplitRule) -> np.ndarray:
    """int64[P]: the byte offset of each pre-token of `raw`, ascending from 0.

    >>> from tok.patterns import GPT2
    >>> split_starts("Zoë's 2€".encode(), GPT2).tolist()
    [0, 4, 6, 8]
    """
    return _split(raw, pattern)[0]


def blocks(
    read: Callable[[int], bytes], pattern: SplitRule, size: int | None = None
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Reads a text in blocks of about `size` bytes, cut where a pre-token starts.

    The patterns never look back: from where a pre-token starts, the rest of the text is split as if
    nothing stood before it. So a block ends at the last start that is certain, and what follows
    goes into the next. A block without one (a very long run of letters) grows by doubling.

    >>> from io import BytesIO
    >>> from tok.patterns import GPT2
    >>> read = BytesIO(b"one two three").read
    >>> [(raw, starts.tolist()) for raw, starts in blocks(read, GPT2, size=6)]
    [(b'one two', [0, 3]), (b' three', [0])]

    Args:
        read: gives at most so many next bytes of the text, b"" at its end.

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
        starts, certain = _split(raw, pattern)
        if not more:
            yield raw, starts
            return
        n_whole = int(np.searchsorted(starts, certain)) - 1  # starts before it, without the last
        if n_whole < 1:
            rest = raw
            continue
        cut = int(starts[n_whole])
        yield raw[:cut], starts[:n_whole]
        rest = raw[cut:]


def _split(raw: bytes, pattern: SplitRule) -> tuple[np.ndarray, int]:
    """The starts, and the byte before which all of them hold, whatever follows on `raw`."""
    if not raw:
        return np.zeros(0, dtype=np.int64), 0
    if raw.isascii():
        class_C, offsets_C = np.frombuffer(raw, dtype=np.uint8), None
    else:
        class_C, offsets_C = _class_string(raw, pattern.class_table)
    kind_C = np.frombuffer(class_C.tobytes().translate(_kinds()), dtype=np.uint8)
    starts_P = np.flatnonzero(pattern.array_rule(class_C, kind_C))
    certain = _last_run(kind_C)
    if offsets_C is None:
        return starts_P, certain
    return offsets_C[starts_P], int(offsets_C[certain])


def _class_string(raw: bytes, class_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8[C]: the class of each character; int64[C]: the byte at which it begins.

    An invalid byte is a character of its own: Python's "surrogateescape" makes U+DC80 + (byte -
    0x80) of it, so that 0xff is U+DCFF, which the table has among "other".
    """
    text = raw.decode("utf-8", "surrogateescape")
    # An array of one string holds its code points. Encoding to UTF-32 would stop at each of those.
    codes_C = np.array([text], dtype=f"<U{len(text)}").view("<u4")
    class_C = class_table.take(codes_C)
    escaped_C = (codes_C >> 7) == 0xDC80 >> 7
    if not escaped_C.any():  # valid UTF-8: characters begin where no continuation byte stands
        return class_C, np.flatnonzero((np.frombuffer(raw, dtype=np.uint8) & 0xC0) != 0x80)
    n_bytes_C = np.ones(len(codes_C), dtype=np.uint8)
    for longer_from in (0x80, 0x800, 0x10000):
        n_bytes_C += codes_C >= longer_from
    n_bytes_C[escaped_C] = 1
    return class_C, np.cumsum(n_bytes_C, dtype=np.int64) - n_bytes_C


@lru_cache(maxsize=1)
def _kinds() -> bytes:
    """The kind of each of the 128 ASCII characters, as a table for bytes.translate."""
    kinds = bytearray([OTHER] * 256)
    for kind, runs in ((SPACE, SPACE_RUNS), (LETTER, LETTER_RUNS), (NUMBER, NUMBER_RUNS)):
        for code in class_members(runs)[:128].nonzero()[0]:
            kinds[code] = kind
    return bytes(kinds)


def _last_run(kind_C: np.ndarray) -> int:
    """The first character of the last run of one kind that is known to have begun.

    Starts before it depend on finished runs only. The last three characters don't count: they may
    be the bytes of a character that is cut off.
    """
    known_C = kind_C[:-3]
    reach = 64
    while True:
        tail = known_C[-reach:]
        changes = np.flatnonzero(tail[1:] != tail[:-1])
        if len(changes):
            return len(known_C) - len(tail) + int(changes[-1]) + 1
        if reach >= len(known_C):
            return 0
        reach *= 8


def _run_starts(kind_C: np.ndarray) -> np.ndarray:
    """bool[C]: True where a run of characters of one kind begins."""
    start_C = np.empty(len(kind_C), dtype=bool)
    start_C[0] = True
    np.not_equal(kind_C[1:], kind_C[:-1], out=start_C[1:])
    return start_C


def gpt2_starts(class_C: np.ndarray, kind_C: np.ndarray) -> np.ndarray:
    r"""bool[C]: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    start_C = _run_starts(kind_C)
    space_C = kind_C == SPACE
    # \s+(?!\S): the last white space before something else stands apart ...
    last_C = space_C[:-1] & ~space_C[1:]
    start_C[:-1] |= last_C
    # ... and if it is a blank, what follows belongs to it.
    start_C[1:] &= ~(last_C & (class_C[:-1] == ord(" ")))
    _cut_contractions(start_C, class_C)
    return start_C


def cl100k_starts(class_C: np.ndarray, kind_C: np.ndarray) -> np.ndarray:
    r"""bool[C]: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
    | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    """
    start_C = _run_starts(kind_C)
    space_C, letter_C, other_C = kind_C == SPACE, kind_C == LETTER, kind_C == OTHER
    newline_C = (class_C == ord("\n")) | (class_C == ord("\r"))
    # \s+(?!\S): the last white space before something else stands apart; newlines don't.
    last_C = space_C[:-1] & ~space_C[1:] & ~newline_C[:-1]
    start_C[:-1] |= last_C
    # What belongs to that last white space: letters to any, others to a blank.
    blank_C = class_C[:-1] == ord(" ")
    start_C[1:] &= ~(last_C & (letter_C[1:] | (blank_C & other_C[1:])))
    # [^\r\n\p{L}\p{N}]?\p{L}+: letters also belong to a single other character, if it is one that
    # no blank has taken.
    start_C[1:] &= ~(letter_C[1:] & other_C[:-1] & start_C[:-1])
    _cut_newlines(start_C, newline_C, space_C, other_C)
    _cut_numbers(start_C, kind_C)
    _cut_contractions(start_C, class_C, ignore_case=True)
    return start_C


def _cut_contractions(
    start_C: np.ndarray, class_C: np.ndarray, *, ignore_case: bool = False
) -> None:
    """'s 't 'm 'd 're 've 'll are pre-tokens where an apostrophe begins one."""
    n = len(class_C)
    at_A = np.flatnonzero(start_C & (class_C == ord("'")))
    at_A = at_A[at_A < n - 1]
    one_A = class_C[at_A + 1]
    two_A = np.where(at_A < n - 2, class_C[np.minimum(at_A + 2, n - 1)], 0)
    if ignore_case:
        one_A, two_A = one_A | 0x20, two_A | 0x20  # ASCII letters in lower case
    short_A = (one_A == ord("s")) | (one_A == ord("t")) | (one_A == ord("m")) | (one_A == ord("d"))
    r_or_v_A = (one_A == ord("r")) | (one_A == ord("v"))
    long_A = (r_or_v_A & (two_A == ord("e"))) | ((one_A == ord("l")) & (two_A == ord("l")))
    start_C[at_A[short_A | long_A] + 1] = False
    for end in (at_A[short_A] + 2, at_A[long_A] + 3):
        start_C[end[end < n]] = True


def _cut_newlines(
    start_C: np.ndarray, newline_C: np.ndarray, space_C: np.ndarray, other_C: np.ndarray
) -> None:
    r"""[^\s\p{L}\p{N}]+[\r\n]* and \s*[\r\n]+: newlines end what they belong to.

    Those right after other characters belong to them. Then white space up to its last newline is
    one pre-token. With "!\n \n  x" the starts are  !\n | " \n" | " " | " x".
    """
    n = len(newline_C)
    start_C[1:] &= ~(newline_C[1:] & other_C[:-1])
    # Only newlines that more white space follows need care: after all others a run starts anyway.
    end_E = np.flatnonzero(newline_C[:-1] & ~newline_C[1:] & space_C[1:]) + 1
    if not len(end_E):
        return
    newlines = np.flatnonzero(newline_C)
    first_newlines = newlines[np.diff(newlines, prepend=-2) > 1]  # of each run of newlines
    run_ends = np.append(np.flatnonzero(space_C[:-1] & ~space_C[1:]) + 1, n)
    next_newline_E = np.append(newlines, n)[np.searchsorted(newlines, end_E)]
    is_last_E = next_newline_E >= run_ends[np.searchsorted(run_ends, end_E, side="right")]
    begin_E = first_newlines[np.searchsorted(first_newlines, end_E) - 1]
    after_other_E = (begin_E > 0) & other_C[begin_E - 1]
    start_C[end_E[is_last_E | after_other_E]] = True


def _cut_numbers(start_C: np.ndarray, kind_C: np.ndarray) -> None:
    r"""\p{N}{1,3}: a run of numbers is cut after every third."""
    number_D = np.flatnonzero(kind_C == NUMBER)
    if not len(number_D):
        return
    index_D = np.arange(len(number_D))
    begins_D = np.diff(number_D, prepend=-2) > 1
    place_D = index_D - np.maximum.accumulate(np.where(begins_D, index_D, 0))  # 0 1 2 3 ... in run
    start_C[number_D[place_D % 3 == 0]] = True
