"""Our files in other libraries and their files here give the same ids for hostile texts."""

import json
from functools import cache

import pytest

from tests.helpers.corpora import corpus_path
from tests.helpers.hostile import hostile_strings
from tok.formats.convert import export_tokenizer, import_tokenizer
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer

END = "<|endoftext|>"
SPECIAL = [END, "<|pad|>", "two words"]
COUNTS = [300, pytest.param(20_000, marks=pytest.mark.slow)]
MAKES = ["value", "gpt2", "specials first", "holes", "shuffled", "gpt2 ranks"]
PATTERNED = [*MAKES, "cl100k"]  # formats other than GPT-2's, which has one pattern


@pytest.fixture(scope="module")
def make():
    """make(name): a tokenizer of each kind that our format can represent."""
    corpus = hostile_strings(400, seed=5)
    merges = {
        order: BPETokenizer.train(corpus, vocab_size=900, special_tokens=[], byte_order=order)
        for order in ("value", "gpt2")
    }

    @cache
    def one(name):
        if name in merges:
            return BPETokenizer(merges[name].merges, SPECIAL, byte_order=name)
        if name == "cl100k":
            return BPETokenizer(merges["value"].merges, SPECIAL, pattern="cl100k")
        if name == "specials first":
            ids = {token: i for i, token in enumerate(SPECIAL)}
            return BPETokenizer(merges["gpt2"].merges, ids, byte_order="gpt2")
        if name == "holes":  # as in cl100k and p50k: in the middle, after a gap, after another gap
            return BPETokenizer(
                merges["value"].merges, {"<|pad|>": 700, END: 910, "two words": 950}
            )
        if name == "shuffled":
            order = [(7 * byte + 3) % 256 for byte in range(256)]
            return BPETokenizer(merges["value"].merges, SPECIAL, byte_order=order)
        ranks = corpus_path("gpt2_r50k.tiktoken")
        return import_tokenizer([ranks], pattern="gpt2", special={END: 50256})

    return one


def in_tiktoken(tokenizer, path):
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: tiktoken with our export")
    load = pytest.importorskip("tiktoken.load", reason="oracle: tiktoken with our export")
    export_tokenizer(tokenizer, "tiktoken", path)
    return tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS[tokenizer.pattern].regex,
        mergeable_ranks=load.load_tiktoken_bpe(str(path)),
        special_tokens=tokenizer.special_ids,
    )


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", PATTERNED)
def test_tiktoken_gives_the_same_ids(make, tmp_path, name, count):
    ours = make(name)
    theirs = in_tiktoken(ours, tmp_path / "ranks.tiktoken")
    assert theirs.n_vocab == ours.vocab_size
    for text in hostile_strings(count):
        assert ours.encode(text) == theirs.encode_ordinary(text)
        ids = ours.encode(text, allowed_special=True)
        assert ids == theirs.encode(text, allowed_special="all")
        assert ours.decode(ids) == theirs.decode(ids) == text


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", PATTERNED)
def test_hugging_face_gives_the_same_ids(make, tmp_path, name, count):
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers with our export")
    ours = make(name)
    export_tokenizer(ours, "hf", tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    used = sum(map(bool, ours.token_bytes))
    assert theirs.get_vocab_size() == used
    assert {token: theirs.token_to_id(token) for token in ours.special_ids} == ours.special_ids
    texts = hostile_strings(count)
    for text, encoding in zip(texts, theirs.encode_batch(texts)):
        assert ours.encode(text, allowed_special=True) == encoding.ids
        assert theirs.decode(encoding.ids, skip_special_tokens=False) == text
    theirs.encode_special_tokens = True
    for text, encoding in zip(texts, theirs.encode_batch(texts)):
        assert ours.encode(text) == encoding.ids
    # The file that the library writes is the same tokenizer.
    theirs.encode_special_tokens = False
    theirs.save(str(tmp_path / "theirs.json"))
    assert import_tokenizer([tmp_path / "theirs.json"]) == ours


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", MAKES)
def test_gpt2s_two_files_give_the_same_ids(make, tmp_path, name, count):
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers with our export")
    ours = make(name)
    encoder, merges = export_tokenizer(ours, "gpt2", tmp_path / "gpt2")
    model = tokenizers.models.BPE.from_file(str(encoder), str(merges))
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = hostile_strings(count)
    for text, encoding in zip(texts, theirs.encode_batch(texts)):
        assert ours.encode(text) == encoding.ids


@pytest.mark.parametrize("name", ["gpt2", "gpt2 ranks"])
def test_tiktoken_reads_gpt2s_two_files(make, tmp_path, name):
    load = pytest.importorskip("tiktoken.load", reason="oracle: tiktoken with our export")
    ours = make(name)
    ours = BPETokenizer(
        ours.merges, [END], byte_order="gpt2"
    )  # the only special token that it supports
    encoder, merges = export_tokenizer(ours, "gpt2", tmp_path / "gpt2")
    ranks = load.data_gym_to_mergeable_bpe_ranks(str(merges), str(encoder))
    assert ranks == {token: i for i, token in enumerate(ours.token_bytes[:-1])}


def test_a_tokenizer_that_hugging_face_trained(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers' own training")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(hostile_strings(500, seed=3), trainer)
    theirs.save(str(tmp_path / "theirs.json"))
    ours = import_tokenizer([tmp_path / "theirs.json"])
    assert ours.special_ids == {token: i for i, token in enumerate(SPECIAL)}
    assert ours.byte_order == "gpt2" and ours.vocab_size == 700
    for text in hostile_strings(500):
        assert ours.encode(text, allowed_special=True) == theirs.encode(text).ids


def test_a_file_that_lists_every_pair_for_each_token(make, tmp_path):
    """Hugging Face converts tiktoken's ranks to such files; one pair per token is ever used."""
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers with all pairs")
    ours = make("gpt2")
    export_tokenizer(ours, "hf", tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_bytes())
    vocab = content["model"]["vocab"]
    named = set(vocab) - set(SPECIAL)
    every = [
        [token[:cut], token[cut:]]
        for token in sorted(named, key=vocab.get)
        for cut in range(1, len(token))
        if token[:cut] in named and token[cut:] in named
    ]
    assert len(every) > len(content["model"]["merges"])
    content["model"]["merges"] = every
    content["model"]["ignore_merges"] = True
    (tmp_path / "every.json").write_text(json.dumps(content), encoding="utf-8")
    assert import_tokenizer([tmp_path / "every.json"]) == ours
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "every.json"))
    for text in hostile_strings(500):
        assert ours.encode(text, allowed_special=True) == theirs.encode(text).ids
