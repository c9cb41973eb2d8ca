"""Pre-tokens of the array rules, compared with regular expressions and other libraries."""

import random
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.patterns import GPT2, PATTERNS, split, to_bytes, to_text
from tok.split_arrays import BLOCK_BYTES, blocks, split_starts
from tok.unicode_classes import LONG_S, NUMBER_RUNS, class_members

PARTS = [
    *"a Zs'tdmrevlSTL09 .!\t\n\r\x07\x0b\x1c\x85\xa0\u3000\u200dé年٣²½€😀\x00ſ\ufeff",
    *["'s", "'LL", "'ſ", " '", "  ", "\n\n", "\r\n ", "1234", b"\xff", b"\xe5\xb9", b"\xf0\x9f"],
]
RAW = st.lists(st.sampled_from(PARTS), max_size=30).map(
    lambda parts: b"".join(p if isinstance(p, bytes) else p.encode() for p in parts)
)
patterns = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=list(PATTERNS))


def split_at(raw, starts):
    return [raw[start:end] for start, end in pairwise([*starts.tolist(), len(raw)])]


def by_regex(raw, pattern):
    return [to_bytes(pretoken) for pretoken in split(to_text(raw), pattern)]


def by_blocks(raw, pattern, size):
    found = list(blocks(BytesIO(raw).read, pattern, size))
    assert all(block and starts[0] == 0 for block, starts in found)
    return [pretoken for block, starts in found for pretoken in split_at(block, starts)]


@patterns
@settings(deadline=None, max_examples=500)
@given(raw=RAW | st.binary(max_size=40), size=st.integers(1, 12))
def test_equal_to_the_regular_expression_for_any_block_size(pattern, raw, size):
    expected = by_regex(raw, pattern)
    assert split_at(raw, split_starts(raw, pattern)) == expected
    assert by_blocks(raw, pattern, size) == expected


@patterns
def test_block_boundaries_at_every_position_of_a_text(pattern):
    raw = (
        "I've 12345 'tis ſ''ll!\n\r\n \t\n  DON'T\u3000年号 😀's  €\n".encode() + b"\xe5\xb9x \xff"
    )
    expected = by_regex(raw, pattern)
    for size in range(1, len(raw) + 2):
        assert by_blocks(raw, pattern, size) == expected, size


@patterns
@pytest.mark.parametrize("unit", ["a", " ", "年", "\n", "0", "!", "'", b"\xff", b"\xe5\xb9"])
def test_text_without_a_final_start_is_split_too(pattern, unit):
    raw = (unit if isinstance(unit, bytes) else unit.encode()) * 3000 + b"x y"
    assert by_blocks(raw, pattern, 16) == by_regex(raw, pattern)


def test_a_short_read_does_not_end_the_text():
    raw = b"one two  three 'll" * 3
    left = BytesIO(raw)
    found = list(blocks(lambda n: left.read(min(n, 3)), GPT2, 10))
    assert [p for block, starts in found for p in split_at(block, starts)] == by_regex(raw, GPT2)


def test_blocks_have_about_the_requested_size():
    sizes = [len(raw) for raw, _ in blocks(BytesIO(b"one two three " * 100_000).read, GPT2)]
    assert all(abs(size - BLOCK_BYTES) < 20 for size in sizes[:-2])
    sizes = [len(raw) for raw, _ in blocks(BytesIO(b"a" * 5000 + b" b" * 5000).read, GPT2, size=64)]
    assert max(sizes) < 20_000 and max(sizes[-5:]) < 100  # small again after the long run


def test_empty():
    assert split_starts(b"", GPT2).tolist() == [] and not list(blocks(BytesIO(b"").read, GPT2))


@patterns
def test_equal_to_the_regex_module(pattern):
    regex = pytest.importorskip("regex", reason="oracle: the regex module knows \\p{L}")
    find_all = regex.compile(pattern.regex).findall
    rng = random.Random(3)
    texts = [part for part in PARTS if isinstance(part, str)]
    for _ in range(3000):
        text = "".join(rng.choices(texts, k=rng.randrange(1, 30)))
        raw = text.encode()
        assert split_at(raw, split_starts(raw, pattern)) == [p.encode() for p in find_all(text)]


@patterns
def test_equal_to_tiktoken_on_many_code_points(pattern):
    """Every pre-token and every pair of neighbours is a token, so tiktoken merges no pre-tokens."""
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: tiktoken splits by the pattern")
    rng = random.Random(4)
    codes = [*range(0x3000), *rng.choices(range(0x3000, 0xD800), k=5000), *range(0x1D000, 0x1FC00)]
    text = "".join(chr(c) + rng.choice(["", "", " ", "'s", "1", "\n", "!"]) for c in codes)
    raw = text.encode()
    pretokens = split_at(raw, split_starts(raw, pattern))
    tokens = {bytes([b]) for b in range(256)} | set(pretokens)
    tokens.update(first + second for first, second in pairwise(pretokens))
    ranks = {token: rank for rank, token in enumerate(sorted(tokens, key=lambda t: (len(t), t)))}
    encoding = tiktoken.Encoding(
        "split", pat_str=pattern.regex, mergeable_ranks=ranks, special_tokens={}
    )
    expected = np.array([ranks[pretoken] for pretoken in pretokens], dtype=np.uint32)
    assert np.array_equal(encoding.encode_to_numpy(text), expected)


def test_cl100k_examples_by_hand():
    text = "I'VE 12345 'tis (a) \n\n  x!\n\n y ٣٣٣٣ it'\u017f"
    expected = "I|'VE| |123|45| '|tis| (|a|)| \n\n| | x|!\n\n| y| |٣٣٣|٣| it|'\u017f"
    raw = text.encode()
    assert b"|".join(split_at(raw, split_starts(raw, PATTERNS["cl100k"]))).decode() == expected


def test_the_long_s_is_the_only_other_letter_that_matches_a_contraction():
    folding = [c for c in range(128, 0x110000) if chr(c).casefold() in set("stmdrevl")]
    assert folding == [LONG_S]
    assert not class_members(NUMBER_RUNS)[LONG_S]
