"""Pre-tokens of GPT-2's pattern."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.errors import TokenizerError
from tok.patterns import shadow, split, to_bytes, to_text

# Characters that meet every branch of the pattern, white space and classes beyond ASCII included.
HOSTILE = st.text(
    st.one_of(
        st.sampled_from(
            "a Zs'tdmrevl09 .!\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u3000\u200d\ufeffé年٣²½€😀\x00"
        ),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)

EXAMPLES = [
    ("", []),
    ("Hello world", ["Hello", " world"]),
    (
        "it's we'll I'D o'clock 's",
        ["it", "'s", " we", "'ll", " I", "'", "D", " o", "'", "clock", " '", "s"],
    ),
    ("'sx 'tis", ["'s", "x", " '", "tis"]),
    ("they're've'm'd't", ["they", "'re", "'ve", "'m", "'d", "'t"]),
    ("a1b22", ["a", "1", "b", "22"]),
    ("a  b   c", ["a", " ", " b", "  ", " c"]),
    ("a\n\nb\n", ["a", "\n", "\n", "b", "\n"]),
    ("a \n b", ["a", " \n", " b"]),
    ("end   ", ["end", "   "]),
    ("\ta", ["\t", "a"]),
    ("!? ...x", ["!?", " ...", "x"]),
    ("\x1c\x1d a", ["\x1c\x1d", " a"]),  # not white space in Unicode, though Python's \s takes them
    ("a\xa0b\u3000 c", ["a", "\xa0", "b", "\u3000", " c"]),
    ("é年x ½٣3", ["é年x", " ½٣3"]),
    ("a\x00b", ["a", "\x00", "b"]),
    ("\ufeffa\r\nb", ["\ufeff", "a", "\r", "\n", "b"]),
]


@pytest.mark.parametrize(("text", "pieces"), EXAMPLES)
def test_examples_by_hand(text, pieces):
    assert split(text) == pieces


def test_an_invalid_byte_is_no_letter_number_or_space():
    assert split(to_text(b"ab\xffcd \xff\xfe1")) == ["ab", "\udcff", "cd", " \udcff\udcfe", "1"]


@settings(deadline=None)
@given(HOSTILE)
def test_pieces_join_to_the_text(text):
    pieces = split(text)
    assert "".join(pieces) == text
    assert all(pieces)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_survive(raw):
    assert to_bytes(to_text(raw)) == raw
    assert b"".join(map(to_bytes, split(to_text(raw)))) == raw


def test_ascii_and_other_text_take_the_same_rules():
    for text, pieces in EXAMPLES:
        if text and not text[0].isspace():  # white space would join the line end
            assert split("年\n" + text) == ["年", "\n", *pieces]


def test_shadow_keeps_the_length_and_ascii():
    assert shadow("a'1 \té😀\u3000²") == "a'1 \ta!\t0"


@pytest.mark.parametrize("surrogate", ["\ud800", "\udfff", "\udcff"])
def test_a_lone_surrogate_is_refused_by_its_place(surrogate):
    with pytest.raises(
        TokenizerError, match=rf"lone surrogate U\+{ord(surrogate):04X} at character 2"
    ):
        to_text("aé" + surrogate)


def test_neither_str_nor_bytes_is_refused():
    with pytest.raises(TokenizerError, match="expected str or bytes, got int"):
        to_text(5)


def test_split_is_equal_to_tiktokens():
    """Each piece and each pair of neighbours is a token of its own, so any other split shows."""
    tiktoken = pytest.importorskip(
        "tiktoken", reason="oracle: tiktoken splits with the same pattern"
    )
    import random

    from tok.patterns import PATTERNS

    draw = random.Random(5)
    members = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    common = [ord(c) for c in "aZ'sterdmvl 09 .!\n\t\x1c\xa0\u3000  "]
    texts = ["".join(text for text, _ in EXAMPLES)]
    for _ in range(300):
        pool = (
            draw.choices(members, k=20)
            + draw.choices(common, k=60)
            + draw.choices(range(0x3100), k=30)
        )
        texts.append("".join(map(chr, draw.choices(pool, k=200))))
    pieces = [[piece.encode() for piece in split(text)] for text in texts]
    tokens = {bytes([b]) for b in range(256)}
    for row in pieces:
        tokens.update(row)
        tokens.update(first + second for first, second in pairwise(row))
    ranks = {token: rank for rank, token in enumerate(sorted(tokens, key=lambda t: (len(t), t)))}
    encoding = tiktoken.Encoding(
        "split", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    for text, row in zip(texts, pieces, strict=True):
        assert encoding.encode_ordinary(text) == [ranks[piece] for piece in row]


def test_split_of_plain_text_is_equal_to_hugging_faces():
    tokenizers = pytest.importorskip(
        "tokenizers", reason="oracle: tokenizers splits with the same pattern"
    )
    from tok.patterns import PATTERNS

    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS["gpt2"]), "isolated")
    for text, pieces in EXAMPLES:
        assert [piece for piece, _ in splitter.pre_tokenize_str(text)] == pieces
