"""Prepared folders: written atomically, by one process at a time."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import pytest

from data import prepare
from data.config import DataConfig
from data.prepared_folder import locked_atomic_folder, read_meta
from tok.tokenizer import BPETokenizer
from utils.errors import UserError


def text(tmp_path: Path) -> Path:
    """A file with a text."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"some text here")
    return path


def make(path: Path) -> Path:
    """Prepare a file in a cache next to it."""
    cache = str(path.parent / "cache")
    config = DataConfig(files=(str(path),), tokenizer="tok/bpe.json", cache_dir=cache)
    return prepare.prepare(config, None)


def test_a_second_writer_of_a_folder_waits_for_the_first(tmp_path: Path) -> None:
    folder, seen, inside = tmp_path / "deep" / "x", [], threading.Event()

    def second() -> None:
        inside.wait()
        with locked_atomic_folder(folder):
            seen.append((folder / "meta.json").exists())

    thread = threading.Thread(target=second)
    thread.start()
    with locked_atomic_folder(folder) as temporary:
        inside.set()
        thread.join(0.3)
        assert thread.is_alive() and not seen, "the second waits"
        (temporary / "meta.json").write_bytes(b"{}")
    thread.join(10)
    assert seen == [True] and [p.name for p in folder.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"merges": []}', None])
def test_a_damaged_tokenizer_is_repaired_in_the_cache(damage: bytes | None, tmp_path: Path) -> None:
    path = text(tmp_path)
    folder = make(path)
    (folder / "tokenizer.json").unlink()
    if damage is not None:
        (folder / "tokenizer.json").write_bytes(damage)
    assert make(path) == folder
    assert BPETokenizer.load(folder / "tokenizer.json").vocab_size > 256


def test_another_tokenizer_in_the_cache_is_replaced(tmp_path: Path) -> None:
    path = text(tmp_path)
    folder = make(path)
    BPETokenizer.train(["some text"], vocab_size=258).save(folder / "tokenizer.json")
    make(path)
    assert BPETokenizer.load(folder / "tokenizer.json").vocab_size == 2048


def test_any_changed_byte_of_meta_json_is_noticed(tmp_path: Path) -> None:
    folder = make(text(tmp_path))
    path = folder / "meta.json"
    raw, meta = path.read_bytes(), read_meta(folder)
    for position in range(0, len(raw), 7):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        with contextlib.suppress(UserError):
            assert read_meta(folder) == meta
    old = {name: value for name, value in meta.items() if name != "meta_sha256"}
    path.write_text(json.dumps(old), encoding="utf-8")  # as version 0.2 wrote it
    assert read_meta(folder) == old


def test_two_writers_of_one_folder_do_not_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = text(tmp_path), tmp_path / "out"
    configs = [
        DataConfig(files=(str(path),), tokenizer="tok/bpe.json", val_fraction=share)
        for share in (0.1, 0.5)
    ]
    check = prepare.check_overwrite

    def check_then_lose(folder: Path, identity: str) -> None:
        monkeypatch.setattr(prepare, "check_overwrite", check)
        check(folder, identity)
        prepare.prepare(configs[0], None, out)  # the other process is faster

    monkeypatch.setattr(prepare, "check_overwrite", check_then_lose)
    with pytest.raises(UserError, match="out: holds other prepared data"):
        prepare.prepare(configs[1], None, out)
    prepare.prepare(configs[0], None, out)
