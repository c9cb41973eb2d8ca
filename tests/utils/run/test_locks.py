"""Locks and syncs on file systems that lack them, and temporary files of others."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils import files
from utils.errors import UserError
from utils.files import write_all_atomic, write_atomic
from utils.run.folder import RunFolder
from utils.run.locks import warn_once

fcntl = pytest.importorskip("fcntl", reason="oracle: no flock on Windows")


@pytest.fixture(autouse=True)
def forget_warnings() -> Iterator[None]:
    """Each test gets its own warnings, which are printed once per process."""
    yield
    warn_once.cache_clear()
    files._warn_of_sync.cache_clear()


def failing(number: int, where: str = "any") -> object:
    """A replacement of flock or fsync: with `folder`, only folders fail, as on CIFS."""
    fsync = os.fsync

    def call(handle: int, *operation: int) -> None:
        if where == "folder" and not stat.S_ISDIR(os.fstat(handle).st_mode):
            return fsync(handle)
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_is_written_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    for _ in range(2):
        RunFolder(tmp_path).lock()
    err = capsys.readouterr().err
    assert err.count("has no locks") == 1 and os.strerror(number) in err


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_the_system_call_a_lock_file_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))
    one = RunFolder(tmp_path)
    one.lock()
    with pytest.raises(UserError, match="another process is writing this run"):
        RunFolder(tmp_path).lock()
    one.close()


def test_a_failing_disk_is_not_a_missing_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        RunFolder(tmp_path).lock()


def test_a_held_lock_is_still_an_error(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").lock()
    one = RunFolder(tmp_path / "run")
    one.lock()
    with pytest.raises(UserError, match="another process is writing this run"):
        RunFolder(tmp_path / "run").lock()
    one.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_is_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.os, "fsync", failing(number, "folder"))
    for content in (b"1", b"2"):
        write_atomic(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == b"2"
    assert capsys.readouterr().err.count("can't sync") == 1


def test_an_error_of_the_disk_in_sync_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", failing(errno.EIO, "folder"))
    with pytest.raises(OSError, match=f"Input/output error.*{tmp_path.name}"):
        write_atomic(tmp_path / "x", b"1")


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"of another")
    (tmp_path / f".x.tmp-{os.getpid()}").symlink_to(victim)
    write_atomic(tmp_path / "x", b"new")
    assert victim.read_bytes() == b"of another" and (tmp_path / "x").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "x"]


def test_a_link_planted_at_the_last_moment_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, link = tmp_path / "victim", tmp_path / f".x.tmp-{os.getpid()}"
    victim.write_bytes(b"of another")
    link.symlink_to(victim)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "x", b"new")
    assert victim.read_bytes() == b"of another"


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o640])
def test_a_replaced_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(mode)
    write_atomic(tmp_path / "x", b"new")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_several_files_are_written_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, fsync = [0], os.fsync

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*b\.txt"):
        write_all_atomic({tmp_path / "a.txt": b"1", tmp_path / "b.txt": b"2"})
    assert not list(tmp_path.iterdir())
