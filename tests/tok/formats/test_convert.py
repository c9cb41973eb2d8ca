"""Import and export: round trips, and errors for what a format can't represent."""

import errno
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.hostile import hostile_strings
from tok.errors import TokenizerError
from tok.formats.convert import FORMATS, export_tokenizer, import_tokenizer
from tok.formats.reachability import first_unreachable
from tok.tokenizer import BPETokenizer
from tok.vocabulary import (
    BYTE_ORDERS,
    END_OF_TEXT,
    byte_ranks,
    bytes_to_unicode,
    from_printable,
    to_printable,
)

TRAINED = BPETokenizer.train(hostile_strings(60, seed=2), vocab_size=400)


def export_and_import(tokenizer, kind, folder):
    folder.mkdir(exist_ok=True)
    paths = export_tokenizer(tokenizer, kind, folder / "out")
    if kind == "tiktoken":
        return import_tokenizer(paths, pattern=tokenizer.pattern, special=tokenizer.special_ids)
    if kind == "gpt2":
        special = {token: None for token in tokenizer.special_tokens if token != END_OF_TEXT}
        return import_tokenizer(paths, special=special)
    return import_tokenizer(paths)


def test_gpt2s_two_files_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    names, fsync = [], os.fsync

    def full(handle):
        names.append(handle)
        if len(names) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_tokenizer(TRAINED, "gpt2", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=30)
@given(data=st.data())
def test_export_and_import_are_inverse(kind, data, tmp_path_factory):
    corpus = data.draw(st.text("ab <é\n", min_size=30, max_size=80))
    order = data.draw(st.one_of(st.sampled_from(list(BYTE_ORDERS)), st.permutations(range(256))))
    tokens = data.draw(st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=3))
    tokens = ["<|" + token for token in tokens]  # differs from every ordinary token of 2 bytes
    ids = data.draw(st.permutations([*range(250, 265)]))[: len(tokens)]
    merges = BPETokenizer.train(corpus, vocab_size=257, special_tokens=[]).merges
    explicit_ids = data.draw(st.booleans())
    ranks = [[byte_ranks(order)[byte] for byte in pair] for pair in merges]
    special = dict(zip(tokens, ids)) if explicit_ids else tokens
    first = BPETokenizer(ranks, special, byte_order=order)
    used = sorted([*first.ordinary_ids, *first.special_ids.values()])
    assert len(set(used)) == len(used) == 257 + len(tokens)
    again = export_and_import(first, kind, tmp_path_factory.mktemp("again"))
    assert again == first and again.special_ids == first.special_ids
    text = corpus + "".join(tokens) + corpus
    for allowed in (False, True):
        ids = first.encode(text, allowed_special=allowed)
        assert ids == again.encode(text, allowed_special=allowed)
        assert first.decode(ids) == text


def test_ordinary_ids_skip_those_of_special_tokens(tmp_path):
    plain = BPETokenizer([(97, 98), (256, 99)], [])
    moved = BPETokenizer(plain.merges, {"<z>": 260, "<a>": 0, "<b>": 257})
    assert list(moved.special_ids.items()) == [("<a>", 0), ("<b>", 257), ("<z>", 260)]
    assert moved.encode("abcab!") == [259, 258, 34]
    assert moved.encode("<a>\x00<z>", allowed_special=True) == [0, 1, 260]
    assert moved.encode_array("abc").tolist() == [259]
    assert moved.vocab_size == 261 and moved.byte_lengths.tolist()[256:] == [1, 0, 2, 3, 0]
    holes = BPETokenizer(plain.merges, {"<z>": 263})
    assert holes.vocab_size == 264 and holes.encode("abc") == [257]
    with pytest.raises(TokenizerError, match="id 260 is not used in this vocabulary"):
        holes.decode([260])
    assert BPETokenizer(plain.merges, {"<z>": 258}) == BPETokenizer(plain.merges, ["<z>"])
    for tokenizer in (moved, holes):
        tokenizer.save(tmp_path / "tok.json")
        assert BPETokenizer.load(tmp_path / "tok.json") == tokenizer
        assert len({tokenizer, plain, BPETokenizer(plain.merges)}) == 3


def test_byte_orders():
    by_character = BPETokenizer([(64, 65)], [], byte_order="gpt2")
    assert by_character.encode("!ab\x00") == [0, 256, 188]
    assert by_character.decode([256]) == "ab"
    ranks = list(BYTE_ORDERS["gpt2"])
    assert BPETokenizer([(64, 65)], [], byte_order=ranks) == by_character
    assert BPETokenizer([], [], byte_order=[1, 0, *range(2, 256)]).encode("\x00\x01") == [1, 0]
    for wrong in ([*range(255), 254], [*range(255), 255.0], range(10), 5):
        with pytest.raises(TokenizerError, match="a byte order must be a name or the numbers"):
            BPETokenizer([], byte_order=wrong)


@pytest.mark.parametrize(
    ("special", "message"),
    [
        ({"a": -1}, "special token 'a' has id -1; ids are 0 to"),
        ({"a": 1 << 40}, "has id 1099511627776; ids are 0 to"),
        ({"a": True}, "has id True"),
        ({"a": 300, "b": 300}, "special tokens 'a' and 'b' have the same id, 300"),
    ],
)
def test_invalid_special_ids(special, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer([], special)


def test_bytes_to_unicode():
    characters = bytes_to_unicode()
    assert len(set(characters)) == 256 and not any(char.isspace() for char in characters)
    assert from_printable(to_printable(bytes(range(256)))) == bytes(range(256))


def by_bytes(raw, ranks):
    """Encode by tiktoken's rule: merge the neighbours whose bytes have the lowest rank."""
    parts = [bytes([byte]) for byte in raw]
    while raw not in parts:
        found = [ranks.get(a + b, 1 << 30) for a, b in zip(parts, parts[1:])]
        if not found or min(found) == 1 << 30:
            break
        best = found.index(min(found))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if raw in ranks:
            parts = [raw]
    return [ranks[part] for part in parts]


def test_merging_by_bytes_equals_merging_by_pairs_if_every_token_is_reachable():
    rng = random.Random(4)
    n_reachable = n_different = 0
    for _ in range(400):
        merges = []
        for top in range(256, 256 + rng.randrange(1, 7)):
            known = [97, 98, 99, *range(256, top)]
            merges.append((rng.choice(known), rng.choice(known)))
        if len(set(merges)) < len(merges):
            continue
        tokenizer = BPETokenizer(merges, [])
        ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes)}
        words = ["".join(rng.choices("abc", k=rng.randrange(1, 12))) for _ in range(30)]
        equal = [tokenizer.encode(word) == by_bytes(word.encode(), ranks) for word in words]
        if first_unreachable(merges) is None:
            n_reachable += 1
            assert all(equal)
        else:
            n_different += not all(equal)
    assert n_reachable > 50 and n_different > 20  # without the property the ids can differ
