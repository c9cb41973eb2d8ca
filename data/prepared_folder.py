"""Prepared folders: train.npy, val.npy, tokenizer.json, meta.json; all of it or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.files import sha256_file, sync_folder

FORMAT = 1
META = "meta.json"
PARTS = ("train", "val")
COUNTS = ("tokens", "bytes", "documents")


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a prepared folder.

    Raises:
        UserError: the folder is not a prepared one, or of another format.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        version = meta["recipe"]["format"]
        whole = all(isinstance(meta[part][name], int) for part in PARTS for name in COUNTS)
        whole = whole and isinstance(meta["identity"] + meta["tokenizer_sha256"], str)
        whole = whole and all(isinstance(meta["sha256"][part], str) for part in PARTS)
        whole = whole and isinstance(meta["floor"], (dict, type(None)))
    except (OSError, ValueError, KeyError, TypeError):
        whole, version = False, None
    if version not in (None, FORMAT):
        raise UserError(f"{folder / META}: format {version}, this program reads {FORMAT}")
    if not whole:
        raise UserError(f"{folder}: not a prepared folder; make it with `python -m data.prepare`")
    return meta


def check_content(folder: Path) -> None:
    """Checks that the token files are those that meta.json beside them was written for.

    Reads both files whole: a second or two for each gigabyte.

    Raises:
        UserError: not a prepared folder, or a file is missing or has changed.
    """
    expected = read_meta(folder)["sha256"]
    for part in PARTS:
        path = folder / f"{part}.npy"
        if sha256_file(path) != expected[part]:
            raise UserError(
                f"{path}: not what data.prepare wrote, its sha256 is another than meta.json "
                "beside it says; put the original back, or run data.prepare again"
            )


def check_belonging(
    folder: Path,
    tokenizer: BPETokenizer,
    vocab_size: int,
    *,
    foreign: BPETokenizer | None,
    state: Mapping[str, Any] | None,
) -> None:
    """Checks that a prepared folder, its tokenizer, the model and a checkpoint belong together.

    Args:
        vocab_size: what the model is made for.
        foreign: the tokenizer that came with the model's first weights.
        state: the checkpoint to go on from.

    Raises:
        UserError: they don't; names both sides.
    """
    size, meta = tokenizer.vocab_size, read_meta(folder)
    if size != vocab_size:
        raise UserError(
            f"model.vocab_size is {vocab_size}, the tokenizer has {size} tokens; "
            f"set --model.vocab_size {size}"
        )
    pairs = [("tokenizer", tokenizer.identity, meta["tokenizer_sha256"])]
    if foreign:
        pairs.append(("tokenizer", foreign.identity, tokenizer.identity))
    if state:
        pairs.append(("tokenizer", state["tokenizer_sha256"], tokenizer.identity))
        pairs.append(("data", state["data_identity"], meta["identity"]))
    for what, expected, found in pairs:
        if expected != found:
            raise UserError(
                f"{folder}: another {what} than the run's: {found[:12]}, "
                f"expected {expected[:12]}; put the original back, or start a new run"
            )


def is_made(folder: Path, identity: str) -> bool:
    """Whether `folder` is whole, unchanged, and made from the inputs and settings of `identity`."""
    try:
        if read_meta(folder)["identity"] != identity:
            return False
        check_content(folder)
    except UserError:
        return False
    return True


def require_own(folder: Path, identity: str) -> None:
    """Checks that making the data of `identity` in `folder` replaces nothing else.

    Raises:
        UserError: other prepared data stands there, or files that are none.
    """
    if not folder.is_dir():
        return
    known = {META, "tokenizer.json", *(f"{part}.npy" for part in PARTS)}
    if others := sorted({path.name for path in folder.iterdir()} - known):
        raise UserError(
            f"{folder}: holds {others[0]}, which is no prepared data; name another folder"
        )
    try:
        found = read_meta(folder)["identity"]
    except UserError:  # half moved, or damaged
        return
    if found != identity:
        raise UserError(
            f"{folder}: holds other prepared data; name another folder, or remove this one"
        )


@contextlib.contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, whose files move there when the block ends well.

    When it ends in an error, `folder` is as it was. One process at a time: another that makes the
    same folder waits here. What a killed process leaves there, the next one clears.

    Raises:
        OSError: the folder can't be made or written.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file stands where the folder should go; name another")
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.tmp"
    handle = _lock(temporary)
    try:
        _empty(temporary)
        yield temporary
        if (temporary / META).exists():
            _move(temporary, folder)
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(temporary))
        if error.errno is None or not inside:
            raise
        # Name the folder that the user knows; a write that fails names no file at all.
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)
        for parent in new_parents:
            with contextlib.suppress(OSError):  # not empty: something was made
                parent.rmdir()


def _lock(folder: Path) -> int | None:
    """Makes the folder and waits until it is this process's; the lock dies with the process."""
    try:
        import fcntl  # not on Windows, where folders go unlocked
    except ImportError:
        folder.mkdir(exist_ok=True)
        return None
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # the holder has just finished
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists() and os.path.samestat(os.fstat(handle), os.stat(folder)):
            return handle
        os.close(handle)  # locked what the holder had removed: try again


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _move(temporary: Path, folder: Path) -> None:
    """meta.json is the sign of a whole folder: the old one goes first, the new one comes last."""
    folder.mkdir(exist_ok=True)
    (folder / META).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == META):
        os.replace(path, folder / path.name)
    sync_folder(folder)
