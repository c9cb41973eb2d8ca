"""Files are split into documents at the separator, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.documents import cut_at_character, read_documents, split_documents
from utils.errors import UserError


@given(st.binary(max_size=200))
def test_without_a_separator_a_file_is_one_document(raw: bytes) -> None:
    assert split_documents(raw, "") == ([raw] if raw else [])


LINE = st.text(alphabet="ab é\t", max_size=6).map(lambda line: line.rstrip() + "x")


@given(
    documents=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    newline=st.sampled_from(["\n", "\r\n"]),
    gap=st.sampled_from(["", " ", "\t", "N", "N N"]),
    end=st.sampled_from(["", "N", "NNN"]),
)
def test_blank_lines_separate_documents(
    documents: list[list[str]], newline: str, gap: str, end: str
) -> None:
    wanted = [newline.join(lines) for lines in documents]
    blank = (newline + gap + newline).replace("N", newline)
    raw = blank.join(wanted) + end.replace("N", newline)
    assert split_documents(raw.encode(), "blank-line") == [text.encode() for text in wanted]


def test_any_text_separates_documents() -> None:
    assert split_documents(b"a<|>b<|><|>\nc\n", "<|>") == [b"a", b"b", b"c"]
    assert split_documents(b"a\tb", "\\t") == [b"a", b"b"]
    assert split_documents(b"a\n--\nb", "\\n--\\n") == [b"a", b"b"]
    assert split_documents("aéb".encode(), "é") == [b"a", b"b"]


@given(text=st.text(max_size=20), position=st.integers(0, 90))
def test_a_cut_never_splits_a_character(text: str, position: int) -> None:
    raw = text.encode()
    position = min(position, len(raw))
    cut = cut_at_character(raw, position)
    assert position - 3 <= cut <= position
    assert raw[:cut].decode() + raw[cut:].decode() == text


def test_a_cut_in_bytes_that_are_not_utf8_does_not_move() -> None:
    assert cut_at_character(b"\x80" * 100, 50) == 50


def test_bytes_are_not_changed(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbfone\r\ntwo\r"
    (tmp_path / "a.txt").write_bytes(raw)
    assert list(read_documents([tmp_path / "a.txt"], "", "strict")) == [raw]
    (tmp_path / "b.txt").write_bytes(b"ok\xff")
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8 at byte 2 \(0xff\)"):
        list(read_documents([tmp_path / "a.txt", tmp_path / "b.txt"], "", "strict"))
    assert list(read_documents([tmp_path / "b.txt"], "", "bytes")) == [b"ok\xff"]
