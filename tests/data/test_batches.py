"""Batches: a pure function of (seed, step); each epoch is a permutation of the whole text."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.batches import Batches
from data.windows import IGNORE_INDEX
from tests.helpers.batches import END, batches, make

KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"windows": "packed"},
        {"windows": "packed", "stride": 7},
        {"windows": "packed", "stride": 7, "shift": True},
        {"windows": "documents"},
    ],
)


def targets(batch_y: torch.Tensor) -> Counter[int]:
    return Counter(batch_y[batch_y != IGNORE_INDEX].tolist())


@KINDS
@given(rows=st.integers(1, 60), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_token_once(
    kind: dict[str, object], rows: int, epoch: int, folder: Path
) -> None:
    one = batches(folder, rows=rows, **kind)
    n = one.splits["train"].n_windows
    first, last = epoch * n // rows, ((epoch + 1) * n - 1) // rows
    ys = torch.nn.utils.rnn.pad_sequence(
        [y for step in range(first, last + 1) for y in one.get_batch("train", step).y_BT],
        batch_first=True,
        padding_value=IGNORE_INDEX,
    )
    skip = epoch * n - first * rows  # rows of the previous epoch in the first batch
    whole = one.splits["train"].tokens.read(0, 10**6)
    assert targets(ys[skip : skip + n]) == Counter(whole.tolist())
    assert one.epoch_at(0) == 0 and one.epoch_at(n) == rows
    one.close()


def test_shifted_epochs_cut_the_text_at_other_positions(folder: Path) -> None:
    one, plain = batches(folder, shift=True, rows=1), batches(folder, rows=1)
    windows, n = one.splits["train"], one.splits["train"].n_windows
    ring = np.tile(windows.tokens.read(0, 10**6).astype(int), 2)
    shifts = set()
    for epoch in range(4):
        order, shift = one._epoch_order("train", epoch)
        assert order.tolist() == plain._epoch_order("train", epoch)[0].tolist()
        shifts.add(shift)
        for number, index in enumerate(order.tolist()):
            x_BT, y_BT, _ = one.get_batch("train", epoch * n + number)
            start = shift + 10 * index
            filled = int((y_BT != IGNORE_INDEX).sum())
            assert filled == min(10, windows.tokens.n_tokens - 10 * index)
            assert y_BT[0, :filled].tolist() == ring[start : start + filled].tolist()
            assert x_BT[0, 0] == ring[start - 1]
    assert len(shifts) == 4
    for mine, other in zip(one.eval_batches("val", 9), plain.eval_batches("val", 9), strict=True):
        assert torch.equal(mine.y_BT, other.y_BT)  # evaluation is never shifted


@KINDS
def test_a_batch_depends_on_seed_and_step_alone(kind: dict[str, object], folder: Path) -> None:
    one = batches(folder, **kind)
    ordered = [one.get_batch("train", step) for step in range(40)]
    for step in (39, 0, 17, 16, 39, 18):
        one.get_batch("val", step)
        fresh = batches(folder, **kind)
        for again in (one.get_batch("train", step), fresh.get_batch("train", step)):
            assert torch.equal(again.x_BT, ordered[step].x_BT)
            assert torch.equal(again.y_BT, ordered[step].y_BT)
        fresh.close()


@KINDS
def test_each_seed_and_epoch_has_another_order(kind: dict[str, object], folder: Path) -> None:
    one, other = batches(folder, rows=4, **kind), batches(folder, rows=4, seed=6, **kind)
    n = one.splits["train"].n_windows

    def order(source: Batches, epoch: int, part: str = "train") -> list[int]:
        return source._epoch_order(part, epoch)[0].tolist()

    assert sorted(order(one, 0)) == sorted(order(one, 1)) == list(range(n))
    orders = [order(one, 0), order(one, 1), order(other, 0), list(range(n))]
    assert len({tuple(o) for o in orders}) == 4


def test_gradient_accumulation_reads_the_rows_of_the_large_batch(folder: Path) -> None:
    one, other = batches(folder, rows=8), batches(folder, rows=4)
    for step in range(3):
        halves = [other.get_batch("train", 2 * step + i).x_BT for i in (0, 1)]
        assert torch.equal(one.get_batch("train", step).x_BT, torch.cat(halves))


@KINDS
@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_evaluation_covers_each_token_once(
    kind: dict[str, object], rows: int, folder: Path
) -> None:
    one = batches(folder, **kind)
    total: Counter[int] = Counter()
    for x_BT, y_BT, doc_BT in one.eval_batches("val", rows):
        assert x_BT.shape == y_BT.shape and len(x_BT) <= rows and doc_BT is None
        assert (x_BT >= 0).all() and x_BT.dtype == y_BT.dtype == torch.int64
        total += targets(y_BT)
    assert total == Counter(one.splits["val"].tokens.read(0, 10**6).tolist())


def test_fixed_length_pads_rows_to_block_size(folder: Path) -> None:
    fixed = batches(folder, windows="documents", fixed_length=True, block_size=32)
    loose = batches(folder, windows="documents", block_size=32)
    for step in range(5):
        one, other = fixed.get_batch("train", step), loose.get_batch("train", step)
        width = other.x_BT.shape[1]
        assert one.x_BT.shape == (3, 32) and width <= 9
        assert torch.equal(one.y_BT[:, :width], other.y_BT)
        assert (one.y_BT[:, width:] == IGNORE_INDEX).all() and (one.x_BT[:, width:] == END).all()


def test_document_numbers_change_at_each_end_token(folder: Path) -> None:
    one = batches(folder, mask_documents=True, block_size=20)
    for step in range(8):
        x_BT, y_BT, doc_BT = one.get_batch("train", step)
        assert doc_BT is not None and doc_BT.shape == x_BT.shape
        for x, doc in zip(x_BT.tolist(), doc_BT.tolist(), strict=True):
            for position in range(
                1, len(x)
            ):  # an end token belongs to the document that follows it
                assert doc[position] - doc[position - 1] == (x[position] == END)


def test_documents_of_similar_length_share_a_batch(tmp_path: Path) -> None:
    make(tmp_path, n_documents=600)
    one = batches(tmp_path, rows=8, windows="documents")
    padded = sum(one.get_batch("train", step).x_BT.numel() for step in range(75))
    filled = sum(int((one.get_batch("train", s).y_BT != IGNORE_INDEX).sum()) for s in range(75))
    assert filled == one.splits["train"].tokens.n_tokens
    assert padded < 1.2 * filled


READ_PASSES = """
import resource, sys, pathlib
import numpy as np
from data.batches import Batches
from data.config import DataConfig

def rss():
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

# 16 windows of 65,536 tokens per step: about 480 steps are one pass over the file.
folder, sizes = pathlib.Path(sys.argv[1]), {"block_size": 1 << 16, "rows": 16}
one = Batches(folder, DataConfig(), **sizes, eot_id=0, seed=1)
one.get_batch("train", 0)
before, passes = rss(), float(sys.argv[2])
steps = int(passes * one.splits["train"].n_windows / 16)
peak = before
for step in range(steps):
    batch = one.get_batch("train", step)
    peak = max(peak, rss())
print(steps * 16 * (1 << 16), (peak - before) // 1024)
"""


@pytest.mark.parametrize("passes", [0.2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="oracle: needs /proc")
def test_reading_a_large_file_takes_no_memory(passes: float, root: Path, tmp_path: Path) -> None:
    n_tokens = 500_000_000  # 1 GB as a sparse file, which takes no disk space
    for part, size in (("train", n_tokens), ("val", 1 << 16)):
        with open(tmp_path / f"{part}.npy", "wb") as file:
            header = {"descr": "<u2", "fortran_order": False, "shape": (size,)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 2 * size)
    command = [sys.executable, "-c", READ_PASSES, str(tmp_path), str(passes)]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True)
    n_read, grown_mb = map(int, done.stdout.split())
    assert n_read > 0.99 * passes * n_tokens
    assert grown_mb < 100, "a memory map would grow by 200 MB in a fifth of a pass"


def test_long_documents_are_padded_to_few_widths(tmp_path: Path) -> None:
    make(tmp_path, n_documents=300, longest=140)
    one = batches(tmp_path, rows=4, windows="documents", block_size=141)
    widths = set()
    for step in range(75):
        batch = one.get_batch("train", step)
        width, longest = batch.y_BT.shape[1], int((batch.y_BT != IGNORE_INDEX).sum(dim=1).max())
        assert longest <= width < longest + 8
        assert width in (longest, 141) if longest < 64 else width % 8 == 0 or width == 141
        widths.add(width)
    assert {72, 141} <= widths
