"""The cache is bounded in the number and the length of its pre-tokens."""

from tok.encoding.encoder import MAX_CACHED_CHARS, PretokenCache
from tok.tokenizer import BPETokenizer


def test_a_pretoken_is_encoded_once():
    encoded = []
    cache = PretokenCache(lambda pretoken: encoded.append(pretoken) or (1,))
    assert [cache["a"], cache["a"], cache["b"]] == [(1,)] * 3
    assert encoded == ["a", "b"]


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr("tok.encoding.encoder.MAX_CACHED_PRETOKENS", 3)
    cache = PretokenCache(lambda pretoken: (1,))
    for i in range(100):
        assert cache[str(i)] == (1,)
        assert len(cache) <= 3
    cache.clear()
    assert cache["x" * (MAX_CACHED_CHARS + 1)] == (1,) and not cache
    assert cache["x" * MAX_CACHED_CHARS] == (1,) and len(cache) == 1


def test_a_full_cache_does_not_change_ids(monkeypatch):
    text = "one two three four five one two " * 3
    tokenizer = BPETokenizer.train(text, vocab_size=270)
    expected = tokenizer.encode(text)
    monkeypatch.setattr("tok.encoding.encoder.MAX_CACHED_PRETOKENS", 2)
    tokenizer.encoder._cache.clear()
    assert tokenizer.encode(text) == expected
