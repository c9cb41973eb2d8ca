"""Listing folders of text files, and checking that text is UTF-8."""

import errno
import os
import socket
from io import BytesIO
from pathlib import Path

import pytest

from tok import text_files
from tok.errors import TokenizerError
from tok.text_files import (
    check_include,
    check_stream,
    check_text,
    expand_folders,
    suggest_include,
)
from utils.errors import UserError


def test_folders_expand_to_sorted_files_without_hidden_ones(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/y/x.txt", ".hidden", ".git/config", "a/.cache/t.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = expand_folders([tmp_path / "b.txt", tmp_path])
    names = [file.relative_to(tmp_path).as_posix() for file in found]
    assert names == ["b.txt", "a/y/x.txt", "a/z.txt", "b.txt"]


def test_an_explicit_hidden_path_is_accepted(tmp_path):
    (tmp_path / ".corpus").mkdir()
    (tmp_path / ".corpus" / "a.txt").write_bytes(b"x")
    assert len(expand_folders([tmp_path / ".corpus"])) == 1
    assert len(expand_folders([tmp_path / ".corpus" / "a.txt"])) == 1


def test_empty_folder_and_missing_path(tmp_path):
    with pytest.raises(UserError, match="no files in this folder"):
        expand_folders([tmp_path])
    with pytest.raises(UserError, match=r"none: No such file or directory"):
        expand_folders([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("path", "message"), [("", "an empty path"), ("https://a.org/b.txt", "download it first")]
)
def test_an_empty_path_and_a_web_address(path, message):
    with pytest.raises(UserError, match=message):
        expand_folders(["README.md", path])


def test_links_to_files_and_folders_are_followed(tmp_path):
    corpus, outside = tmp_path / "corpus", tmp_path / "outside"
    for path in (corpus / "sub" / "a.txt", outside / "deep" / "b.txt", tmp_path / "c.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (corpus / "linked").symlink_to(outside)
    (corpus / "again").symlink_to(corpus / "sub")  # twice the same folder, but not a loop
    (corpus / "c.txt").symlink_to("../c.txt")
    found = [file.relative_to(corpus).as_posix() for file in expand_folders([corpus])]
    assert found == ["again/a.txt", "c.txt", "linked/deep/b.txt", "sub/a.txt"]


def unreadable(path, monkeypatch):
    """Make a folder, and listing it fail, for a superuser too."""
    path.mkdir()
    (path / "b.txt").write_bytes(b"x")
    scandir = os.scandir

    def refuse(folder):
        if os.fspath(folder) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)


def bind(path):
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ODD_ENTRIES = {
    "dangling": (lambda path, _: path.symlink_to("nowhere"), r"link to nowhere\): No .*--include$"),
    "itself": (lambda path, _: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "loop": (lambda path, _: path.symlink_to(".."), "a link to .*, which it is in; remove"),
    "detour": (
        lambda path, _: path.symlink_to(path.parent.parent.parent),
        "a link to .*, which it is in; remove",
    ),
    "unreadable": (unreadable, "Permission denied.*; repair it, or move it out"),
    "pipe": (lambda path, _: os.mkfifo(path), "a pipe, socket or device, not a file; move it"),
    "socket": (lambda path, _: bind(path), "a pipe, socket or device, not a file; move it"),
}


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")
@pytest.mark.parametrize(("make", "message"), ODD_ENTRIES.values(), ids=ODD_ENTRIES)
@pytest.mark.parametrize("include", [(), ("*.txt",)])
def test_what_is_neither_a_file_nor_a_folder_is_named(
    tmp_path, monkeypatch, make, message, include
):
    (tmp_path / "c" / "sub").mkdir(parents=True)
    (tmp_path / "c" / "a.txt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)  # a short path, as for sockets
    odd = Path("c/sub/odd")
    make(odd, monkeypatch)
    if include and not odd.is_dir():  # not chosen, and not a folder that may hold more
        assert expand_folders(["c"], include=include) == [Path("c/a.txt")]
        include = ("*.txt", "od*")
    with pytest.raises(UserError, match=f"^c/sub/.*odd.*{message}"):
        expand_folders(["c"], include=include)
    odd.rename("c/sub/.odd")  # hidden: left out
    assert expand_folders(["c"], include=include) == [Path("c/a.txt")]


@pytest.mark.parametrize(
    ("include", "wanted"),
    [
        (["*.md"], ["a/c.md", "b.md"]),
        (["*.md", "*.txt"], ["a/c.md", "a/d.txt", "b.md"]),
        (["**/*.md"], ["a/c.md", "b.md"]),
        (["a/*"], ["a/c.md", "a/d.txt"]),
        (["[b-c].md"], ["a/c.md", "b.md"]),
    ],
)
def test_patterns_choose_the_files_of_folders(tmp_path, include, wanted):
    for name in ("b.md", "cat.png", "a/c.md", "a/d.txt", "a/.e.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = expand_folders([tmp_path, tmp_path / "cat.png"], include=include)
    assert [file.relative_to(tmp_path).as_posix() for file in found] == [*wanted, "cat.png"]


def test_patterns_without_effect_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"none of its 1 files matches \*\.md or README; give"):
        expand_folders([tmp_path], include=["*.md", "README"])
    with pytest.raises(UserError, match="--include: has an effect only on folders"):
        check_include([tmp_path / "a.txt"], ["*.txt"], "--include")
    check_include([tmp_path / "a.txt", tmp_path], ["*.txt"], "--include")


@pytest.mark.parametrize(
    ("names", "bad", "wanted"),
    [
        (["a.md", "b.md", "c.jsonl", "cat.png"], "cat.png", "'*.md' '*.jsonl'"),
        (["a.md", "b.png", "c.jpg", "README"], "c.jpg", "'*.md'"),  # b.png is not text either
        (["a.md", "d.jsonl.gz", "b.md.png"], "b.md.png", "'*.md' '*.jsonl.gz'"),
        (["a.md", "a.md.gz"], "a.md.gz", "'*.md'"),
        (
            ["a.md", "b.txt", "c.json", "d.jsonl", "e.txt.gz", "h.jsonl.gz", "cat.png"],
            "cat.png",
            "'*.md' '*.txt' '*.json' '*.jsonl' '*.txt.gz' '*.jsonl.gz'",
        ),
        (["a.png", "b.png"], "a.png", "'*.txt'"),
        (["a.txt", "b.txt"], "a.txt", None),  # no pattern helps
        (["a.md", "b;rm.x y"], "a.md", "'*.txt'"),  # an odd ending is not suggested
    ],
)
def test_an_error_about_a_file_of_a_folder_suggests_the_other_files(tmp_path, names, bad, wanted):
    contents = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".gz": b"\x1f\x8b\x08\x00\xff"}
    for name in names:
        (tmp_path / name).write_bytes(contents.get(Path(name).suffix, b"text"))
    files = expand_folders([tmp_path])
    with pytest.raises(UserError) as caught, suggest_include(files, [tmp_path], "--include"):
        raise UserError(f"{tmp_path / bad}: bad; convert it")
    hint = f", or choose files of the folder, such as --include {wanted}" if wanted else ""
    assert str(caught.value) == f"{tmp_path / bad}: bad; convert it{hint}"
    with pytest.raises(UserError, match="convert it$"):
        with suggest_include(files, [tmp_path / bad], "--include"):  # the file itself is given
            raise UserError(f"{tmp_path / bad}: bad; convert it")


def test_invalid_utf8_is_rejected_unless_errors_is_bytes():
    check_text(b"\xef\xbb\xbfa\r\nb\r\x00\n", "a", "strict")
    check_text(b"\xff", "a", "bytes")
    with pytest.raises(UserError, match="a: not UTF-8 at byte 0"):
        check_text(b"\xff", "a", "strict")
    with pytest.raises(TokenizerError, match="errors must be"):
        check_text(b"a", "a", "ignore")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_stream_is_checked_like_a_text_for_any_block_size(size, monkeypatch):
    monkeypatch.setattr(text_files, "READ_BYTES", size)
    good = "aé年😀\r\n".encode()
    assert check_stream(BytesIO(good * 3), "a", "strict") == 3 * len(good)
    for bad in (b"\xff", b"\x80", b"\xe5\xb9", b"\xf0\x9f\x98", b"\xed\xa0\x80"):
        for raw in (good + bad, good + bad + good):
            with pytest.raises(UserError) as expected:
                check_text(raw, "a", "strict")
            with pytest.raises(UserError) as found:
                check_stream(BytesIO(raw), "a", "strict")
            assert str(found.value) == str(expected.value)
            assert check_stream(BytesIO(raw), "a", "bytes") == len(raw)
