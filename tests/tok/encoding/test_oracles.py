"""Ids compared with tiktoken and Hugging Face tokenizers, with our merges and with GPT-2's."""

import base64
import random
from functools import lru_cache

import pytest

from tests.helpers.corpora import corpus_path
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer

CORPUS = (
    "It's the fox who'll sing, isn't it? They've 12 songs; 345 more in 2024!\n\n\tZoë's café, "
    "naïve 年号の文字, 😀😀 and  two   spaces... <|endoftext|> \u00a0\u3000 end\r\n"
)


@lru_cache(maxsize=1)
def tokenizer():
    return BPETokenizer.train(hostile_texts(200) + [CORPUS * 3], vocab_size=1200)


def hostile_texts(count):
    """Return random mixtures of words, white space, contractions, scripts and code points."""
    rng = random.Random(7)
    parts = [
        *CORPUS.split(" "),
        *" '\t\n\r\x00\x1c\x85\u200d\ufeff",
        "  ",
        "'s",
        "'LL",
        "年",
        "٣",
        "½",
        "a",
    ]
    texts = []
    for _ in range(count):
        chosen = rng.choices(parts, k=rng.randrange(25))
        for _ in range(rng.randrange(4)):
            code = rng.choice([rng.randrange(0x3000), rng.randrange(0x110000)])
            chosen.insert(
                rng.randrange(len(chosen) + 1), "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
            )
        texts.append(rng.choice(["", " "]).join(chosen))
    return texts


def test_same_ids_as_tiktoken():
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: tiktoken with our merges")
    ours = tokenizer()
    first_special = ours.vocab_size - 1
    assert (
        len(set(ours.token_bytes)) == ours.vocab_size
    ), "tiktoken merges by bytes: they must differ"
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS["gpt2"].regex,
        mergeable_ranks={token: i for i, token in enumerate(ours.token_bytes[:first_special])},
        special_tokens={"<|endoftext|>": first_special},
    )
    for text in hostile_texts(3000):
        ids = ours.encode(text)
        assert ids == theirs.encode_ordinary(text)
        assert ours.encode(text, allowed_special=True) == theirs.encode(text, allowed_special="all")
    rng = random.Random(3)
    for _ in range(1000):
        ids = rng.choices(range(ours.vocab_size), k=10)
        assert ours.decode(ids) == theirs.decode(ids)


def printable_bytes():
    """GPT-2's bytes_to_unicode: printable bytes are unchanged, the others begin at U+0100."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in kept]
    return {b: chr(b) for b in kept} | {b: chr(0x100 + i) for i, b in enumerate(moved)}


def test_same_ids_as_hugging_face():
    tokenizers = pytest.importorskip("tokenizers", reason="oracle: tokenizers with our merges")
    ours = tokenizer()
    letters = printable_bytes()
    names = [
        "".join(letters[b] for b in token) for token in ours.token_bytes[: ours.vocab_size - 1]
    ]
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[(names[first], names[second]) for first, second in ours.merges],
        )
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS["gpt2"].regex), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = tokenizers.decoders.ByteLevel()
    texts = hostile_texts(3000)
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == encoding.ids
        assert theirs.decode(encoding.ids) == text


@pytest.fixture(scope="module")
def gpt2():
    """GPT-2's merges with our byte ids, the mapping from our ids to GPT-2's, and its ranks."""
    lines = corpus_path("gpt2_r50k.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    our_ids = {bytes([b]): b for b in range(256)}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1])[256:]:
        first, second = parts_of(token, rank, ranks)
        merges.append((our_ids[first], our_ids[second]))
        our_ids[token] = 256 + len(merges) - 1
    ours = BPETokenizer(merges)
    return ours, [ranks[token] for token in ours.token_bytes[:-1]], ranks


def parts_of(token, rank, ranks):
    """Return the two tokens that remain of `token` when all lower ranks are merged."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
        best = found.index(min(found))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


@pytest.mark.parametrize(
    "name", ["shakespeare.txt", "wikitext2.test.txt", "wikitext2.valid.txt", "hostile", "random"]
)
def test_same_ids_as_gpt2(gpt2, name):
    tiktoken = pytest.importorskip("tiktoken", reason="oracle: tiktoken with GPT-2's ranks")
    ours, their_ids, ranks = gpt2
    if name == "hostile":
        text = "\n".join(hostile_texts(3000))
    elif name == "random":  # mostly letters of all scripts in long runs, which are split
        rng = random.Random(9)
        text = "".join(chr(rng.choice([rng.randrange(0xD800), 0x4E00])) for _ in range(60_000))
    else:
        text = corpus_path(name).read_bytes().decode("utf-8")
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=PATTERNS["gpt2"].regex, mergeable_ranks=ranks, special_tokens={}
    )
    expected = theirs.encode_ordinary(text)
    assert [their_ids[i] for i in ours.encode(text)] == expected
    # Single lines are encoded by the path for short text.
    lines = text[:100_000].split("\n")
    for line, ids in zip(lines, theirs.encode_ordinary_batch(lines, num_threads=1), strict=True):
        assert [their_ids[i] for i in ours.encode(line)] == ids
