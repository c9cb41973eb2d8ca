"""The tokenizer file: round trips, and errors that name what is wrong."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.errors import TokenizerError
from tok.tokenizer import BPETokenizer
from tok.tokenizer_file import identity_of
from utils.errors import UserError

TOKENIZER = BPETokenizer.train(
    "the fox and the river " * 4,
    vocab_size=270,
    special_tokens=["<|endoftext|>", "two words", "ü\n😀"],
)


def saved(tmp_path, tokenizer=TOKENIZER):
    path = tmp_path / "tok.json"
    tokenizer.save(path)
    return path


def rewritten(path, **changes):
    """Change the content of the file and update its identity."""
    content = json.loads(path.read_bytes())
    del content["identity"]
    content.update(changes)
    content = {key: value for key, value in content.items() if value is not ...}
    path.write_text(json.dumps({**content, "identity": identity_of(content)}), encoding="utf-8")
    return path


def test_save_and_load_preserve_everything(tmp_path):
    path = saved(tmp_path)
    loaded = BPETokenizer.load(str(path))
    for name in (
        "merges",
        "special_tokens",
        "pattern",
        "byte_order",
        "vocab_size",
        "identity",
        "eot_id",
    ):
        assert getattr(loaded, name) == getattr(TOKENIZER, name), name
    assert loaded.token_bytes == TOKENIZER.token_bytes
    text = "the river<|endoftext|>two words, ü\n😀"
    for allowed in (False, True, {"two words"}):
        assert loaded.encode(text, allowed_special=allowed) == TOKENIZER.encode(
            text, allowed_special=allowed
        )
    again = tmp_path / "again.json"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@settings(deadline=None, max_examples=50)
@given(
    st.text("ab <", min_size=1, max_size=60),
    st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=4),
    st.text("ab <", max_size=40),
)
def test_save_and_load_preserve_any_tokenizer(tmp_path_factory, corpus, special_tokens, text):
    first = BPETokenizer.train(
        corpus, vocab_size=256 + len(special_tokens), special_tokens=special_tokens
    )
    path = tmp_path_factory.mktemp("reload") / "tok.json"
    first.save(path)
    loaded = BPETokenizer.load(path)
    assert loaded == first and loaded.special_tokens == first.special_tokens
    mixed = text + "".join(special_tokens) + text
    assert loaded.encode(mixed, allowed_special=True) == first.encode(mixed, allowed_special=True)


def test_the_file_is_plain_json_with_the_documented_identity(tmp_path):
    raw = saved(tmp_path).read_bytes()
    content = json.loads(raw)
    assert content["format"] == "llm-tiny tokenizer" and content["version"] == 1
    assert content["pattern"]["name"] == "gpt2" and content["pattern"]["unicode"] == "16.0"
    assert content["byte_order"] == "value" and content["special_tokens"][1] == "two words"
    assert content["merges"] == [list(pair) for pair in TOKENIZER.merges]
    identity = content.pop("identity")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert identity == hashlib.sha256(canonical).hexdigest() == TOKENIZER.identity
    assert raw.isascii() and b"\r" not in raw and raw.endswith(b"}\n")


def test_identity_depends_on_everything_that_determines_ids():
    identities = {
        BPETokenizer([(97, 98)]).identity,
        BPETokenizer([(97, 99)]).identity,
        BPETokenizer([(97, 98), (98, 98)]).identity,
        BPETokenizer([(98, 98), (97, 98)]).identity,
        BPETokenizer([(97, 98)], []).identity,
        BPETokenizer([(97, 98)], ["a", "b"]).identity,
        BPETokenizer([(97, 98)], ["b", "a"]).identity,
    }
    assert len(identities) == 7


def test_a_vocabulary_without_merges_and_special_tokens(tmp_path):
    bare = BPETokenizer([], [])
    assert BPETokenizer.load(saved(tmp_path, bare)) == bare


PATTERN = json.loads(json.dumps(TOKENIZER._content["pattern"]))

WRONG = [
    ({"format": "other"}, 'not a tokenizer file (no "format": "llm-tiny tokenizer")'),
    ({"version": 2}, "format version 2, but this version of llm-tiny reads 1"),
    ({"version": True}, "format version True, but this version of llm-tiny reads 1"),
    ({"version": ...}, "format version None, but this version of llm-tiny reads 1"),
    ({"merges": ...}, "key 'merges' is missing"),
    ({"special_tokens": ...}, "key 'special_tokens' is missing"),
    ({"merges": {}}, "merges must be a list, not {}"),
    ({"byte_order": 5}, "byte_order must be a str or list, not 5"),
    ({"byte_order": "printable"}, "unknown byte order 'printable'; known: value"),
    ({"extra": 1}, "unknown key 'extra'"),
    ({"byte_order": [1, 2]}, "a byte order must be a name or the numbers 0 to 255"),
    ({"special_tokens": 5}, "special_tokens must be a list or dict, not 5"),
    ({"special_tokens": {"a": -1}}, "special token 'a' has id -1; ids are 0 to"),
    ({"special_tokens": {"a": 300, "b": 300}}, "special tokens 'a' and 'b' have the same id, 300"),
    ({"pattern": {**PATTERN, "name": "gpt9"}}, "unknown pattern 'gpt9'; known: gpt2"),
    ({"pattern": {**PATTERN, "name": []}}, "unknown pattern []; known: gpt2"),
    ({"pattern": {**PATTERN, "text": "x"}}, "its pattern 'gpt2' is not the one"),
    ({"pattern": {**PATTERN, "unicode": "15.0"}}, "its pattern 'gpt2' is not the one"),
    ({"merges": [[97, 98], [97]]}, "merge 1 is not a pair of ids: [97]"),
    ({"merges": ["ab"]}, "merge 0 is not a pair of ids: 'ab'"),
    ({"merges": [[97, 256]]}, "merge 0 joins 256, but the ids before it are 0 to 255"),
    ({"merges": [[97, -1]]}, "merge 0 joins -1, but the ids before it are 0 to 255"),
    ({"merges": [[97, 98.0]]}, "merge 0 joins 98.0, but"),
    ({"merges": [[True, 98]]}, "merge 0 joins True, but"),
    ({"merges": [[97, 98], [97, 98]]}, "merge 1 joins 97 and 98, as merge 0 does"),
    ({"merges": [[0, 0]] + [[i, i] for i in range(256, 300)]}, "are longer than"),
    ({"special_tokens": ["a", "a"]}, "special token 'a' is given twice"),
    ({"special_tokens": [1]}, "a special token must be a str that is not empty, not 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_invalid_content_is_an_error_with_the_file_name(tmp_path, changes, message):
    path = rewritten(saved(tmp_path), **changes)
    with pytest.raises(TokenizerError) as caught:
        BPETokenizer.load(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"merges": [[1, 2]'],
    ids=["empty", "cut", "binary", "nested", "cut in merges"],
)
def test_invalid_json_is_rejected(tmp_path, raw):
    path = tmp_path / "tok.json"
    path.write_bytes(raw)
    with pytest.raises(TokenizerError, match=r"tok\.json: not valid JSON: "):
        BPETokenizer.load(path)


@pytest.mark.parametrize("raw", [b"[]", b"5", b"null", b"{}", b'"text"'])
def test_other_json_is_rejected(tmp_path, raw):
    path = tmp_path / "tok.json"
    path.write_bytes(raw)
    with pytest.raises(TokenizerError, match="not a tokenizer file"):
        BPETokenizer.load(path)


def test_a_duplicate_key_is_rejected(tmp_path):
    path = tmp_path / "tok.json"
    path.write_bytes(b'{"version": 1, "version": 1}')
    with pytest.raises(TokenizerError, match="key 'version' given twice"):
        BPETokenizer.load(path)


def test_any_changed_digit_is_detected(tmp_path):
    path = saved(tmp_path)
    raw = path.read_bytes()
    start = raw.index(b'"merges"')
    for i in range(start, len(raw)):
        if raw[i : i + 1].isdigit():
            digit = b"%d" % ((int(raw[i : i + 1]) + 1) % 10)
            path.write_bytes(raw[:i] + digit + raw[i + 1 :])
            with pytest.raises(TokenizerError, match=r"the content has identity|not valid JSON"):
                BPETokenizer.load(path)


def test_missing_file_folder_and_unwritable_path(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        BPETokenizer.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="Is a directory"):
        BPETokenizer.load(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        TOKENIZER.save(tmp_path / "none" / "tok.json")
    assert list(tmp_path.iterdir()) == []
