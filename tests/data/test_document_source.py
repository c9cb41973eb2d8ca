"""Which files of a folder are read, and how much of the validation part is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.config import DataConfig
from data.document_source import DocumentSource
from data.prepare import prepare
from data.prepared_folder import read_meta
from tests.conftest import ROOT
from utils.errors import UserError


def write(path: Path, raw: bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    return str(path)


def parts(files: tuple[str, ...], **changes: Any) -> list[list[bytes]]:
    source = DocumentSource(DataConfig(files=files, **changes))
    return [list(source.documents(part)) for part in ("train", "val")]


def test_a_picture_among_the_notes_is_left_out(tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        write(tmp_path / "notes" / name, name.encode())
    write(tmp_path / "notes" / "cat.png", b"\x89PNG\r\n\x1a\n\x00")
    notes = str(tmp_path / "notes")
    with pytest.raises(UserError, match=r"cat.png: not UTF-8 .*, such as --data.include '\*.md'$"):
        parts((notes,))
    train, val = parts((notes,), include=("*.md",), split="documents")
    assert sorted(train + val) == [b"a.md", b"b.md"]
    (tmp_path / "notes" / "link.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match="link.txt .*, or choose .* with --data.include$"):
        parts((notes,))
    with pytest.raises(UserError, match="--data.include: has an effect only on folders"):
        parts((str(tmp_path / "notes" / "a.md"),), include=("*.md",))
    with pytest.raises(UserError, match="not UTF-8 at byte 0 .* to take any bytes$"):
        parts((str(tmp_path / "notes" / "cat.png"),))


NOTES = {"a.md": b"one\n\ntwo", "b.md": b"", "sub/c.md": b"three", "cat.png": b"\x89PNG"}


@pytest.mark.parametrize(
    ("more", "changes", "wanted"),
    [
        ({}, {}, "read 2 files: 3 documents, 11 bytes of text; left out: 1 empty file, 1 that"),
        ({"x.jpg": b"\xff"}, {}, "1 empty file, 2 that do not match '*.md' or '*.jsonl'\n"),
        (
            {"d.jsonl": b'{"text": "\\u00e9"}\n' * 9},
            {},
            "read 3 files: 12 documents, 29 bytes of text; ",
        ),
        ({}, {"val_files": True}, "read 3 files: 5 documents, 20 bytes of text; "),
        ({}, {"val_files": True, "val_max_bytes": 4}, "3 files: 5 documents, 20 bytes of text; "),
    ],
)
def test_preparing_says_what_was_read_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: Any, changes: Any, wanted: str
) -> None:
    for name, raw in (NOTES | more).items():
        write(tmp_path / "notes" / name, raw)
    if "val_files" in changes:
        changes = changes | {"val_files": (write(tmp_path / "val.txt", b"four\n\nfive."),)}
    config = DataConfig(
        files=(str(tmp_path / "notes"),),
        include=("*.md", "*.jsonl"),
        doc_sep="blank-line",
        tokenizer=str(ROOT / "tok" / "bpe.json"),
        cache_dir=str(tmp_path / "cache"),
        **changes,
    )
    prepare(config, None)
    assert wanted in capsys.readouterr().err
    prepare(config, None)  # reused
    assert capsys.readouterr().err == ""
    text = write(tmp_path / "text.txt", b"one two.")
    plain = DataConfig(files=(text,), val_fraction=0.5, tokenizer=config.tokenizer)
    prepare(plain, None, tmp_path / "plain")
    assert "read 1 file: 1 document, 8 bytes of text\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        (0, [b"aaaa", b"bb", b"cccccccc", b"d"]),
        (99, [b"aaaa", b"bb", b"cccccccc", b"d"]),
        (14, [b"aaaa", b"bb", b"cccccccc"]),
        (13, [b"aaaa", b"bb", b"ccccccc"]),
        (11, [b"aaaa", b"bb"]),
        (3, [b"aaa"]),
    ],
)
def test_only_the_first_bytes_of_the_validation_part(
    tmp_path: Path, limit: int, wanted: list[bytes]
) -> None:
    """Whole documents; one is cut only if the ones before it fill less than half of the limit."""
    text = write(tmp_path / "train.txt", b"text")
    val_text = write(tmp_path / "val.txt", b"aaaa\n\nbb\n\ncccccccc\n\nd")
    config: dict[str, Any] = {
        "val_files": (val_text,),
        "doc_sep": "blank-line",
        "val_max_bytes": limit,
    }
    assert parts((text,), **config) == [[b"text"], wanted]
    own = {"tokenizer": str(ROOT / "tok" / "bpe.json"), "cache_dir": str(tmp_path / "cache")}
    meta = read_meta(prepare(DataConfig(files=(text,), **config, **own), None))
    assert meta["val"].get("part_bytes") == (15 if limit else None)
    assert ("val_max_bytes" in meta["recipe"]["corpus"]) == (limit > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"doc_sep": "%"}, "--data.doc_sep: has no"), ({"errors": "bytes"}, "--data.errors: has no")],
)
def test_settings_without_effect_on_json(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(UserError, match=message):
        parts((path,), **changes)
    DocumentSource(DataConfig(files=(path, write(tmp_path / "b.txt", b"c")), **changes))


def test_a_validation_file_that_is_also_a_training_file_gives_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (write(tmp_path / name, b"text") for name in ("a.txt", "b.txt"))
    DocumentSource(DataConfig(files=(one,), val_files=(other,)))
    assert capsys.readouterr().err == ""
    DocumentSource(DataConfig(files=(str(tmp_path),), val_files=(other,)))
    assert "warning: " in (line := capsys.readouterr().err) and "b.txt: a file of" in line
