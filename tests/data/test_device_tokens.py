"""Windows gathered on a device equal those read from the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.batches import Batches
from data.windows import IGNORE_INDEX
from tests.helpers.batches import batches

CPU = torch.device("cpu")


@pytest.mark.parametrize("stride", [0, 7, 1])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_cached_tokens_give_the_same_batches(
    stride: int, shift: bool, mask: bool, folder: Path
) -> None:
    changes = {"stride": stride, "shift": shift, "mask_documents": mask}
    one, other = batches(folder, **changes), batches(folder, **changes)
    assert other.cache_on_device(CPU, 1 << 20)
    for step in range(3 * one.splits["train"].n_windows // one.rows):
        (wanted, n_wanted), (found, n_found) = one.training_batch(step), other.training_batch(step)
        assert n_wanted == n_found == int((found.y_BT != IGNORE_INDEX).sum())
        for left, right in zip(wanted, found):
            assert (left is None) == (right is None)
            assert left is None or (left.dtype == right.dtype and torch.equal(left, right))


def test_documents_and_too_large_files_are_not_cached(folder: Path) -> None:
    def cached(one: Batches, spare_bytes: int) -> bool:
        return one.cache_on_device(CPU, spare_bytes)

    assert not cached(batches(folder, windows="documents"), 1 << 20)
    n = batches(folder).splits["train"].tokens.n_tokens
    assert not cached(batches(folder), 32 * n - 1) and cached(batches(folder), 32 * n)
