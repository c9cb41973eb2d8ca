"""Merges compared with rustbpe's and Hugging Face's trainers, on real text."""

import json
from functools import lru_cache

import pytest

from tests.conftest import ROOT
from tests.helpers.corpora import corpus_path
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer
from tok.vocabulary import from_printable

VOCAB_SIZES = {"tiny": 1024, "shakespeare": 4096}


def text_of(name):
    path = ROOT / "data" / "tiny.txt" if name == "tiny" else corpus_path("shakespeare.txt")
    return path.read_bytes().decode(), VOCAB_SIZES[name]


@lru_cache(maxsize=4)
def merged_tokens(name, byte_order):
    text, vocab_size = text_of(name)
    ours = BPETokenizer.train(text, vocab_size=vocab_size, special_tokens=[], byte_order=byte_order)
    assert ours.byte_order == byte_order
    return ours.token_bytes[256:]


@pytest.mark.parametrize("name", VOCAB_SIZES)
def test_same_merges_as_rustbpe(name):
    rustbpe = pytest.importorskip("rustbpe", reason="oracle: rustbpe's training")
    text, vocab_size = text_of(name)
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator([text], vocab_size, pattern=PATTERNS["gpt2"].regex)
    ranks = {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}
    assert sorted(ranks.values()) == list(range(vocab_size))
    assert merged_tokens(name, "value") == sorted(ranks, key=ranks.get)[256:]


@pytest.mark.parametrize("name", VOCAB_SIZES)
def test_same_merges_as_hugging_face(name):
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: Hugging Face's training")
    text, vocab_size = text_of(name)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([text], trainer)
    merges = json.loads(theirs.to_str())["model"]["merges"]
    assert merged_tokens(name, "gpt2") == [from_printable("".join(pair)) for pair in merges]


@pytest.mark.parametrize(("name", "first"), [("tiny", 96), ("shakespeare", 182)])
def test_the_byte_orders_differ_from_this_merge_on(name, first):
    by_value, by_character = (merged_tokens(name, order) for order in ("value", "gpt2"))
    equal = [a == b for a, b in zip(by_value, by_character)]
    assert equal.index(False) == first  # counted from 0, as in error messages
