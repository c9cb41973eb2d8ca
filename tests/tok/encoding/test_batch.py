"""Encoding in arrays, compared with the reference: any merges, bytes, blocks and cache."""

import contextlib
import os
import random
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.helpers.counting import CountingDict
from tests.helpers.hostile import hostile_strings
from tests.helpers.naive_bpe import naive_encode, naive_merge
from tok.encoding import batch, parallel
from tok.encoding import encoder as encode
from tok.encoding import merge as merging
from tok.encoding.batch import BatchEncoder
from tok.encoding.block import MAX_PRETOKEN_BYTES, WIDTHS, Block
from tok.encoding.merge_many import MAX_LENGTH, PairTable, merge_many
from tok.patterns import GPT2, PATTERNS
from tok.split_arrays import split_starts
from tok.tokenizer import BPETokenizer
from tok.vocabulary import byte_ranks, token_bytes, token_lengths
from utils.errors import UserError
from utils.processes import peak_rss_bytes


def draw_merges(draw):
    """Draw arbitrary merges of few letters, so that pairs overlap and tokens share parts."""
    merges = []
    for rank in range(draw(st.integers(0, 14))):
        part = st.one_of(st.sampled_from(b"abc\xe5"), st.integers(255, 255 + rank))
        pair = (draw(part), draw(part))
        if pair not in merges and len(merges) == rank:
            merges.append(pair)
    return merges


def pair_table(merges):
    return PairTable(merges, byte_ranks("value"), token_lengths(merges))


def batch_encoder(merges):
    tokens = token_bytes(merges, byte_ranks("value"))
    return BatchEncoder(pair_table(merges), tokens, lambda pretoken: naive_merge(pretoken, merges))


MERGES = st.composite(draw_merges)()
PRETOKEN = st.lists(st.sampled_from(b"abc\xe5"), min_size=1, max_size=40).map(bytes)


@settings(deadline=None, max_examples=100)
@given(MERGES, st.lists(PRETOKEN, min_size=1, max_size=8))
def test_merge_many_equals_the_reference(merges, pretokens):
    n_lines = max(map(len, pretokens))
    below = b"abca" * 10  # bytes after the end of a pre-token must be ignored
    columns = np.array(
        [list((pretoken + below)[:n_lines]) for pretoken in pretokens], dtype=np.uint8
    ).T
    lengths = np.array([len(pretoken) for pretoken in pretokens])
    ids, counts = merge_many(columns, lengths, pair_table(merges))
    expected = [naive_merge(pretoken, merges) for pretoken in pretokens]
    assert counts.tolist() == list(map(len, expected))
    assert ids.tolist() == sum(expected, [])


@settings(deadline=None, max_examples=60)
@given(MERGES, st.lists(PRETOKEN, max_size=8), st.sampled_from([1, 5, 32]))
def test_blocks_equal_the_reference_for_any_threshold_of_long_pretokens(
    merges, pretokens, threshold
):
    """From a threshold of 1 byte on, pre-tokens are split at every unmergeable pair of bytes."""
    tokens = token_bytes(merges, byte_ranks("value"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "LONG_PRETOKEN_BYTES", threshold)
        encoder = batch_encoder(merges)
        assert encoder.is_whole.tolist() == [
            naive_merge(token, merges) == [rank] for rank, token in enumerate(tokens)
        ]
        starts = np.cumsum([0, *map(len, pretokens)])[:-1]
        expected = [naive_merge(pretoken, merges) for pretoken in pretokens]
        for _ in range(2):  # the second time from the cache
            found = list(encoder.encode([(b"".join(pretokens), starts)] if pretokens else []))
            assert [ids.tolist() for ids in found] == ([sum(expected, [])] if pretokens else [])


@settings(deadline=None, max_examples=200)
@given(MERGES, st.lists(PRETOKEN, min_size=1, max_size=8), st.integers(1, 9), st.integers(0, 3))
def test_pieces_equal_the_reference(merges, pretokens, piece_bytes, tail_tokens):
    """Whatever the size of the pieces, and also where the end of a piece was not enough."""
    lengths = token_lengths(merges)

    def merge(raw):
        return naive_merge(raw, merges)

    raw = b"".join(pretokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "PIECE_BYTES", piece_bytes)
        patch.setattr(merging, "TAIL_TOKENS", tail_tokens)
        found = merging.merge_in_pieces(raw, merge, lengths)
    assert found.tolist() == merge(raw)


@settings(deadline=None, max_examples=60)
@given(MERGES, st.lists(PRETOKEN, min_size=1, max_size=8), st.integers(1, 40))
def test_divided_blocks_equal_the_reference(merges, pretokens, part_bytes):
    starts = np.cumsum([0, *map(len, pretokens)])[:-1]
    expected = [naive_merge(pretoken, merges) for pretoken in pretokens]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "PART_BYTES", part_bytes)
        patch.setattr(batch, "MAX_BLOCK_BYTES", 4 * part_bytes)
        encoder = batch_encoder(merges)
        encoder._merge_long = lambda raw: np.array(naive_merge(raw, merges))
        found = list(encoder.encode([(b"".join(pretokens), starts)] * 2))
    assert np.concatenate(found).tolist() == sum(expected, []) * 2


@pytest.mark.parametrize("text", ["a", "the", " ", "\u00e9"])
def test_a_giant_pretoken_needs_little_memory(text):
    """It took up to 75 bytes of memory for each byte, 129 MB here or more."""
    tokenizer = BPETokenizer.load(ROOT / "tok" / "bpe.json")
    raw = text.encode() * (3_000_000 // len(text.encode()))
    tokenizer.encode_array(raw[:200_000])
    with contextlib.suppress(OSError):  # Linux forgets the peak of earlier tests
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = peak_rss_bytes()
    assert len(tokenizer.encode_array(raw)) > 500_000
    assert peak_rss_bytes() - before < 100e6


def lengths_around_the_widths():
    return sorted({8 * width + d for width in WIDTHS for d in (-2, -1, 0, 1)} | {1, 2, 500})


@pytest.mark.parametrize("unit", [b"a", b"ab", b"\x00", b"abcdefg", b"\xe5\xb9\xb4"])
def test_pretokens_of_every_length(unit):
    merges = [(97, 97), (256, 256), (97, 98), (257, 257), (0, 0), (258, 99), (0xE5, 0xB9)]
    pretokens = [(unit * 500)[:length] for length in lengths_around_the_widths()] * 2
    random.Random(5).shuffle(pretokens)
    encoder = batch_encoder(merges)
    starts = np.cumsum([0, *map(len, pretokens)])[:-1]
    (ids,) = encoder.encode([(b"".join(pretokens), starts)])
    assert ids.tolist() == sum((naive_merge(pretoken, merges) for pretoken in pretokens), [])


def test_distinct_pretokens_have_distinct_keys():
    """Also pre-tokens that differ only in zero bytes at the end."""
    pretokens = [b"a" * n + tail for n in range(60) for tail in (b"", b"\0", b"b", b"\0\0")]
    pretokens = list(dict.fromkeys(pretoken for pretoken in pretokens if pretoken))
    starts = np.cumsum([0, *map(len, pretokens)])[:-1]
    block = Block(b"".join(pretokens), starts)
    *by_width, long = block.by_width()
    assert not len(long) and sum(map(len, by_width)) == len(pretokens)
    for width, chosen in zip(WIDTHS, by_width):
        words = np.stack(block.keys(chosen, width))
        assert len(np.unique(words, axis=1).T) == len(chosen)
        assert (words[-1] != 0).all()
    assert MAX_PRETOKEN_BYTES < MAX_LENGTH


TRAINED = BPETokenizer.train(["\n".join(hostile_strings(150)), "aaaa bbbb  "], vocab_size=900)


def in_arrays(tokenizer, raw, **settings):
    """Encode a text of any length with tok.encoding.batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "SHORT_TEXT_THRESHOLD", -1)
        return tokenizer.encode_array(raw, **settings).tolist()


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
def test_any_bytes_equal_the_reference(raw):
    assert in_arrays(TRAINED, raw) == naive_encode(raw, TRAINED.merges)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_short_and_long_path_agree(pattern):
    ours = BPETokenizer(TRAINED.merges, ["<|endoftext|>", "two words"], pattern=pattern)
    other = BPETokenizer(
        TRAINED.merges, {"<|endoftext|>": 3, "two words": 299}, pattern=pattern, byte_order="gpt2"
    )
    strings = hostile_strings(400)
    for tokenizer in (ours, other):
        for text in map("".join, zip(*[iter(strings)] * 5)):
            for allowed in (False, True):
                ids = tokenizer.encode(text, allowed_special=allowed)
                assert in_arrays(tokenizer, text, allowed_special=allowed) == ids
                assert tokenizer.decode(ids) == text


def test_the_cache_is_bounded_and_does_not_change_ids(monkeypatch):
    words = [b" %x" % n for n in range(0, 40_000, 7)]
    encoder = TRAINED.encoder._batch
    base = encoder._n_bytes()
    monkeypatch.setattr(encoder, "_max_bytes", base + 100_000)
    monkeypatch.setattr(batch, "MAX_CACHE_BYTES", 100_000)
    sizes = []
    for at in range(0, len(words), 300):
        raw = b"".join(words[at : at + 300])
        (ids,) = encoder.encode([(raw, split_starts(raw, GPT2))])
        assert TRAINED.decode_bytes(ids.tolist()) == raw
        sizes.append(encoder._n_bytes())
    assert max(sizes) < base + 500_000 and sizes != sorted(sizes)


def test_the_block_size_of_a_stream_does_not_change_ids(monkeypatch):
    tokenizer = BPETokenizer(TRAINED.merges, ["<|endoftext|>", "two words", "two w"])
    text = "".join(hostile_strings(60)) + "two wor<|endoftext|>" + "two w" + "<|endof"
    expected = tokenizer.encode(text, allowed_special=True)
    for size in (1, 2, 3, 7, 50, 10_000):
        monkeypatch.setattr(encode, "BLOCK_BYTES", size)
        monkeypatch.setattr("tok.split_arrays.BLOCK_BYTES", size)
        monkeypatch.setattr(encode, "SHORT_TEXT_THRESHOLD", size // 2)
        stream = BytesIO(text.encode())
        parts = tokenizer.encoder.parts(stream.read, allowed_special=True)
        ids = [i for ids in tokenizer.encoder.encode_parts(parts) for i in ids.tolist()]
        assert ids == expected, size


def test_the_number_of_workers_does_not_change_ids(monkeypatch):
    monkeypatch.setattr(parallel, "JOB_BYTES", 500)
    monkeypatch.setattr(parallel, "MAX_SERIAL_JOBS", 3)
    documents = [text.encode() for text in hostile_strings(200)]
    alone = list(parallel.encode_documents(TRAINED, documents, workers=1))
    shared = list(parallel.encode_documents(TRAINED, iter(documents), workers=2))
    assert len(alone) > 4 and [ids.tolist() for ids in shared] == [ids.tolist() for ids in alone]
    assert {ids.dtype for ids in shared} == {np.dtype(np.uint16)}
    one_by_one = [[*TRAINED.encode(raw), TRAINED.eot_id] for raw in documents]
    assert np.concatenate(alone).tolist() == sum(one_by_one, [])


def die(ids):
    """Exit like a worker that the system kills."""
    os._exit(9)


def test_a_killed_worker_is_a_user_error(monkeypatch):
    monkeypatch.setattr(parallel, "JOB_BYTES", 1)
    monkeypatch.setattr(parallel, "MAX_SERIAL_JOBS", 1)
    with pytest.raises(UserError, match="a worker process ended unexpectedly"):
        list(parallel.encode_parts(TRAINED, [b"a"] * 9, finish=die, workers=2))


@pytest.fixture
def count_lookups(monkeypatch):
    """count_lookups(tokenizer, raw): pairs looked up to encode a text, in arrays or in Python."""
    in_arrays_too = []
    find = PairTable.find

    def counting(self, first, second):
        in_arrays_too.append(len(first))
        return find(self, first, second)

    monkeypatch.setattr(PairTable, "find", counting)

    def count(tokenizer, raw):
        assert (
            tokenizer.encoder._batch.is_whole.any()
        )  # built now, so that its look-ups are not counted
        tokenizer.encoder._rank_of_pair = by_pair = CountingDict(tokenizer.encoder._rank_of_pair)
        in_arrays_too.clear()
        assert tokenizer.decode_bytes(in_arrays(tokenizer, raw)) == raw
        return by_pair.lookups + sum(in_arrays_too)

    return count


def is_linear(count_lookups, unit, times):
    """Return True if look-ups are proportional to the length, and few per byte."""
    tokenizer = BPETokenizer.train([unit * 300, "the  end"], vocab_size=270, special_tokens=())
    raw = (unit * times).encode()
    once, twice = count_lookups(tokenizer, raw), count_lookups(tokenizer, raw * 2)
    assert once > 0
    return once < 10 * len(raw) and twice < 2.2 * once + 100


@pytest.mark.parametrize("unit", ["a", " ", "年号文", "ab", "!?-", "\xff"])
def test_long_pretokens_take_linear_work(unit, count_lookups):
    """Work is counted, not timed: look-ups for one pre-token are proportional to its length."""
    assert is_linear(count_lookups, unit, 5000)


def merge_quadratically(ids, new_ids, pairs, lengths):
    """A quadratic `merge_ids`: each merge scans the whole pre-token."""
    row = list(ids)
    while True:
        merged = [(new_ids.get(pair), i) for i, pair in enumerate(pairwise(row))]
        possible = [(new, i) for new, i in merged if new is not None]
        if not possible:
            return row
        new, i = min(possible)
        row[i : i + 2] = [new]


def test_quadratic_merging_would_be_detected(count_lookups, monkeypatch):
    monkeypatch.setattr(encode, "merge_ids", merge_quadratically)
    assert not is_linear(count_lookups, "a", 600)


def test_the_pair_table_contains_exactly_the_merges():
    pairs = pair_table(TRAINED.merges)
    first, second = np.array(TRAINED.merges).T
    assert pairs.find(first, second).tolist() == list(range(256, 256 + len(TRAINED.merges)))
    known = set(TRAINED.merges)
    others = [pair for pair in pairwise(range(256)) if pair not in known]
    first, second = np.array(others).T
    assert (pairs.find(first, second) == -1).all()
