"""atomic_folder: a folder is written completely or not at all."""

from __future__ import annotations

import errno
import stat

import pytest

from utils.errors import UserError
from utils.files import atomic_folder, check_writable


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_written_atomically(tmp_path, exists):
    folder = tmp_path / "one" / "two"
    if exists:
        folder.mkdir(parents=True)
    check_writable(folder, "--out", "new folder")
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_bytes(b"1")
        assert not (folder / "a").exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert [path.name for path in folder.parent.iterdir()] == ["two"]
    with pytest.raises(UserError, match="--out .*two: the folder is not empty"):
        check_writable(folder, "--out", "new folder")


def test_replaced_files_and_their_folder_keep_their_modes(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    (folder / "a").chmod(0o600)
    folder.chmod(0o700)
    with atomic_folder(folder, replaces=["a"]) as temporary:
        (temporary / "a").write_bytes(b"new")
    assert (folder / "a").read_bytes() == b"new"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder / "a", folder)] == [0o600, 0o700]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "one" / "two") as temporary:
        (temporary / "a").write_bytes(b"1")
        raise error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError) as caught, atomic_folder(tmp_path / "one"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("replaces", [(), ("a", "b")])
def test_files_written_meanwhile_are_kept(tmp_path, replaces):
    with pytest.raises(OSError) as caught:
        with atomic_folder(tmp_path / "one", replaces=replaces) as temporary:
            (temporary / "a").touch()
            (tmp_path / "one").mkdir()
            (tmp_path / "one" / "mine").touch()
    assert caught.value.filename == str(tmp_path / "one")
    assert [path.name for path in tmp_path.rglob("*")] == ["one", "mine"]


def test_named_files_are_replaced_unless_nothing_is_written(tmp_path):
    folder, link = tmp_path / "one", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    for name in ("a", "b"):
        (folder / name).write_bytes(b"old")
    with atomic_folder(folder, replaces=("a", "b")):
        pass
    assert (folder / "a").read_bytes() == b"old"
    with atomic_folder(link, replaces=("a", "b")) as temporary:
        (temporary / "a").write_bytes(b"new")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"new")]
    assert link.is_symlink()
