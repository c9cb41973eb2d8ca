"""The hashed bigram embedding: its rows, and its effect on the model."""

from __future__ import annotations

import pytest
import torch

from model.bigram import hash_bigrams
from model.config import ModelConfig
from model.flops import count_parameters
from model.gpt import TinyGPT

SETTINGS = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}


def naive_rows(ids, vocab_size, n_rows, doc=None):
    """Return the rows, pair by pair, with Python's integers."""
    rows = []
    for t, token in enumerate(ids):
        is_first = t == 0 or (doc is not None and doc[t] != doc[t - 1])
        pair = (vocab_size if is_first else ids[t - 1]) * vocab_size + token
        rows.append(((pair * 2654435769) % 2**32) * n_rows // 2**32)
    return rows


@pytest.mark.parametrize("vocab_size", [11, 50257])
@pytest.mark.parametrize("n_rows", [1, 7, 16384, 10**6])
@pytest.mark.parametrize("doc", [None, [0, 0, 0, 1, 1, 2]])
def test_rows_follow_the_formula(vocab_size, n_rows, doc):
    ids = [3, vocab_size - 1, 3, 0, vocab_size - 1, vocab_size - 1]
    doc_BT = None if doc is None else torch.tensor([doc])
    found = hash_bigrams(torch.tensor([ids]), vocab_size, n_rows, doc_BT)[0].tolist()
    assert found == naive_rows(ids, vocab_size, n_rows, doc)
    assert all(0 <= row < n_rows for row in found)


def test_pairs_spread_over_the_rows():
    previous, token = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    ids_BT = torch.stack((previous.flatten(), token.flatten()), dim=1)
    rows = hash_bigrams(ids_BT, 100, 10_000, None)[:, 1]
    # Ten thousand pairs, hashed at random, would fill 1 - 1/e of ten thousand rows.
    assert len(rows.unique()) > 6000


def test_the_table_is_added_to_the_embeddings():
    plain, with_table = (TinyGPT(ModelConfig(**SETTINGS, bigram_rows=rows)) for rows in (0, 32))
    with_table.load_state_dict(plain.state_dict(), strict=False)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        assert torch.equal(plain(ids), with_table(ids)), "a new table adds nothing"
        rows = hash_bigrams(ids, 11, 32, None)
        with_table.bigram_embedding.weight.normal_()
        expected = plain.token_embedding(ids) + with_table.bigram_embedding(rows)
        plain.token_embedding.weight[:5] = expected[0]  # as if each position had its own token
        torch.testing.assert_close(with_table(ids), plain(torch.arange(5)[None]))


def test_dropout_omits_whole_bigrams_in_training_only(tiny):
    kept, model = (tiny(bigram_rows=64, bigram_dropout=p) for p in (0.0, 0.75))
    ids_BT = torch.randint(0, 11, (200, 8))
    with torch.no_grad():
        assert torch.equal(model(ids_BT), kept(ids_BT))
        model.train()
        rows = hash_bigrams(ids_BT, 11, 64, None)
        for module in (model.blocks, kept.blocks):  # only the embeddings and the final norm remain
            module.__init__()
        for head in (model.head, kept.head):
            head.weight.copy_(torch.randn(head.weight.shape))
        logits = model(ids_BT).flatten(0, 1)
        tokens, pairs = model.token_embedding(ids_BT), model.bigram_embedding(rows)
        with_pair, without = (
            model.logits(model.final_norm(x)).flatten(0, 1) for x in (tokens + 4 * pairs, tokens)
        )
    kept_whole = (logits - with_pair).abs().amax(-1) < 1e-4  # scaled by 4, as in any dropout
    omitted = (logits - without).abs().amax(-1) < 1e-4
    assert (kept_whole ^ omitted).all()
    assert 0.2 < kept_whole.double().mean() < 0.3


def test_no_position_depends_on_later_tokens_or_other_documents(tiny):
    model = tiny(bigram_rows=64)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    doc = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
    later, earlier = ids.clone(), ids.clone()
    later[0, 5:] = torch.tensor([7, 8, 0])
    earlier[0, :5] = torch.tensor([9, 9, 0, 2, 2])
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :5], model(later)[:, :5])
        apart, other = model(ids, doc_BT=doc), model(earlier, doc_BT=doc)
        assert torch.allclose(apart[:, 5:], other[:, 5:], atol=1e-5)
        assert not torch.allclose(model(ids)[:, 5:], model(earlier)[:, 5:], atol=1e-5)


def test_it_counts_as_an_embedding():
    config = ModelConfig(**SETTINGS, bigram_rows=32)
    count = count_parameters(config)
    assert count.bigram_embedding == 32 * 8
    assert count.total == sum(value.numel() for value in TinyGPT(config).parameters())
    assert count.embedding == (32 + 11) * 8
