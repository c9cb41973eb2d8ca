"""data.prepare: every document once, folders named by identity and written atomically."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import prepare, prepared_folder
from data.config import DataConfig
from data.prepared_folder import check_content, read_meta
from data.stories import story as stories
from data.token_file import TokenWriter
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError, describe_os_error


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tok") / "tok.json"
    BPETokenizer.train(make_text(), vocab_size=300).save(path)
    return path


Make = Callable[..., tuple[Path, list[bytes], list[bytes]]]


@pytest.fixture
def make(tokenizer: Path, tmp_path: Path) -> Make:
    """Return a function that prepares files and returns the folder and both parts' documents."""

    def run(files: tuple[str, ...], **changes: object) -> tuple[Path, list[bytes], list[bytes]]:
        cache = str(tmp_path / "cache")
        config = DataConfig(files=files, tokenizer=str(tokenizer), cache_dir=cache, **changes)
        folder = prepare.prepare(config, None)
        return folder, documents(folder, "train"), documents(folder, "val")

    return run


def documents(folder: Path, part: str) -> list[bytes]:
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    ids = np.load(folder / f"{part}.npy").tolist()
    counts = read_meta(folder)[part]
    assert ids[-1] == tokenizer.eot_id and max(ids) < tokenizer.vocab_size
    parts: list[list[int]] = [[]]
    for token in ids[:-1]:
        if token == tokenizer.eot_id:
            parts.append([])
        else:
            parts[-1].append(token)
    found = [tokenizer.decode_bytes(part) for part in parts]
    assert counts == {
        "tokens": len(ids),
        "bytes": sum(map(len, found)),
        "documents": ids.count(tokenizer.eot_id),
    }
    return found


def write(path: Path, raw: bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    return str(path)


def test_a_folder_of_files_is_split_by_documents(make: Make, tmp_path: Path) -> None:
    names = [f"{i:02d}.txt" for i in range(30)]
    for i, name in enumerate(names):
        write(tmp_path / "text" / name, f"file {i}\r\n".encode())
    folder, train, val = make((str(tmp_path / "text"),))
    assert sorted(train + val) == sorted(f"file {i}\r\n".encode() for i in range(30))
    assert len(val) == 3 and read_meta(folder)["split"] == "documents"
    assert train == sorted(train, key=lambda raw: int(raw[5:])), "in the order of the files"


def test_few_documents_are_split_by_bytes(make: Make, tmp_path: Path) -> None:
    text = ("añb\u4e16🙂" * 97).encode()
    for fraction in (0.1, 0.1234, 0.5, 0.75):
        for extra in range(4):
            raw = text + b"z" * extra
            _, train, val = make((write(tmp_path / "a.txt", raw),), val_fraction=fraction)
            assert b"".join(train + val) == raw
            train[0].decode(), val[0].decode()
            wanted = int(len(raw) * fraction)
            assert wanted <= len(val[0]) <= wanted + 3


def test_split_by_bytes_over_several_documents(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one two three\n\nfour\n\nfive six")
    _, train, val = make((path,), doc_sep="blank-line", split="bytes", val_fraction=0.5)
    assert train == [b"one two three"] and val == [b"four", b"five six"]
    _, train, val = make((path,), doc_sep="blank-line", split="bytes", val_fraction=0.1)
    assert train == [b"one two three", b"four", b"five s"] and val == [b"ix"]


def test_validation_files_are_not_split(make: Make, tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.txt", b"train"), write(tmp_path / "b.txt", b"a\n\nb")
    _, train, val = make((one,), val_files=(other,), doc_sep="blank-line")
    assert (train, val) == ([b"train"], [b"a", b"b"])


def test_bytes_that_are_not_utf8_are_kept(make: Make, tmp_path: Path) -> None:
    raw = bytes(range(256)) * 4 + b"\x80" * 100
    _, train, val = make((write(tmp_path / "a.bin", raw),), errors="bytes")
    assert b"".join(train + val) == raw and len(val[0]) == len(raw) // 10


def test_an_end_of_text_string_in_the_text_is_ordinary_text(make: Make, tmp_path: Path) -> None:
    raw = b"a<|endoftext|>b" * 20
    _, train, val = make((write(tmp_path / "a.txt", raw),))
    assert b"".join(train + val) == raw and len(train) == len(val) == 1


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_same_input_is_reused_and_a_changed_one_is_prepared(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"some text here")
    folder, *_ = make((path,))
    before = stamps(folder)
    moved = write(tmp_path / "moved.txt", b"some text here")
    assert make((path,))[0] == make((moved,))[0] == folder and stamps(folder) == before
    others = [
        make((path,), val_fraction=0.2)[0],
        make((path,), errors="bytes")[0],
        make((path,), doc_sep="t")[0],
        make((write(tmp_path / "a.txt", b"some text herE"),))[0],
    ]
    assert len({folder, *others}) == 5
    assert stamps(folder) == before
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {p.name for p in (folder, *others)}


def test_the_tokenizer_is_part_of_the_identity(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", make_text().encode())
    config = DataConfig(files=(path,), cache_dir=str(tmp_path / "cache"))
    one, other = prepare.prepare(config, 280), prepare.prepare(config, 290)
    assert one != other and read_meta(one)["vocab_size"] == 280
    assert read_meta(one)["tokenizer_sha256"] == (
        BPETokenizer.load(one / "tokenizer.json").identity
    )
    train = BPETokenizer.train(documents(one, "train"), vocab_size=280)
    assert train == BPETokenizer.load(
        one / "tokenizer.json"
    ), "merges come from the training text only"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_an_interrupted_preparation_leaves_nothing(
    error: BaseException, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.txt", b"some text here")
    original, calls = prepare.write_split, []

    def stops(*args: object) -> dict[str, int]:
        calls.append(args)
        if len(calls) == 2:
            raise error
        return original(*args)

    monkeypatch.setattr(prepare, "write_split", stops)
    with pytest.raises(BaseException, match="No space|^$"):
        make((path,))
    assert not (tmp_path / "cache").exists()


def test_the_error_about_a_full_disk_names_the_folder_and_a_hint(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(
        self: TokenWriter, ids: np.ndarray
    ) -> None:  # like a real error of write, it names no file
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TokenWriter, "write", full)
    with pytest.raises(OSError, match="No space") as caught:
        make((write(tmp_path / "a.txt", b"some text here"),))
    line = describe_os_error(caught.value)
    assert line.startswith(f"{tmp_path / 'cache' / 'text-'}") and "free some space" in line
    assert not (tmp_path / "cache").exists()


def test_changed_tokens_are_detected(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"some text here, and some more")
    folder, train, val = make((path,))
    check_content(folder)
    for part in ("train", "val"):
        raw = bytearray((folder / f"{part}.npy").read_bytes())
        raw[-3] ^= 1  # as many tokens as before
        (folder / f"{part}.npy").write_bytes(raw)
        with pytest.raises(UserError, match=rf"{part}\.npy: not what data.prepare wrote, .*again"):
            check_content(folder)
        assert make((path,)) == (folder, train, val), "prepared again"
    (folder / "val.npy").unlink()
    with pytest.raises(UserError, match="val.npy: No such file"):
        check_content(folder)


def test_a_failure_keeps_the_existing_folder(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(
        files=(write(tmp_path / "a.txt", b"old text, quite short"),), tokenizer=str(tokenizer)
    )
    out = tmp_path / "out"
    prepare.prepare(config, None, out)
    before = stamps(out)
    write(tmp_path / "a.txt", b"new text, and more")
    with pytest.raises(UserError, match="out: holds other prepared data; name another folder"):
        prepare.prepare(config, None, out)
    assert stamps(out) == before
    (out / "meta.json").unlink()  # the rest may be files of others
    with pytest.raises(UserError, match="out: holds tokenizer.json without meta.json; name anoth"):
        prepare.prepare(config, None, out)
    for path in out.iterdir():
        path.unlink()
    write(tmp_path / "a.txt", b"new\xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 3"):
        prepare.prepare(config, None, out)
    assert list(out.iterdir()) == []
    write(tmp_path / "a.txt", b"new text, and more")
    prepare.prepare(config, None, out)
    assert b"".join(documents(out, "train") + documents(out, "val")) == b"new text, and more"
    (out / "meta.json").unlink()
    write(out / "mine.txt", b"of the user")
    with pytest.raises(UserError, match="out: holds mine.txt, which is not prepared data; name"):
        prepare.prepare(config, None, out)
    (out / "mine.txt").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "out"}


def test_files_of_a_killed_process_are_removed(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"some text here")
    folder, *_ = make((path,))
    stale = folder.parent / f".{folder.name}.tmp"
    os.rename(folder, stale)
    (stale / "meta.json").unlink()
    (stale / ".val.npy.tmp-1").write_bytes(b"half")
    assert make((path,))[0] == folder
    assert sorted(stamps(folder)) == ["meta.json", "tokenizer.json", "train.npy", "val.npy"]
    assert not stale.exists()


def test_a_file_in_the_way_and_a_damaged_meta(make: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"some text here")
    with pytest.raises(UserError, match="is a file, not a folder; name another folder"):
        prepare.prepare(DataConfig(files=(path,)), 257, Path(path))
    folder, *_ = make((path,))
    meta = read_meta(folder)
    damages = ["{", "[]", "null", "{}", json.dumps({**meta, "val": {}})]
    damages += [json.dumps({**meta, "identity": 3}), json.dumps({**meta, "floor": 3})]
    for text in damages:
        (folder / "meta.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not a prepared folder"):
            read_meta(folder)
    newer = {**meta, "recipe": {**meta["recipe"], "format": 99}}
    (folder / "meta.json").write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(UserError, match=f"format 99, this program reads {prepared_folder.FORMAT}"):
        read_meta(folder)
    assert make((path,))[0] == folder and read_meta(folder) == meta, "prepared again"


def test_stories_have_a_floor_and_separate_validation(tmp_path: Path) -> None:
    config = DataConfig(
        story_bytes=30_000, val_story_bytes=6_000, story_seed=7, cache_dir=str(tmp_path / "cache")
    )
    folder = prepare.prepare(config, 300)
    train, val = documents(folder, "train"), documents(folder, "val")
    assert not set(train) & set(val) and 5_000 <= sum(map(len, val)) <= 6_000
    floor = stories.floor(story.decode() for story in val)
    assert read_meta(folder)["floor"]["nats_per_byte"] == floor.nats_per_byte
    assert read_meta(folder)["floor"]["total_nats"] == floor.total_nats
    before = stamps(folder)
    assert prepare.prepare(config, 300) == folder and stamps(folder) == before
    assert prepare.prepare(replace(config, story_seed=9), 300) != folder
    text = write(tmp_path / "stories.txt", b"\n\n".join(val * 3) + b"\n")
    again = DataConfig(
        files=(text,), val_files=(text,), doc_sep="blank-line", cache_dir=config.cache_dir
    )
    meta = read_meta(prepare.prepare(again, 300))
    assert meta["floor"]["nats_per_byte"] == pytest.approx(floor.nats_per_byte)
    other = write(tmp_path / "other.txt", b"no story\n\nat all")
    meta = read_meta(prepare.prepare(replace(again, val_files=(other,)), 300))
    assert meta["floor"] is None


def test_the_command_prints_its_counts(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = write(tmp_path / "a.txt", b"one\n\ntwo"), str(tmp_path / "out")
    argv = [text, "--tokenizer", str(tokenizer), "--out", out, "--doc-sep", "blank-line"]
    assert prepare.main([*argv, "--split", "documents", "--val_fraction", "0.5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == out and printed["train"]["documents"] == 1
    out = str(tmp_path / "refused")
    with pytest.raises(
        UserError, match="one document can't be split .* --split bytes, or name --doc-sep$"
    ):
        prepare.main([text, "--tokenizer", str(tokenizer), "--out", out, "--split", "documents"])
    with pytest.raises(UserError, match="val part holds no text; .* another --val-fraction$"):
        prepare.main([text, "--tokenizer", str(tokenizer), "--out", out, "--val-fraction", "1e-9"])
    write(tmp_path / "a.txt", b"one\xff")
    with pytest.raises(UserError, match="pass --errors bytes"):
        prepare.main([text, "--tokenizer", str(tokenizer), "--out", out])


def test_the_token_file_does_not_depend_on_the_number_of_workers(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tok.encoding.parallel.JOB_BYTES", 300)
    monkeypatch.setattr("tok.encoding.parallel.MAX_SERIAL_JOBS", 1)
    loaded = BPETokenizer.load(tokenizer)
    documents = [b"one", b"", "two é\n".encode() * 900, b"three\xff"] * 3
    made = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.npy"
        counts = prepare.write_split(path, iter(documents), loaded, "train", workers)
        made.append((counts, path.read_bytes()))
    assert made[0] == made[1]
    ids = [token for raw in documents for token in [*loaded.encode(raw), loaded.eot_id]]
    assert np.load(path).tolist() == ids
    assert made[0][0] == {"tokens": len(ids), "bytes": sum(map(len, documents)), "documents": 12}
