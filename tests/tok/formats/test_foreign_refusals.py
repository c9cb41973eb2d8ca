"""Files of other projects that can't be represented are errors that name the reason."""

import json
from base64 import b64encode

import pytest

from tests.helpers.hostile import hostile_strings
from tok.errors import TokenizerError
from tok.formats.convert import export_tokenizer, import_tokenizer
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT
from utils.errors import UserError

TRAINED = BPETokenizer.train(hostile_strings(60, seed=2), vocab_size=400)


def assert_rejected(message, paths, **more):
    with pytest.raises(UserError) as caught:
        import_tokenizer(paths, **more)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(", ".join(map(str, paths)))


def set_at(content, path, value):
    *parents, last = path.split(".")
    for name in parents:
        content = content[int(name) if name.isdigit() else name]
    content[int(last) if last.isdigit() else last] = value


SPLIT = "pre_tokenizer.pretokenizers.0"
WRONG_HF = [
    ("model.type", "Unigram", "the model is 'Unigram', not BPE"),
    ("model", None, "the model is None, not BPE"),
    ("model.dropout", 0.1, "model.dropout is 0.1; not supported"),
    (
        "model.dropout",
        ["word"] * 9,
        "model.dropout is ['word', 'word', 'wo…d', 'word', 'word']; not",
    ),
    ("model.byte_fallback", True, "model.byte_fallback is True; not supported"),
    ("model.continuing_subword_prefix", "##", "continuing_subword_prefix is '##'"),
    ("model.end_of_word_suffix", "</w>", "end_of_word_suffix is '</w>'"),
    ("normalizer", {"type": "NFC"}, "normalizer 'NFC' is not supported"),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFD"}]}, "normalizer 'NFD'"),
    ("normalizer", {"type": "Sequence"}, "a Sequence without a list of normalizers"),
    ("normalizer", "NFC", "expected an object, not 'NFC'"),
    ("post_processor", {"type": "TemplateProcessing"}, "post_processor 'TemplateProcessing' is"),
    (
        "post_processor",
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
        "post_processor 'TemplateProcessing' is not supported",
    ),
    ("decoder", {"type": "WordPiece"}, "decoder 'WordPiece' is not supported"),
    ("decoder", None, "there is no decoder"),
    ("truncation", {"max_length": 5}, "truncation is set"),
    ("padding", {}, "padding is set"),
    ("pre_tokenizer", None, "pre_tokenizer none: only ByteLevel, or Split and ByteLevel"),
    ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer Whitespace: only ByteLevel"),
    ("pre_tokenizer", {"type": "ByteLevel"}, "puts a space before the text"),
    ("pre_tokenizer.pretokenizers.1.use_regex", True, "pre_tokenizer must split once"),
    (f"{SPLIT}.type", "Digits", "pre_tokenizer 'Digits' is not supported"),
    (f"{SPLIT}.behavior", "Removed", "Split must be Isolated and not inverted"),
    (f"{SPLIT}.invert", True, "Split must be Isolated and not inverted"),
    (f"{SPLIT}.pattern.Regex", r"\w+", r"pattern '\\w+' is not one of gpt2"),
    (f"{SPLIT}.pattern", {"String": " "}, "pattern None is not one of gpt2"),
    ("added_tokens", [1], "added_tokens must be a list of objects"),
    ("added_tokens.0.lstrip", True, "added token '<|endoftext|>' has lstrip; not supported"),
    ("added_tokens.0.rstrip", True, "has rstrip; not supported"),
    ("added_tokens.0.single_word", True, "has single_word; not supported"),
    ("added_tokens.0.special", False, "is not special; not supported"),
    ("added_tokens.0.id", 7, "has id 7 here, but the library that reads such files gives it 399"),
    ("added_tokens.0.content", "<new>", "'<new>' has id 399 here, but the library"),
    ("added_tokens.0.content", "a", "'a' has id 399 here, but the library"),
    ("added_tokens", [], "no merge makes '<|endoftext|>' (id 399)"),
    ("model.vocab", [], "model.vocab must be an object"),
    ("model.vocab.extra", 400, "no merge makes 'extra' (id 400)"),
    ("model.vocab.extra", 4, "have the same id, 4"),
    ("model.vocab.extra", -1, "an id in the vocabulary is not a whole number in 0 to"),
    ("model.vocab.a", 4000, "without gaps: expected 97, found 98"),
    ("model.merges", {}, "model.merges must be a list"),
    ("model.merges.3", ["a"], "model.merges: merge 3 is not a pair: ['a']"),
    ("model.merges.3", "a b c", "merge 3 is not a pair: 'a b c'"),
    ("model.merges.3", ["q", "q"], "merge 3 makes 'qq', which is not an ordinary token"),
    ("model.merges.5", ["MERGED", "MERGED"], "one is repeated, and only the last counts"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG_HF, ids=[m for _, _, m in WRONG_HF])
def test_an_unsupported_tokenizer_json_is_rejected(tmp_path, path, value, message):
    out = tmp_path / "tokenizer.json"
    export_tokenizer(TRAINED, "hf", out)
    content = json.loads(out.read_bytes())
    if value == ["MERGED", "MERGED"]:
        value = content["model"]["merges"][0]
    set_at(content, path, value)
    out.write_text(json.dumps(content), encoding="utf-8")
    assert_rejected(message, [out])


def test_harmless_differences_of_a_tokenizer_json(tmp_path):
    out = tmp_path / "tokenizer.json"
    export_tokenizer(TRAINED, "hf", out)
    content = json.loads(out.read_bytes())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    content["pre_tokenizer"] = byte_level  # as in GPT-2's file
    content["post_processor"] = byte_level | {"trim_offsets": True}
    content["normalizer"] = {"type": "Sequence", "normalizers": []}
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    content["model"]["unk_token"] = END_OF_TEXT  # nothing is unknown
    content["model"]["continuing_subword_prefix"] = ""
    content["model"]["ignore_merges"] = True  # has no effect here, which is checked
    content["added_tokens"][0]["normalized"] = True
    out.write_text(json.dumps(content), encoding="utf-8")
    assert import_tokenizer([out]) == TRAINED
    more = content["added_tokens"][0] | {"id": 400, "content": "<b>", "normalized": False}
    content["added_tokens"].append(more)
    out.write_text(json.dumps(content), encoding="utf-8")
    assert_rejected("some added tokens are normalized and some are not", [out])
    more["normalized"] = True
    out.write_text(json.dumps(content), encoding="utf-8")
    assert import_tokenizer([out]).special_ids == {END_OF_TEXT: 399, "<b>": 400}


def test_merges_out_of_order_and_ignore_merges(tmp_path):
    out = tmp_path / "tokenizer.json"
    unreachable = BPETokenizer([(97, 98), (98, 99), (97, 257)], [])  # "abc" = "ab" "c"
    assert unreachable.encode("abc") == [256, 99]
    export_tokenizer(unreachable, "hf", out)
    assert import_tokenizer([out]) == unreachable
    content = json.loads(out.read_bytes())
    content["model"]["ignore_merges"] = True
    out.write_text(json.dumps(content), encoding="utf-8")
    assert_rejected("ignore_merges is set, and 'abc' is not what its bytes merge to", [out])
    content["model"]["ignore_merges"] = False
    content["model"]["merges"].reverse()
    out.write_text(json.dumps(content), encoding="utf-8")
    assert_rejected("merge 0 joins 'bc', not made before it", [out])
    content["model"]["merges"] = [["b", "c"], ["a", "b"], ["a", "bc"]]
    out.write_text(json.dumps(content), encoding="utf-8")
    assert_rejected("ids must follow the order of the merges", [out])
    with pytest.raises(TokenizerError, match=r"token 258 \(b'abc'\) is not what its bytes merge"):
        export_tokenizer(unreachable, "tiktoken", tmp_path / "ranks")
    assert not (tmp_path / "ranks").exists()


@pytest.mark.parametrize("kind", ["hf", "gpt2"])
@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (BPETokenizer([(97, 98), (98, 99), (256, 99), (97, 257)], []), "tokens 258 and 259"),
        (BPETokenizer([(97, 98)], ["ab"]), "tokens 256 and 257 are both written 'ab'"),
        (BPETokenizer([], {"Ġ": 0}), "tokens 0 and 33 are both written 'Ġ'"),
    ],
)
def test_two_tokens_with_the_same_printable_text(tmp_path, kind, tokenizer, message):
    with pytest.raises(TokenizerError, match=message):
        export_tokenizer(tokenizer, kind, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_gpt2s_files_have_gpt2s_pattern(tmp_path):
    other = BPETokenizer([], [])
    other.pattern = "cl100k"
    with pytest.raises(TokenizerError, match="pattern cl100k: GPT-2's files are always split by"):
        export_tokenizer(other, "gpt2", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def rank_lines(tokens):
    return b"".join(b64encode(token) + b" %d\n" % rank for rank, token in tokens)


BYTES = [(byte, bytes([byte])) for byte in range(256)]
WRONG_RANKS = [
    (b"", "the 256 single bytes must be there"),
    (b"YQ==\n", "line 1: not a token in base64 and a rank"),
    (b"Y 0\n", "line 1: not a token in base64 and a rank: b'Y 0'"),
    (b"YQ== x\n", "line 1: not a token in base64"),
    (b"YQ== -1\n", "line 1: an empty token or a rank not in 0 to"),
    (rank_lines(BYTES[:10] + BYTES[:1]), "line 11: token b'\\x00' is given twice"),
    (rank_lines(BYTES + [(7, b"ab")]), "rank 7 is given twice"),
    (rank_lines(BYTES[:-1]), "the 256 single bytes must be there"),
    (rank_lines(BYTES[:-1] + [(255, b"ab"), (256, b"\xff")]), "256 single bytes"),
    (
        rank_lines(BYTES + [(257, b"ab")]),
        "expected 256, found 257; if a special token has",
    ),
    (rank_lines(BYTES + [(256, b"abc")]), "token b'abc' can't be made of two tokens of lower rank"),
    (rank_lines(BYTES + [(256, b"ab"), (257, b"bc"), (258, b"abcd")]), "token b'abcd' can't"),
]


@pytest.mark.parametrize(("raw", "message"), WRONG_RANKS, ids=[m for _, m in WRONG_RANKS])
def test_invalid_ranks_are_rejected(tmp_path, raw, message):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(raw)
    assert_rejected(message, [path], pattern="gpt2")


def test_ranks_need_a_pattern_and_ids(tmp_path):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(rank_lines(BYTES + [(257, b"ab")]))
    special = {END_OF_TEXT: 256}
    assert import_tokenizer([path], pattern="gpt2", special=special).special_ids == special
    assert_rejected("does not name its split pattern: add --pattern gpt2", [path], special=special)
    assert_rejected("'<s>' needs its id", [path], pattern="gpt2", special={"<s>": None})
    assert_rejected("unknown pattern 'x'", [path], pattern="x", special=special)
    assert_rejected(
        "id 97 of special token '<s>' is that of another token", [path], special={"<s>": 97}
    )


def test_invalid_gpt2_files_are_rejected(tmp_path):
    encoder, merges = export_tokenizer(TRAINED, "gpt2", tmp_path)
    assert import_tokenizer([merges, encoder]) == TRAINED  # in either order
    assert_rejected("give one file, or GPT-2's two", [encoder, encoder])
    assert_rejected("for GPT-2's encoder.json, give vocab.bpe too", [encoder])
    assert_rejected("--pattern is for tiktoken's ranks", [encoder, merges], pattern="gpt2")
    assert_rejected(
        "encoder.json has the ids; give --special TEXT", [encoder, merges], special={"a": 1}
    )
    assert_rejected("--special '<s>': no such token", [encoder, merges], special={"<s>": None})
    merges.write_bytes(merges.read_bytes().replace(b" ", b"", 2))  # in the version line and line 2
    assert_rejected("line 2 of the merges is not a pair of tokens", [encoder, merges])
    merges.write_bytes(b"\xff")
    assert_rejected("not UTF-8", [encoder, merges])
    named = BPETokenizer(TRAINED.merges, ["<pad>", END_OF_TEXT])
    encoder, merges = export_tokenizer(named, "gpt2", tmp_path / "named")
    assert_rejected("no merge makes '<pad>'", [encoder, merges])
    assert import_tokenizer([encoder, merges], special={"<pad>": None}) == named
    ids = json.loads(encoder.read_bytes())
    del ids["Ġ"]
    encoder.write_text(json.dumps(ids), encoding="utf-8")
    assert_rejected("byte 0x20 ('Ġ') is not a token", [encoder, merges], special={"<pad>": None})
    encoder.write_bytes(b'{"a": 1, "a": 2}')
    assert_rejected("key 'a' given twice", [encoder, merges])
    encoder.write_bytes(b"{")
    assert_rejected("not valid JSON", [encoder, merges])


def test_other_files_are_rejected_by_name(tmp_path):
    path = tmp_path / "tok.json"
    TRAINED.save(path)
    assert_rejected("already a tokenizer of llm-tiny", [path])
    with pytest.raises(UserError, match=r"none\.json: No such file"):
        import_tokenizer([tmp_path / "none.json"])
    with pytest.raises(TokenizerError, match="unknown format 'xml'; known: hf, tiktoken, gpt2"):
        export_tokenizer(TRAINED, "xml", tmp_path / "x")
    out = tmp_path / "tokenizer.json"
    export_tokenizer(TRAINED, "hf", out)
    assert_rejected("--pattern is for tiktoken's ranks", [out], pattern="gpt2")
    assert_rejected("--special is not for a tokenizer.json", [out], special={"a": 1})
