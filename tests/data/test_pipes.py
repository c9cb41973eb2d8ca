"""Pipes as data files."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from data import prepare
from data.config import DataConfig
from data.prepared_folder import read_meta
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tok") / "tok.json"
    BPETokenizer.train(make_text(), vocab_size=300).save(path)
    return path


@pytest.mark.parametrize("name", ["text", "text.txt.gz"])
def test_a_pipe_is_read_once_and_gives_the_data_of_its_file(
    tokenizer: Path, tmp_path: Path, name: str
) -> None:
    raw = make_text().encode()
    content = gzip.compress(raw) if name.endswith(".gz") else raw
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / name).write_bytes(content)
    os.mkfifo(tmp_path / name)
    writer = threading.Thread(target=(tmp_path / name).write_bytes, args=(content,), daemon=True)
    writer.start()
    folders = [tmp_path / "from pipe", tmp_path / "from file"]
    for path, out in zip((tmp_path / name, tmp_path / "file" / name), folders, strict=True):
        config = DataConfig(files=(str(path),), tokenizer=str(tokenizer), doc_sep="blank-line")
        prepare.prepare(config, 300, out)
    assert read_meta(folders[0])["identity"] == read_meta(folders[1])["identity"]
    assert (folders[0] / "val.npy").read_bytes() == (folders[1] / "val.npy").read_bytes()


def test_an_error_in_a_pipe_names_the_pipe(tokenizer: Path, tmp_path: Path) -> None:
    for content, message in ((b"a\xff", "text: not UTF-8 at byte 1"), (b"", "text: nothing in")):
        pipe = tmp_path / f"{len(content)}" / "text"
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True).start()
        with pytest.raises(UserError, match=f"{pipe.parent}/{message}"):
            prepare.prepare(DataConfig(files=(str(pipe),), tokenizer=str(tokenizer)), 300)
    with pytest.raises(UserError, match="/dev/null: a device, not a file"):
        prepare.prepare(DataConfig(files=("/dev/null",), tokenizer=str(tokenizer)), 300)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/dev/fd/963", "; a pipe can't be read again: save its text to a file, and name that"),
        ("/proc/self/fd/963", ": save its text to a file, and name that"),
        ("-", "; for standard input, name /dev/stdin"),
    ],
)
def test_a_pipe_of_an_ended_command_and_a_dash_get_a_fix(path: str, end: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare.DocumentSource(DataConfig(files=(path,)))
    assert str(caught.value).startswith(f"{path}: No such file") and str(caught.value).endswith(end)
