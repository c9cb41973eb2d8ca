"""Evaluation: exact sums, independent of batch size, mode and dropout."""

from __future__ import annotations

import math

import pytest
import torch

from model.training.evaluate import Evaluation, evaluate
from model.training.loss import IGNORE_INDEX, cross_entropy_sum

BYTES = torch.tensor([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6])  # id 0 is special


def rows(n=13, T=8):
    generator = torch.Generator().manual_seed(3)
    ids, targets = torch.randint(11, (2, n, T), generator=generator)
    targets[torch.rand(n, T, generator=generator) < 0.2] = IGNORE_INDEX
    return ids, targets


def batches(size, n=13):
    ids, targets = rows(n)
    return [(ids[i : i + size], targets[i : i + size]) for i in range(0, n, size)]


def test_the_loss_is_the_sum_over_single_tokens(tiny):
    model = tiny(double=True)
    ids, targets = rows()
    nats = tokens = n_bytes = 0
    logits = model(ids).detach().log_softmax(-1)
    for b in range(13):
        for t in range(8):
            if (target := targets[b, t].item()) != IGNORE_INDEX:
                nats -= logits[b, t, target].item()
                tokens += 1
                n_bytes += BYTES[target].item()
    result = evaluate(model, batches(4), BYTES)
    assert (result.tokens, result.bytes) == (tokens, n_bytes)
    assert result.nats == pytest.approx(nats, rel=1e-12)
    assert result.nats_per_token == pytest.approx(nats / tokens)
    assert result.perplexity == pytest.approx(math.exp(nats / tokens))
    assert result.nats_per_byte == pytest.approx(nats / n_bytes)
    assert result.bits_per_byte == pytest.approx(nats / n_bytes / math.log(2))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("training", [False, True])
def test_independent_of_batch_size_mode_and_dropout(tiny, dropout, training):
    model = tiny(dropout=dropout).train(training)
    expected = evaluate(tiny(), batches(13), BYTES)
    for size in (1, 2, 5, 13):
        result = evaluate(model, batches(size), BYTES)
        assert (result.tokens, result.bytes) == (expected.tokens, expected.bytes)
        assert result.nats == pytest.approx(expected.nats, rel=1e-6)
        assert model.training == training


def test_an_evaluation_does_not_change_the_training(tiny):
    weights = []
    for with_evaluation in (False, True):
        torch.manual_seed(2)
        model = tiny(dropout=0.5).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        ids, targets = rows()
        for _ in range(3):
            count = (targets != IGNORE_INDEX).sum()
            (cross_entropy_sum(model(ids), targets) / count).backward()
            if with_evaluation:
                state = torch.get_rng_state()
                evaluate(model, batches(5), BYTES)
                assert torch.equal(torch.get_rng_state(), state)
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_special_tokens_have_loss_and_no_bytes(tiny):
    ids = torch.ones(1, 3, dtype=torch.long)
    with_special = evaluate(tiny(), [(ids, torch.tensor([[3, 0, 4]]))], BYTES)
    without = evaluate(tiny(), [(ids, torch.tensor([[3, IGNORE_INDEX, 4]]))], BYTES)
    assert with_special.bytes == without.bytes == 4
    assert (with_special.tokens, without.tokens) == (3, 2)
    assert with_special.nats > without.nats + 1e-3


def test_document_numbers_reach_the_model(tiny):
    ids, targets = rows()
    docs = (torch.arange(8) >= 4).long().expand(13, 8)
    separate = evaluate(tiny(), [(ids, targets, docs)], BYTES)
    joined = evaluate(tiny(), [(ids, targets)], BYTES)
    assert separate.nats != joined.nats
    assert evaluate(tiny(), [(ids, targets, None)], BYTES) == joined
    nats = cross_entropy_sum(tiny()(ids, doc_BT=docs), targets)
    assert separate.nats == pytest.approx(nats.item(), rel=1e-5)


def test_autocast_is_used(tiny):
    full = evaluate(tiny(), batches(13), BYTES)
    low = evaluate(tiny(), batches(13), BYTES, lambda: torch.autocast("cpu", torch.bfloat16))
    assert low.nats != full.nats
    assert low.nats == pytest.approx(full.nats, rel=0.02)


def test_modes_are_restored_after_an_error(tiny):
    model = tiny().train()
    with pytest.raises(ValueError, match="block_size"):
        evaluate(model, [(torch.zeros(1, 9).long(), torch.zeros(1, 9).long())], BYTES)
    assert model.training


def test_nothing_to_score_is_refused(tiny):
    with pytest.raises(ValueError, match="0 targets of 0 bytes"):
        evaluate(tiny(), [], BYTES)
    specials = torch.zeros(1, 2).long()
    with pytest.raises(ValueError, match="2 targets of 0 bytes"):
        evaluate(tiny(), [(specials, specials)], BYTES)


def test_a_perplexity_too_large_for_a_float_is_infinite():
    assert Evaluation(nats=1e6, tokens=1, bytes=1).perplexity == math.inf
