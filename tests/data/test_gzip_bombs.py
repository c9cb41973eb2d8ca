"""A small gzip file does not fill the memory."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from data.documents import read_documents
from utils.errors import UserError
from utils.processes import peak_rss_bytes


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.json.gz"])
@pytest.mark.parametrize("beginning", [b"", b'{"text": "'])
def test_a_file_that_unpacks_to_a_huge_text_is_refused(
    tmp_path: Path, name: str, beginning: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(beginning) + gzip.compress(b"0" * 1_000_000) * 400)
    before = peak_rss_bytes()
    with pytest.raises(UserError, match=f"{name}: unpacks to more than 100 times its size"):
        for _ in read_documents([path], "", "strict"):
            pass
    assert peak_rss_bytes() - before < 200e6


@pytest.mark.parametrize("n_bytes, distinct", [(2_000_000, 1), (5_000_000, 99)])
def test_repetitive_texts_are_read(tmp_path: Path, n_bytes: int, distinct: int) -> None:
    rng = random.Random(1)
    lines = [f"{rng.random()}\n".encode() for _ in range(distinct)]
    text = b"".join(rng.choice(lines) for _ in range(n_bytes // len(lines[0])))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    assert list(read_documents([tmp_path / "a.txt.gz"], "", "strict")) == [text]
