"""A folder appears whole or not at all."""

from __future__ import annotations

import errno

import pytest

from utils.errors import UserError
from utils.files import new_folder, require_new


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_made_whole(tmp_path, exists):
    place = tmp_path / "one" / "two"
    if exists:
        place.mkdir(parents=True)
    require_new(place, "--out")
    with new_folder(place) as temporary:
        (temporary / "a").write_bytes(b"1")
        assert not (place / "a").exists()
    assert [path.name for path in place.iterdir()] == ["a"]
    assert [path.name for path in place.parent.iterdir()] == ["two"]
    with pytest.raises(UserError, match="--out .*two: the folder is not empty"):
        require_new(place, "--out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "one" / "two") as temporary:
        (temporary / "a").write_bytes(b"1")
        raise error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "one"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_what_came_meanwhile_stays(tmp_path):
    with pytest.raises(OSError), new_folder(tmp_path / "one"):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["one", "mine"]
