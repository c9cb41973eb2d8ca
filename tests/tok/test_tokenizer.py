"""BPETokenizer: round trips, special tokens, properties, hostile input, committed vocabulary."""

import copy
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tok.errors import TokenizerError
from tok.tokenizer import END_OF_TEXT, BPETokenizer
from utils.errors import UserError

CORPUS = (
    "Once upon a time there was a fox. It's the fox who'd sing; the fox sang 12 songs in 2024.\n"
    "Zoë found 年号 and 😀 by the river.\r\n\tThe river, the river!  <|endoftext|> the end\n"
) * 3
TOKENIZER = BPETokenizer.train(CORPUS, vocab_size=330)

ANY_TEXT = st.one_of(
    st.text(max_size=80),
    st.text("the fox rive'sd \n<|endoftext|>😀年é", max_size=80),
    st.sampled_from(
        ["\ufeffBOM", "a\r\nb\rc\n", "\x00\x00 \x00", "", " ", "👨‍👩‍👧 🇩🇪", "年号" * 9]
    ),
)


@settings(deadline=None)
@given(ANY_TEXT)
def test_text_round_trip(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= token_id < TOKENIZER.eot_id for token_id in ids)
    assert TOKENIZER.byte_lengths[ids].sum() == len(text.encode())
    array = TOKENIZER.encode_array(text)
    assert array.dtype == np.uint16 and array.tolist() == ids
    assert TOKENIZER.decode(array) == text


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80))
def test_bytes_round_trip(raw):
    ids = TOKENIZER.encode_bytes(raw)
    assert TOKENIZER.decode_bytes(ids) == raw
    assert TOKENIZER.decode(ids) == raw.decode("utf-8", "replace")
    assert TOKENIZER.byte_lengths[ids].sum() == len(raw)
    assert TOKENIZER.encode_array(raw).tolist() == ids


@settings(deadline=None)
@given(st.text(max_size=60))
def test_text_and_its_bytes_have_the_same_ids(text):
    assert TOKENIZER.encode(text) == TOKENIZER.encode(text.encode())


@settings(deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40))
def test_any_ids_decode(ids):
    raw = b"".join(TOKENIZER.token_bytes[token_id] for token_id in ids)
    assert TOKENIZER.decode_bytes(ids) == raw
    assert TOKENIZER.decode(iter(ids)) == raw.decode("utf-8", "replace")


def test_merging_compresses():
    assert len(TOKENIZER.encode(CORPUS)) < len(CORPUS) / 2


def test_properties():
    assert TOKENIZER.vocab_size == 330 == len(TOKENIZER.token_bytes)
    assert TOKENIZER.token_bytes[:256] == [bytes([b]) for b in range(256)]
    assert TOKENIZER.special_tokens == (END_OF_TEXT,) and TOKENIZER.eot_id == 329
    assert TOKENIZER.token_bytes[329] == b"<|endoftext|>"
    assert TOKENIZER.byte_lengths.dtype == np.int64 and TOKENIZER.byte_lengths[329] == 0
    assert TOKENIZER.byte_lengths[:329].tolist() == list(map(len, TOKENIZER.token_bytes[:329]))
    with pytest.raises(ValueError, match="read-only"):
        TOKENIZER.byte_lengths[0] = 2
    assert repr(TOKENIZER).startswith("BPETokenizer(vocab_size=330, identity=")


def test_array_type_depends_on_the_vocabulary_size():
    largest_uint16 = BPETokenizer([], special_tokens=[f"<{i}>" for i in range(65536 - 256)])
    assert largest_uint16.encode_array("a").dtype == np.uint16
    wide = BPETokenizer([], special_tokens=[f"<{i}>" for i in range(65537 - 256)])
    last = f"<{65536 - 256}>"
    ids = wide.encode_array("a" + last, allowed_special={last})
    assert ids.dtype == np.uint32 and ids.tolist() == [97, 65536]


# -- special tokens --------------------------------------------------------------------------------


def test_special_tokens_in_text_are_plain_text_by_default():
    text = "one<|endoftext|>two"
    plain = TOKENIZER.encode(text)
    assert TOKENIZER.eot_id not in plain
    allowed = TOKENIZER.encode(text, allowed_special=True)
    assert allowed == TOKENIZER.encode("one") + [TOKENIZER.eot_id] + TOKENIZER.encode("two")
    assert TOKENIZER.encode(text, allowed_special={END_OF_TEXT}) == allowed
    assert TOKENIZER.encode(text, allowed_special=set()) == plain
    assert TOKENIZER.encode(text.encode(), allowed_special=True) == allowed
    assert TOKENIZER.encode_array(text, allowed_special=True).tolist() == allowed
    assert TOKENIZER.decode(plain) == TOKENIZER.decode(allowed) == text


def test_only_allowed_special_tokens_are_recognised_longest_first():
    tokenizer = BPETokenizer([], ["<a>", "<a> b", "two words", ".*", "😀"])
    encode = tokenizer.encode
    assert encode("<a> b<a>", allowed_special=True) == [257, 256]
    assert encode("<a> b", allowed_special={"<a>"}) == [256, *b" b"]
    assert encode("two words.*x😀", allowed_special=True) == [258, 259, 120, 260]
    assert encode("two words", allowed_special=["<a>"]) == list(b"two words")
    assert tokenizer.decode([256, 258, 260]) == "<a>two words😀"
    assert tokenizer.byte_lengths[256:].tolist() == [0] * 5


def test_bytes_next_to_a_special_token_may_be_invalid():
    raw = b"\xff<|endoftext|>\xe5\xb9"
    ids = TOKENIZER.encode(raw, allowed_special=True)
    assert ids.count(TOKENIZER.eot_id) == 1 and TOKENIZER.decode_bytes(ids) == raw


def test_without_the_end_of_text_token_there_is_no_eot_id():
    with pytest.raises(TokenizerError, match=r"no special token <\|endoftext\|>"):
        _ = BPETokenizer([], []).eot_id


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ({"<nope>"}, "'<nope>' is not a special token"),
        ("<|endoftext|>", "must be True, False or a set"),
    ],
)
def test_bad_allowed_special(allowed, message):
    with pytest.raises(TokenizerError, match=message):
        TOKENIZER.encode("a", allowed_special=allowed)


# -- mistakes --------------------------------------------------------------------------------------


def test_errors_are_value_errors_and_user_errors():
    assert issubclass(TokenizerError, ValueError) and issubclass(TokenizerError, UserError)


@pytest.mark.parametrize("ids", [[0, 330], [-1], np.array([330]), [0, 10**30]])
def test_an_id_out_of_range_is_named(ids):
    with pytest.raises(ValueError, match=rf"id {ids[-1]} is out of range: the ids are 0 to 329"):
        TOKENIZER.decode(ids)


@pytest.mark.parametrize("ids", [["a"], [1.0], [None]])
def test_an_id_must_be_an_int(ids):
    with pytest.raises(ValueError, match="an id must be an int, not"):
        TOKENIZER.decode_bytes(ids)


@pytest.mark.parametrize("text", ["ab\ud800", "\udcff"])
def test_a_lone_surrogate_is_rejected(text):
    for call in (TOKENIZER.encode, TOKENIZER.encode_array):
        with pytest.raises(ValueError, match="lone surrogate"):
            call(text)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPETokenizer.train(text, vocab_size=257)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"vocab_size": 256},
            "vocabulary 256 is too small: 256 bytes and 1 special token need at least 257",
        ),
        ({"vocab_size": 257, "special_tokens": ["a", "b"]}, "2 special tokens need at least 258"),
        (
            {"vocab_size": 5000},
            "5000 can't be filled: this corpus gives at most 259; .* or set vocab_size 259$",
        ),
        ({"vocab_size": 300.0}, "must be a whole number, not 300.0"),
        ({"vocab_size": True}, "must be a whole number, not True"),
        ({"vocab_size": 300, "special_tokens": "<x>"}, "must be a list of str, not '<x>'"),
        ({"vocab_size": 300, "special_tokens": ["a", "a"]}, "special token 'a' is given twice"),
        ({"vocab_size": 300, "special_tokens": [""]}, "a str that is not empty, not ''"),
        ({"vocab_size": 300, "special_tokens": [5]}, "a str that is not empty, not 5"),
        ({"vocab_size": 300, "special_tokens": ["\ud800"]}, "holds a lone surrogate"),
    ],
)
def test_bad_training_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train("abc", **arguments)


@pytest.mark.parametrize("text", ["", b"", [], ["", b""]])
def test_an_empty_corpus_is_rejected(text):
    with pytest.raises(ValueError, match="no text to train on"):
        BPETokenizer.train(text, vocab_size=257)


def test_a_corpus_of_another_type_is_rejected():
    with pytest.raises(ValueError, match="expected str or bytes, got int"):
        BPETokenizer.train([1], vocab_size=257)


@pytest.mark.parametrize("setting", ["pattern", "byte_order"])
def test_unknown_settings(setting):
    with pytest.raises(ValueError, match=r"unknown .* 'nope'; known: "):
        BPETokenizer([], **{setting: "nope"})


# -- files -----------------------------------------------------------------------------------------


def test_train_files_equals_train(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes(CORPUS.encode())
    second.write_bytes(b"\xef\xbb\xbfthe fox\r\n")
    trained = BPETokenizer.train_files([first, str(second)], vocab_size=300)
    assert trained == BPETokenizer.train([CORPUS, "\ufeffthe fox\r\n"], vocab_size=300)
    assert trained != TOKENIZER and trained != "text"
    assert len({trained, copy.copy(trained), TOKENIZER}) == 2


def test_train_files_rejects_invalid_utf8_unless_errors_is_bytes(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 caf\xe9")
    with pytest.raises(UserError, match=r"latin\.txt: not UTF-8 at byte 3 \(0xe9\)"):
        BPETokenizer.train_files([path], vocab_size=260)
    tokenizer = BPETokenizer.train_files([path], vocab_size=260, errors="bytes")
    assert tokenizer.encode(b"caf")[0] >= 256
    with pytest.raises(ValueError, match="errors must be 'strict' or 'bytes'"):
        BPETokenizer.train_files([path], vocab_size=260, errors="ignore")
    with pytest.raises(UserError, match=r"none\.txt: No such file"):
        BPETokenizer.train_files([tmp_path / "none.txt"], vocab_size=260)


def test_pickle_and_copy_preserve_the_tokenizer():
    other = BPETokenizer(TOKENIZER.merges, ["<x>", END_OF_TEXT])
    for same in (pickle.loads(pickle.dumps(other)), copy.deepcopy(other)):  # noqa: S301
        assert same == other and same.special_tokens == other.special_tokens
        assert same.encode(CORPUS) == other.encode(CORPUS)


def test_the_file_does_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; from tok.tokenizer import BPETokenizer; "
        "BPETokenizer.train_files([sys.argv[1]], vocab_size=320).save(sys.argv[2])"
    )
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(CORPUS.encode())
    files = []
    for seed in ("0", "1", "4242"):
        out = tmp_path / f"{seed}.json"
        subprocess.run(
            [sys.executable, "-c", code, str(corpus), str(out)],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_the_committed_vocabulary_is_reproducible_from_the_committed_corpus(tmp_path):
    """The docstring of tok/tokenizer.py has the command that makes tok/bpe.json.

    python -m tok.bpe train data/tiny.txt --vocab-size 2048 --out tok/bpe.json
    """
    committed = BPETokenizer.load(ROOT / "tok/bpe.json")
    assert committed.vocab_size == 2048
    again = BPETokenizer.train_files([ROOT / "data/tiny.txt"], vocab_size=committed.vocab_size)
    again.save(tmp_path / "bpe.json")
    assert (tmp_path / "bpe.json").read_bytes() == (ROOT / "tok/bpe.json").read_bytes()


# -- hostile input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit", ["a", " ", "年号文字列", "the river", "!?", "\n", "\udcff"], ids=ascii
)
def test_encoding_one_long_pretoken_takes_linear_time(unit):
    raw = (unit.replace(" ", "") or unit).encode("utf-8", "surrogateescape")
    raw *= (1_000_000 if unit == "a" else 300_000) // len(raw)
    tokenizer = BPETokenizer.train([CORPUS, raw[:5000]], vocab_size=330)
    start = time.perf_counter()
    ids = tokenizer.encode_array(raw)
    assert time.perf_counter() - start < 10
    assert len(ids) < len(raw) / 2 and tokenizer.decode_bytes(ids) == raw


def test_training_on_one_long_pretoken_takes_linear_time():
    rng = np.random.default_rng(0)
    raw = bytes(rng.integers(97, 123, 100_000, dtype=np.uint8))
    start = time.perf_counter()
    BPETokenizer.train(raw, vocab_size=1200)
    assert time.perf_counter() - start < 10
