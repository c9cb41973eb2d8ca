"""Pre-tokens of GPT-2's pattern, and properties of every pattern in the registry."""

import ast
import dataclasses
import random
import re
from collections import Counter
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.helpers.hostile import hostile_strings
from tests.helpers.pretokens import as_dict
from tok.errors import TokenizerError
from tok.formats.convert import export_tokenizer, import_tokenizer
from tok.patterns import PATTERNS, Pattern, class_string, find_pattern, split, to_bytes, to_text
from tok.split_arrays import blocks, split_starts
from tok.tokenizer import BPETokenizer
from tok.training.count_files import count_texts
from tok.unicode_classes import class_table

# Characters that reach every branch of the patterns, with non-ASCII white space and classes.
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
    ("\x1c\x1d a", ["\x1c\x1d", " a"]),  # not white space in Unicode, but matched by Python's \s
    ("a\xa0b\u3000 c", ["a", "\xa0", "b", "\u3000", " c"]),
    ("é年x ½٣3", ["é年x", " ½٣3"]),
    ("a\x00b", ["a", "\x00", "b"]),
    ("\ufeffa\r\nb", ["\ufeff", "a", "\r", "\n", "b"]),
]


@pytest.mark.parametrize(("text", "pretokens"), EXAMPLES)
def test_examples_by_hand(text, pretokens):
    assert split(text) == pretokens


def test_an_invalid_byte_is_not_a_letter_number_or_space():
    assert split(to_text(b"ab\xffcd \xff\xfe1")) == ["ab", "\udcff", "cd", " \udcff\udcfe", "1"]


@settings(deadline=None)
@given(HOSTILE)
def test_pretokens_join_to_the_text(text):
    pretokens = split(text)
    assert "".join(pretokens) == text
    assert all(pretokens)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_preserved(raw):
    assert to_bytes(to_text(raw)) == raw
    assert b"".join(map(to_bytes, split(to_text(raw)))) == raw


def test_ascii_and_other_text_follow_the_same_rules():
    for text, pretokens in EXAMPLES:
        if text and not text[0].isspace():  # leading white space would join the newline
            assert split("年\n" + text) == ["年", "\n", *pretokens]


def test_a_class_string_preserves_length_and_ascii():
    assert class_string("a'1 \té😀\u3000²") == "a'1 \ta!\t0"


@pytest.mark.parametrize("surrogate", ["\ud800", "\udfff", "\udcff"])
def test_a_lone_surrogate_is_an_error_with_its_position(surrogate):
    with pytest.raises(
        TokenizerError, match=rf"lone surrogate U\+{ord(surrogate):04X} at character 2"
    ):
        to_text("aé" + surrogate)


def test_other_types_are_rejected():
    with pytest.raises(TokenizerError, match="expected str or bytes, got int"):
        to_text(5)


# -- the three forms of every registered pattern ---------------------------------------------------

REAL = (ROOT / "data" / "tiny.txt").read_text(encoding="utf-8")[:60_000]
CODE = """def f(x):\r\n\treturn {"it's": x**2, 'DON'T': 0x1F}  # ſ 12345\r\n\r\n   \n"""
REGEX_TEXTS = ["", *(text for text, _ in EXAMPLES), REAL, CODE * 700, "\n".join([REAL, CODE] * 3)]
REGEX_TEXTS += hostile_strings(1500)
patterns = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=list(PATTERNS))


def by_array_rule(text, pattern):
    """Return the pre-tokens of the array rule; check that any block size gives the same ones."""
    raw = text.encode()
    starts = [*split_starts(raw, pattern).tolist(), len(raw)]
    found = [raw[start:end].decode() for start, end in pairwise(starts)]
    for size in (200, 10_000) if len(raw) > 200 else ():
        in_blocks = []
        for block, starts_P in blocks(BytesIO(raw).read, pattern, size):
            bounds = [*starts_P.tolist(), len(block)]
            in_blocks += [block[start:end].decode() for start, end in pairwise(bounds)]
        assert in_blocks == found
    return found


def random_text(seed, n=20_000):
    """Return random code points except surrogates, common ones more often."""
    rng = random.Random(seed)
    common = [ord(c) for c in "aZ'sterdmvl 09 .!\n\r\t\x1c\xa0\u3000  ſ"]
    codes = rng.choices(common, k=n) + rng.choices(range(0x3100), k=n // 2)
    codes += [c for c in rng.choices(range(0x110000), k=n // 4) if not 0xD800 <= c < 0xE000]
    rng.shuffle(codes)
    return "".join(map(chr, codes))


def as_unicode_16(text, regex):
    """Replace characters whose class differs in the Unicode version of the regex module."""
    classes = {"a": r"\p{L}", "0": r"\p{N}", "\t": r"\s", "!": r"[^\p{L}\p{N}\s]"}
    table = class_table({})
    beyond_ascii = {c for c in text if not c.isascii()}
    other = {c for c in beyond_ascii if not regex.match(classes[chr(table[ord(c)])], c)}
    return text.translate({ord(c): "!" for c in other})


@patterns
def test_the_three_forms_agree(pattern):
    """The published regex in the regex module, the class regex and the array rule."""
    regex = pytest.importorskip("regex", reason="oracle: the regex module knows \\p{L}")
    find_all = regex.compile(pattern.regex).findall
    for text in [*REGEX_TEXTS, *map(random_text, range(3))]:
        text = as_unicode_16(text, regex)
        assert split(text, pattern) == find_all(text)
        assert by_array_rule(text, pattern) == find_all(text)


@patterns
@settings(deadline=None)
@given(text=HOSTILE)
def test_two_forms_agree_on_any_text(pattern, text):
    assert by_array_rule(text, pattern) == split(text, pattern)


@patterns
def test_every_equivalent_regex_splits_identically(pattern):
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers runs the equivalents")
    text = REAL[:5000] + CODE + random_text(4, 2000)  # not at the end of a text: see PATTERNS
    for regex in (pattern.regex, *pattern.equivalents):
        assert find_pattern(regex) is pattern
        splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
        found = [pretoken for pretoken, _ in splitter.pre_tokenize_str(text + "x")]
        assert found == split(text + "x", pattern)
    assert find_pattern(None) is None and find_pattern("x") is None


@patterns
def test_tiktoken_splits_identically(pattern):
    """Every pre-token and every pair of neighbours is a token, so any other split is visible."""
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: tiktoken splits with the pattern")
    for text in (REAL, CODE * 50 + "x", random_text(5) + "x", "".join(t for t, _ in EXAMPLES)):
        pretokens = [pretoken.encode() for pretoken in by_array_rule(text, pattern)]
        tokens = {bytes([b]) for b in range(256)} | set(pretokens)
        tokens.update(first + second for first, second in pairwise(pretokens))
        ranked = sorted(tokens, key=lambda token: (len(token), token))
        ranks = {token: rank for rank, token in enumerate(ranked)}
        encoding = tiktoken.Encoding(
            "split", pat_str=pattern.regex, mergeable_ranks=ranks, special_tokens={}
        )
        assert encoding.encode_ordinary(text) == [ranks[pretoken] for pretoken in pretokens]


@patterns
def test_a_text_may_be_split_at_every_safe_cut(pattern):
    texts = [REAL[:3000], CODE * 3, random_text(6, 400), *hostile_strings(100)]
    for raw in (text.encode() for text in texts):
        whole = set(split_starts(raw, pattern).tolist())
        cuts = [found.end() for found in pattern.safe_cut.finditer(raw)]
        assert set(cuts) <= whole
        for cut in cuts[:20]:
            rest = {cut + start for start in split_starts(raw[cut:], pattern).tolist()}
            assert rest == {start for start in whole if start >= cut}


# -- a third pattern -------------------------------------------------------------------------------


def by_character(ascii_C, class_C):
    """An array rule: every character is a pre-token."""
    return np.ones(len(ascii_C), dtype=bool)


CHARACTERS = Pattern(
    name="characters",
    regex=r"(?s:.)",
    equivalents=(),
    class_regex=re.compile(r"(?s:.)"),
    array_rule=by_character,
    exceptions={},
    safe_cut=re.compile(rb"(?s:[\x00-\x7f])"),
)


def test_no_form_of_a_pattern_has_a_default_or_is_shared():
    fields = {field.name for field in dataclasses.fields(Pattern)}
    for field in fields:
        missing = {name: getattr(CHARACTERS, name) for name in fields - {field}}
        with pytest.raises(TypeError, match=field):
            Pattern(**missing)
    for name, pattern in PATTERNS.items():
        assert pattern.name == name
    for form in ("regex", "class_regex", "array_rule"):
        assert len({getattr(pattern, form) for pattern in PATTERNS.values()}) == len(PATTERNS)


def test_a_third_pattern_is_used_everywhere(monkeypatch, tmp_path):
    """For short and long text, in counting, encoding, files and export."""
    monkeypatch.setitem(PATTERNS, "characters", CHARACTERS)
    monkeypatch.setattr("tok.training.count_files.PART_BYTES", 5000)
    text = REAL[:20_000] + "é年😀 \n12345 it's"
    raw = text.encode()
    for workers in (1, 2):
        counts = as_dict(count_texts([raw], "characters", workers))
        assert counts == Counter(c.encode() for c in text)
    tokenizer = BPETokenizer([(97, 98), (32, 97), (0xC3, 0xA9)], pattern="characters")
    expected = [i for c in text for i in ([258] if c == "é" else c.encode())]
    assert tokenizer.encode_array(text).tolist() == expected
    short = [tokenizer.encode(line) for line in text.splitlines(keepends=True)]
    assert sum(short, []) == expected
    tokenizer.save(tmp_path / "tok.json")
    assert BPETokenizer.load(tmp_path / "tok.json") == tokenizer
    export_tokenizer(tokenizer, "hf", tmp_path / "hf.json")
    assert import_tokenizer([tmp_path / "hf.json"]) == tokenizer
    with pytest.raises(TokenizerError, match="pattern characters: GPT-2's files"):
        export_tokenizer(tokenizer, "gpt2", tmp_path / "gpt2")


def test_no_code_compares_pattern_names():
    """Such a branch would apply the rule of another pattern to a new one."""
    found = []
    for path in sorted((ROOT / "tok").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Compare) and "pattern" in ast.unparse(node):
                names = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                found += [f"{path.name}:{node.lineno}"] if names & set(PATTERNS) else []
    assert not found
