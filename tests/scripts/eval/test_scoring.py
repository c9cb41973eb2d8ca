"""TokenScores stores each token's loss at its position, for all windows and batch sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.batches import Batches
from data.config import DataConfig
from data.token_file import token_writer
from scripts.eval.scoring import TokenScores, token_records
from tok.tokenizer import BPETokenizer

END = 256


@pytest.fixture
def folder(tmp_path):
    """Documents of 3, 9, 1 and 5 tokens, each including its end-of-text token."""
    ids = []
    for first, n_tokens in ((10, 3), (30, 9), (50, 1), (70, 5)):
        ids += [*range(first, first + n_tokens - 1), END]
    with token_writer(tmp_path / "val.npy", 257) as writer:
        writer.write(np.array(ids))
    return tmp_path, ids


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize(
    "windows, block_size, stride", [("documents", 9, 0), ("packed", 4, 0), ("packed", 4, 3)]
)
def test_every_token_is_scored_once_at_its_position(folder, rows, windows, block_size, stride):
    path, ids = folder
    batches = Batches(
        path,
        DataConfig(windows=windows, stride=stride),
        block_size=block_size,
        rows=1,
        eot_id=END,
        seed=0,
        splits=("val",),
    )
    scores = TokenScores(batches, "val", rows)
    for x_BT, y_BT, _ in batches.eval_batches("val", rows):
        # A function of the token and the previous one, so a shifted row would be noticed.
        scores.add(y_BT, torch.where(y_BT >= 0, y_BT * 1000 + x_BT, 0).double())
    batches.close()
    assert scores.ids_N.tolist() == ids and scores.n_scored == len(ids)
    expected = [1000 * token + before for token, before in zip(ids, [END, *ids])]
    assert scores.nats_N.tolist() == expected
    records = list(token_records(scores, BPETokenizer([])))
    assert [record["logprob"] for record in records] == [-nats for nats in expected]
    assert records[0] == {"place": 0, "id": 10, "text": "\n", "logprob": -expected[0]}
    assert records[2]["text"] == "<|endoftext|>"


def test_an_incomplete_pass_is_an_error(folder):
    batches = Batches(
        folder[0], DataConfig(), block_size=4, rows=1, eot_id=END, seed=0, splits=("val",)
    )
    scores = TokenScores(batches, "val", 1)
    with pytest.raises(AssertionError, match="once"):
        next(token_records(scores, BPETokenizer([])))
    batches.close()
