"""Merges and ids compared with the plain definition in tok/bpe.py."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.naive_bpe import naive_encode, naive_train
from tok.errors import TokenizerError
from tok.tokenizer import BPETokenizer


def random_corpus(seed):
    """Few letters and many repeats, so that ties, overlaps and long tokens are common."""
    rng = random.Random(seed)
    alphabet = rng.choice(
        ["ab", "aab ", "abc  \n", "a1!' s", "aé年 \t", "".join(map(chr, range(32, 127)))]
    )
    return "".join(rng.choices(alphabet, k=rng.randrange(1, 300))).encode()


def train_to_the_end(raw, max_merges):
    """Train with as many merges as the corpus allows, at most `max_merges`."""
    n_merges = len(naive_train(raw, max_merges))
    return BPETokenizer.train(raw, vocab_size=256 + n_merges, special_tokens=())


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_same_merges_and_ids_as_the_naive_code(first_seed):
    for seed in range(first_seed, first_seed + 50):
        raw = random_corpus(seed)
        merges = naive_train(raw, 60)
        tokenizer = train_to_the_end(raw, 60)
        assert list(tokenizer.merges) == merges, f"seed {seed}"
        for other in (raw, random_corpus(seed + 1000)):
            assert tokenizer.encode(other) == naive_encode(other, merges), f"seed {seed}"


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=120), st.binary(max_size=60))
def test_same_merges_and_ids_on_any_bytes(raw, other):
    merges = naive_train(raw, 30)
    tokenizer = train_to_the_end(raw, 30)
    assert list(tokenizer.merges) == merges
    assert tokenizer.encode(raw + other) == naive_encode(raw + other, merges)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_arbitrary_merges_are_applied_in_order(data):
    """Imported vocabularies need not come from training: any valid merges must work."""
    merges = []
    for rank in range(data.draw(st.integers(0, 12))):
        part = st.one_of(st.sampled_from([97, 98, 99]), st.sampled_from(range(256 - 1, 256 + rank)))
        pair = (data.draw(part), data.draw(part))
        if pair not in merges and len(merges) == rank:
            merges.append(pair)
    raw = data.draw(st.text("abc", max_size=60)).encode()
    assert BPETokenizer(merges).encode(raw) == naive_encode(raw, merges)


def test_wikipedias_example_by_hand():
    """aaabdaaabac: Z = aa, then the tie of ab and Za goes to the smaller ids (ab), then Zab."""
    tokenizer = BPETokenizer.train("aaabdaaabac", vocab_size=260)
    a, b, c, d = b"abcd"
    assert tokenizer.merges == ((a, a), (a, b), (256, 257))
    assert tokenizer.token_bytes[256:259] == [b"aa", b"ab", b"aaab"]
    assert tokenizer.encode("aaabdaaabac") == [258, d, 258, a, c]


def test_tie_goes_to_the_smallest_pair_of_ids_not_to_the_first_in_the_text():
    tokenizer = BPETokenizer.train("zz yy xx", vocab_size=259)
    assert tokenizer.token_bytes[256:258] == [b" x", b" y"]


def test_overlapping_pairs_merge_from_the_left():
    assert BPETokenizer([(97, 97)]).encode("aaaaa") == [256, 256, 97]


def test_a_vocabulary_too_large_for_the_corpus_is_rejected():
    with pytest.raises(TokenizerError, match="gives at most 259"):
        BPETokenizer.train("abc", vocab_size=260)
    assert len(BPETokenizer.train("abc", vocab_size=259).merges) == 2


def test_no_pair_spans_two_texts_and_their_order_does_not_matter():
    apart = BPETokenizer.train(["ab", "ab", "b"], vocab_size=258)
    assert apart.merges == ((97, 98),)
    texts = [random_corpus(seed) for seed in range(30)]
    forward = BPETokenizer.train(texts, vocab_size=330)
    backward = BPETokenizer.train(iter(texts[::-1]), vocab_size=330)
    assert forward.identity == backward.identity


def test_block_and_part_sizes_do_not_change_the_merges(monkeypatch):
    text = b" ".join(random_corpus(seed) for seed in range(40))
    whole = BPETokenizer.train(text, vocab_size=330)
    monkeypatch.setattr("tok.training.count_files.PART_BYTES", 1000)
    monkeypatch.setattr("tok.training.count_files.BLOCK_BYTES", 100)
    for workers in (1, 3):
        assert BPETokenizer.train(text, vocab_size=330, workers=workers).merges == whole.merges


def test_special_tokens_in_the_corpus_are_plain_text():
    text = "<|endoftext|>" * 5
    tokenizer = BPETokenizer.train(text, vocab_size=260)
    assert list(tokenizer.merges) == naive_train(text, 3)
