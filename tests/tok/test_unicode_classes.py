"""The table of character classes."""

import pytest

from tok.unicode_classes import (
    CODE_POINTS,
    LETTER_RUNS,
    NUMBER_RUNS,
    SPACE_RUNS,
    class_members,
    class_table,
)


def test_classes_are_disjoint_and_have_the_sizes_of_unicode_16():
    letters, numbers, spaces = map(class_members, (LETTER_RUNS, NUMBER_RUNS, SPACE_RUNS))
    assert (letters.sum(), numbers.sum(), spaces.sum()) == (141028, 1911, 25)
    assert not (letters & numbers).any() and not ((letters | numbers) & spaces).any()
    assert letters[0x1C89] and not letters[0x10940]


def test_the_table_is_ascii_and_read_only():
    table = class_table({0x17F: "s"})
    assert table.shape == (CODE_POINTS,) and table.max() < 128
    assert bytes(table[:128]) == bytes(range(128))
    assert (table != class_table({})).nonzero()[0].tolist() == [0x17F] and table[0x17F] == ord("s")
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@pytest.mark.parametrize(
    ("pattern", "runs"), [(r"\p{L}", LETTER_RUNS), (r"\p{N}", NUMBER_RUNS), (r"\s", SPACE_RUNS)]
)
def test_every_code_point_has_the_same_class_as_in_tiktoken(pattern, runs):
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: the table was made from tiktoken")
    # tiktoken drops text that its pattern does not match.
    encoding = tiktoken.Encoding(
        "class",
        pat_str=pattern,
        mergeable_ranks={bytes([b]): b for b in range(256)},
        special_tokens={},
    )
    text = "".join(chr(c) for c in range(CODE_POINTS) if not 0xD800 <= c < 0xE000)
    members = bytes(encoding.encode_ordinary(text)).decode()
    assert [ord(c) for c in members] == class_members(runs).nonzero()[0].tolist()
