"""Windows: each token is a target once, and its inputs are the tokens before it."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.token_file import TokenFile, token_writer
from data.windows import IGNORE_INDEX, DocumentWindows, PackedWindows, cut_windows
from model.training import loss
from utils.errors import UserError

END = 9


def token_file(path: Path, ids: list[int]) -> TokenFile:
    with token_writer(path, 10) as writer:
        writer.write(np.array(ids, np.int64))
    return TokenFile(path)


@st.composite
def packed(draw: st.DrawFn) -> tuple[list[int], int, int]:
    block_size = draw(st.integers(1, 8))
    stride = draw(st.integers(1, block_size))
    ids = draw(st.lists(st.integers(0, END), min_size=block_size, max_size=40))
    return ids, block_size, stride


@given(case=packed())
def test_packed_every_token_is_a_target_once_in_its_context(
    case: tuple[list[int], int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ids, block_size, stride = case
    tokens = token_file(tmp_path_factory.mktemp("w") / "train.npy", ids)
    windows = PackedWindows(tokens, block_size=block_size, stride=stride, eot_id=END)
    stream, counted = [END, *ids], [0] * len(ids)
    for index in range(windows.n_windows):
        ((x, y),) = windows.rows(np.array([index]))
        start = index * stride
        assert len(x) == len(y) <= block_size
        assert x.tolist() == stream[start : start + len(x)]
        for position, target in enumerate(y.tolist()):
            if target == IGNORE_INDEX:  # context only: a target of an earlier window
                assert index and position < block_size - stride
                continue
            assert target == ids[start + position]
            counted[start + position] += 1
        assert (y != IGNORE_INDEX).any(), "each window has a target"
    assert counted == [1] * len(ids)
    tokens.close()


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_documents_are_whole_and_begin_after_an_end_token(
    lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = [[i % 9] * length + [END] for i, length in enumerate(lengths)]
    path = tmp_path_factory.mktemp("w") / "train.npy"
    tokens = token_file(path, [token for document in documents for token in document])
    windows = DocumentWindows(tokens, block_size=6, eot_id=END)
    assert windows.n_windows == len(documents)
    assert windows.lengths.tolist() == [len(document) for document in documents]
    for index, document in enumerate(documents):
        ((x, y),) = windows.rows(np.array([index]))
        assert y.tolist() == document and x.tolist() == [END, *document[:-1]]
    tokens.close()


def test_text_that_does_not_fit_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "val.npy", [1, 2, 3, END])
    with pytest.raises(UserError, match="val part holds 4 tokens, fewer than model.block_size 5"):
        cut_windows(tokens, "packed", 5, 0, eot_id=END)
    with pytest.raises(UserError, match=r"document 0 holds 4 tokens, more than.*block_size 3"):
        cut_windows(tokens, "documents", 3, 0, eot_id=END)
    with pytest.raises(UserError, match=r"data.stride 3 is more than model.block_size 2"):
        cut_windows(tokens, "packed", 2, 3, eot_id=END)
    assert cut_windows(tokens, "packed", 4, 0, eot_id=END).n_windows == 1
    assert cut_windows(tokens, "documents", 4, 0, eot_id=END).n_windows == 1


def test_a_file_that_ends_inside_a_document_is_an_error(tmp_path: Path) -> None:
    for ids in ([END, 1], [1]):
        tokens = token_file(tmp_path / "a.npy", ids)
        with pytest.raises(UserError, match="does not end with an end-of-text token"):
            DocumentWindows(tokens, block_size=4, eot_id=END)


def test_data_model_and_torch_ignore_the_same_target() -> None:
    default = inspect.signature(torch.nn.functional.cross_entropy).parameters["ignore_index"]
    assert IGNORE_INDEX == loss.IGNORE_INDEX == default.default
