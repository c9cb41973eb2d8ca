"""merge_ids takes linear time; look-ups are counted, as timings would be noisy."""

import random

import pytest

from tests.helpers.counting import CountingDict
from tok.encoding.merge import merge_ids
from tok.tokenizer import BPETokenizer


def lookups(raw, tokenizer):
    new_ids = CountingDict({pair: 256 + rank for rank, pair in enumerate(tokenizer.merges)})
    ids = merge_ids(raw, new_ids, tokenizer.merges, [len(token) for token in tokenizer.token_bytes])
    assert tokenizer.decode_bytes(ids) == raw
    return new_ids.lookups


@pytest.mark.parametrize("alphabet", [b"a", b"ab", b"abcdefgh"])
def test_lookups_are_proportional_to_the_length(alphabet):
    raw = bytes(random.Random(1).choices(alphabet, k=20_000))
    tokenizer = BPETokenizer.train(raw[:3000], vocab_size=256 + 10, special_tokens=())
    once, twice = lookups(raw[:10_000], tokenizer), lookups(raw, tokenizer)
    assert 1.8 * once < twice < 2.2 * once
    assert once < 4 * 10_000


def test_no_byte_and_a_single_byte():
    assert merge_ids([], {}, [], [1] * 256) == []
    assert merge_ids([7], {}, [], [1] * 256) == [7]
