"""The reference and the fast path give the same text for the same seed."""

from __future__ import annotations

import pytest

from model.sampling.generate import generate_ids
from model.sampling.naive import generate_naive
from model.sampling.sampler import SamplingParams


@pytest.mark.parametrize("position", ["rope", "learned"])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(0.8, 5, 0.9, 0.01, 1.2)], ids=str
)
def test_the_reference_and_the_fast_path_give_the_same_ids(tiny, position, params):
    model = tiny(double=True, position=position, pointer=True, bigram_rows=64)
    naive = generate_naive(model, [1, 2], seed=4, max_new_tokens=40, params=params)
    settings = {"seeds": [4], "max_new_tokens": 40, "params": params}
    assert generate_ids(model, [[1, 2]], **settings) == [naive]
