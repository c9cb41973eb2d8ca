"""Streaming: complete characters only, and in total exactly the result of decode."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok.errors import TokenizerError
from tok.tokenizer import BPETokenizer

TOKENIZER = BPETokenizer.train("aé 年号 😀 the 😀é" * 5, vocab_size=270)


def stream(ids):
    decoder = TOKENIZER.stream_decoder()
    return [decoder.feed(token_id) for token_id in ids] + [decoder.finish()]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30))
def test_chunks_join_to_decode_for_any_ids(ids):
    assert "".join(stream(ids)) == TOKENIZER.decode(ids)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from([0x41, *b"\xf0\x9f\x98\x80\xe5\xb9\xb4\xc3\xa9\xed\xa0\x80\xff"]),
        max_size=12,
    )
)
def test_chunks_join_to_decode_for_incomplete_characters(ids):
    assert "".join(stream(ids)) == TOKENIZER.decode(ids)


@pytest.mark.parametrize("text", ["😀", "年号", "é", "👨‍👩‍👧🇩🇪", "a😀b"])
def test_no_replacement_character_for_valid_text_fed_byte_by_byte(text):
    chunks = stream(text.encode())
    assert "".join(chunks) == text
    assert not any("\ufffd" in chunk for chunk in chunks)
    assert len([chunk for chunk in chunks if chunk]) == len(text)


def test_an_incomplete_character_appears_at_the_end_only():
    assert stream([0xF0, 0x9F]) == ["", "", "\ufffd"]
    assert stream([0xF0, 0x41]) == ["", "\ufffdA", ""]


def test_a_special_token_decodes_to_its_text():
    assert stream([TOKENIZER.eot_id]) == ["<|endoftext|>", ""]


def test_an_unknown_id_does_not_change_the_decoder():
    decoder = TOKENIZER.stream_decoder()
    assert decoder.feed(0xC3) == ""
    with pytest.raises(TokenizerError, match="id 270 is out of range"):
        decoder.feed(270)
    assert decoder.feed(0xA9) == "é"


def test_finish_resets_the_decoder():
    decoder = TOKENIZER.stream_decoder()
    decoder.feed(0xC3)
    assert decoder.finish() == "\ufffd"
    assert decoder.feed(0x41) == "A" and decoder.finish() == ""
