import errno
import hashlib
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prepared_folder import locked_atomic_folder
from utils import files
from utils.errors import UserError, describe_os_error
from utils.files import (
    atomic_file,
    atomic_folder,
    check_writable,
    decode_utf8,
    read_bytes,
    sha256_file,
    write_atomic,
)


@given(st.binary(max_size=200))
def test_write_and_read_give_the_same_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    write_atomic(path, content)
    assert read_bytes(path) == content
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()


def test_sha256_of_several_blocks(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "big").write_bytes(content)
    assert sha256_file(tmp_path / "big") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("read", [read_bytes, sha256_file])
def test_an_unreadable_file_is_named(read, tmp_path):
    with pytest.raises(UserError, match=r"absent\.txt: No such file"):
        read(tmp_path / "absent.txt")
    with pytest.raises(UserError, match=f"{tmp_path.name}: Is a directory"):
        read(tmp_path)


@given(st.text())
def test_text_is_decoded_exactly(text):
    assert decode_utf8(text.encode(), "x") == text


def test_newlines_and_byte_order_mark_are_kept():
    raw = b"\xef\xbb\xbfa\r\nb\rc\n"
    assert decode_utf8(raw, "x").encode() == raw


def test_an_error_of_decoding_names_file_offset_and_hint():
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 at byte 2 \(0xff\); .*--errors bytes"):
        decode_utf8(b"ab\xff", "a.txt")
    with pytest.raises(UserError, match=r"at byte 0 \(0xc3\); fix it"):
        decode_utf8(b"\xc3", "a.txt", hint="fix it")
    with pytest.raises(UserError, match="at byte 1 .*; fix it"):
        decode_utf8(b"a\xff\xfe", "a.txt", hint="fix it")


@pytest.mark.parametrize("kind", ["utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["once", "é"])
def test_utf_16_is_recognized_by_its_byte_order_mark(kind, text):
    with pytest.raises(UserError, match=f"a.txt: not .* with `iconv -f {kind.upper()} -t UTF-8`$"):
        decode_utf8(text.encode(kind), "a.txt")


def test_big_endian_utf_16_is_recognized():
    with pytest.raises(UserError, match="with `iconv -f UTF-16 -t UTF-8`$"):
        decode_utf8(b"\xfe\xff\x00a", "a.txt")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(step, fault, tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    write_atomic(path, b"old")

    def fail(*args):
        raise fault

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(type(fault)) as caught:
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["x.bin"]
    assert path.read_bytes() == b"old"
    if isinstance(fault, OSError):
        assert caught.value.filename == str(path)  # not the temporary file's name
        assert caught.value.errno == errno.ENOSPC


def test_a_disk_that_numpy_finds_full_is_reported_with_the_file(tmp_path):
    path = tmp_path / "x.gguf"
    with pytest.raises(OSError, match="not all was written") as caught, atomic_file(path):
        raise OSError("4800 requested and 432 written")
    line = describe_os_error(caught.value)
    assert line.startswith(f"{path}: not all was written (4800 requested and 432 written); free")


def test_the_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(source, target):
        order.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_atomic(tmp_path / "x", b"1")
    assert order == ["file", "rename", "folder"]


def test_writing_to_the_path_of_a_folder_fails(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="x'$"):
        write_atomic(tmp_path / "x", b"1")
    assert os.listdir(tmp_path) == ["x"]


def test_a_missing_folder_is_named_and_not_made(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "no" / "x", b"1")
    assert caught.value.filename == str(tmp_path / "no" / "x")
    assert os.listdir(tmp_path) == []


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"through")
    reader.join(timeout=10)
    assert received == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_may_be_a_pipe(run_python):
    program = "from utils.files import write_atomic; write_atomic('/dev/stdout', b'through')"
    done = run_python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "through", "")


def test_writing_works_where_folders_cannot_be_opened(tmp_path, monkeypatch):
    real_open = os.open

    def no_folders(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", no_folders)
    write_atomic(tmp_path / "x", b"1")
    assert read_bytes(tmp_path / "x") == b"1"


@pytest.mark.parametrize("failures", [2, 9])
def test_a_file_that_another_process_has_open_is_replaced_a_little_later(
    failures, tmp_path, monkeypatch
):
    """Windows refuses to replace a file that sample.py or a virus scanner has open."""
    real_replace, calls, waits = os.replace, [0], []

    def replace(*paths):
        calls[0] += 1
        if calls[0] <= failures:
            raise PermissionError(13, "Access is denied", str(paths[1]))
        real_replace(*paths)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files.time, "sleep", waits.append)
    (tmp_path / "x").write_bytes(b"old")
    if failures == 2:
        write_atomic(tmp_path / "x", b"new")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "y").write_bytes(b"y")
        assert read_bytes(tmp_path / "folder" / "y") == b"y"
    else:
        with pytest.raises(PermissionError, match="Access is denied"):
            write_atomic(tmp_path / "x", b"new")
        assert calls[0] == 4 and sum(waits) == 2.0
    assert read_bytes(tmp_path / "x") == (b"new" if failures == 2 else b"old")
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name]


@pytest.mark.parametrize("letter", ["a", "é", "🙂"])
def test_a_name_of_255_bytes_can_be_written(letter, tmp_path):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_atomic(path, b"1")
    assert read_bytes(path) == b"1"
    path.unlink()
    with locked_atomic_folder(path) as folder:
        (folder / "y").write_bytes(b"y")
    assert os.listdir(path) == ["y"] and os.listdir(tmp_path) == [path.name]


def test_a_file_that_is_written_in_parts_appears_when_it_is_complete(tmp_path):
    with atomic_file(tmp_path / "x") as file:
        file.write(b"ab")
        file.seek(0)
        file.write(b"c")
        assert not (tmp_path / "x").exists()
    assert read_bytes(tmp_path / "x") == b"cb"
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "x"):
        open(tmp_path / "other", "rb")
    assert caught.value.filename == str(tmp_path / "other")  # an error of the block itself
    assert read_bytes(tmp_path / "x") == b"cb" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("folder", "file", "folder: this is a folder; name a file"),
        ("no/x", "file", r"no/x: there is no folder .*no; make it first"),
        ("closed/x", "file", "can't write into .*closed; name another path"),
        ("file", "folder", "file: this is a file; name a folder"),
        ("file/x/y", "folder", "file is not a folder; name another path"),
        ("closed", "folder", "can't write into .*closed; name another path"),
        ("closed/x/y", "new folder", "can't write into .*closed; name another path"),
        ("folder", "new folder", "folder: the folder is not empty; name another, or remove it"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(path, kind, message, tmp_path, monkeypatch):
    for name in ("folder", "closed"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "file").touch()
    real = os.access  # patched, as root may write everywhere
    monkeypatch.setattr(os, "access", lambda p, mode: p.name != "closed" and real(p, mode))
    with pytest.raises(UserError, match=f"^--out .*{message}"):
        check_writable(tmp_path / path, "--out", kind)


def test_a_writable_path_passes(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, kind in [("x", "file"), ("folder", "folder"), ("a/b", "folder")]:
        check_writable(tmp_path / path, "--out", kind)
    check_writable(tmp_path / "folder", "--out", "new folder")
    check_writable("/dev/stdout", "--out")
