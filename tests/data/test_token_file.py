"""Token files: ids are read back as written, and other files are user errors."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import token_file as tokens
from data.token_file import TokenFile, dtype_for, token_writer
from utils import files
from utils.errors import UserError


def write(path: Path, ids: list[int], vocab_size: int = 300) -> Path:
    with token_writer(path, vocab_size) as writer:
        writer.write(np.array(ids, np.int64))
    return path


@given(
    parts=st.lists(st.lists(st.integers(0, 299), max_size=9), max_size=5),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_ids_written_in_parts_are_read_in_ranges(
    parts: list[list[int]], start: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "a.npy"
    with token_writer(path, 300) as writer:
        for part in parts:
            writer.write(np.array(part, np.int64))
    whole = [token for part in parts for token in part]
    file = TokenFile(path)
    assert file.n_tokens == writer.n_tokens == len(whole)
    assert file.read(start, start + length).tolist() == whole[start : start + length]
    assert np.load(path).tolist() == whole
    for token in {0, *whole}:
        assert file.positions_of(token).tolist() == [i for i, x in enumerate(whole) if x == token]
    file.close()


def test_numpy_can_map_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", [1, 2, 299])
    mapped = np.load(path, mmap_mode="r")
    assert mapped.dtype == np.uint16 and mapped.tolist() == [1, 2, 299]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_the_dtype_depends_on_the_vocabulary_size(tmp_path: Path) -> None:
    assert dtype_for(65536) == np.uint16 and dtype_for(65537) == np.uint32
    top = write(tmp_path / "a.npy", [65535, 0], 65536)
    over = write(tmp_path / "b.npy", [65536, 0], 65537)
    assert TokenFile(top).read(0, 2).tolist() == [65535, 0]
    assert TokenFile(over).read(0, 2).tolist() == [65536, 0]
    assert TokenFile(over).dtype == np.uint32


@pytest.mark.parametrize("bad", [-1, 300, 65536 + 5, 2**40])
def test_an_id_outside_the_vocabulary_is_an_error_and_leaves_no_file(
    bad: int, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="in a vocabulary of 300"):
        write(tmp_path / "a.npy", [1, bad])
    assert not list(tmp_path.iterdir())


def test_the_last_id_of_the_vocabulary_is_accepted(tmp_path: Path) -> None:
    assert TokenFile(write(tmp_path / "a.npy", [299])).n_tokens == 1


def test_blocks_cover_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TokenFile(write(tmp_path / "a.npy", list(range(10))))
    monkeypatch.setattr(tokens, "BLOCK_TOKENS", 4)
    assert [(start, ids.tolist()) for start, ids in file.blocks()] == [
        (0, [0, 1, 2, 3]),
        (4, [4, 5, 6, 7]),
        (8, [8, 9]),
    ]
    assert file.positions_of(9).tolist() == [9]


def test_a_file_of_another_length_is_a_user_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.npy", [1, 2, 3]).read_bytes()
    cut = tmp_path / "cut.npy"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a .npy token file|cut short"):
            TokenFile(cut)
    cut.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="cut.npy: too long, it should hold 3 tokens"):
        TokenFile(cut)


def test_a_damaged_header_is_an_error_or_has_no_effect(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.npy", [1, 2, 3]).read_bytes()
    path, n_whole = tmp_path / "bad.npy", 0
    for position in range(128):
        for change in (0x01, 0x10, 0x80):
            raw = bytearray(whole)
            raw[position] ^= change
            path.write_bytes(raw)
            try:
                file = TokenFile(path)
            except UserError:
                continue
            assert file.read(0, 9).tolist() == [1, 2, 3]
            n_whole += 1
            file.close()
    assert n_whole, "some changes have no effect"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.int64),
        np.zeros(3, np.uint8),
        np.zeros(3, np.float32),
        np.zeros((3, 2), np.uint16),
        np.zeros((), np.uint16),
        np.array(["a"]),
        np.zeros(3, [("a", "<u2")]),
    ],
)
def test_another_kind_of_array_is_a_user_error(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match="expected a one-dimensional array of uint16 or uint32"):
        TokenFile(tmp_path / "a.npy")


def test_a_missing_file_a_folder_and_a_text_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    for name, message in [("none", "No such file"), (".", "directory"), ("a.txt", "not a .npy")]:
        with pytest.raises(UserError, match=message):
            TokenFile(tmp_path / name)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 258], ">u2"))
    assert TokenFile(tmp_path / "a.npy").read(0, 2).tolist() == [1, 258]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.npy", [7])

    class Full(io.FileIO):
        def write(self, raw: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        files, "open", lambda path, mode: io.BufferedWriter(Full(path, mode)), raising=False
    )
    with pytest.raises(OSError, match="No space"):
        write(path, list(range(200)) * 1000)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    assert TokenFile(path).read(0, 9).tolist() == [7]
