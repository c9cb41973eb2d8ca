"""Prepared folders: train.npy, val.npy, tokenizer.json, meta.json; all of it or nothing."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.files import atomic_folder, make_parents, sha256_file

FORMAT = 1
META = "meta.json"
PARTS = ("train", "val")
COUNTS = ("tokens", "bytes", "documents")
# meta.json first: a folder without it is not a prepared one.
FILES = (META, "tokenizer.json", "train.npy", "val.npy")


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


def check_compatible(
    folder: Path,
    tokenizer: BPETokenizer,
    vocab_size: int,
    *,
    pretrained_tokenizer: BPETokenizer | None,
    state: Mapping[str, Any] | None,
) -> None:
    """Checks that a prepared folder, its tokenizer, the model and a checkpoint belong together.

    Args:
        vocab_size: what the model is made for.
        pretrained_tokenizer: the tokenizer that came with the model's first weights.
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
    if pretrained_tokenizer:
        pairs.append(("tokenizer", pretrained_tokenizer.identity, tokenizer.identity))
    if state:
        pairs.append(("tokenizer", state["tokenizer_sha256"], tokenizer.identity))
        pairs.append(("data", state["data_identity"], meta["identity"]))
    for what, expected, found in pairs:
        if expected != found:
            raise UserError(
                f"{folder}: another {what} than the run's: {found[:12]}, "
                f"expected {expected[:12]}; put the original back, or start a new run"
            )


def is_up_to_date(folder: Path, identity: str) -> bool:
    """Whether `folder` is complete, unchanged, and made from the inputs that `identity` names."""
    try:
        if read_meta(folder)["identity"] != identity:
            return False
        check_content(folder)
    except UserError:
        return False
    return True


def check_overwrite(folder: Path, identity: str) -> None:
    """Check that making the data of `identity` in `folder` replaces nothing else.

    Raises:
        UserError: `folder` is a file, or holds other prepared data or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file stands where the folder should go; name another")
    if not folder.exists():
        return
    if others := sorted({path.name for path in folder.iterdir()} - set(FILES)):
        raise UserError(
            f"{folder}: holds {others[0]}, which is not prepared data; name another folder"
        )
    try:
        found = read_meta(folder)["identity"]
    except UserError:  # incomplete or damaged
        return
    if found != identity:
        raise UserError(
            f"{folder}: holds other prepared data; name another folder, or remove this one"
        )


@contextlib.contextmanager
def new_version(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when the block succeeds and has written files.

    If the block fails, `folder` does not change. One process at a time: another one that makes the
    same folder waits here. Files that a killed process left are removed.

    Raises:
        OSError: the folder can't be made or written.
    """
    folder = Path(os.path.realpath(folder))
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with make_parents(folder), lock:
        try:
            for stale in folder.parent.glob(f".{glob.escape(folder.name)}.tmp*"):
                shutil.rmtree(stale)
            with atomic_folder(folder, replaces=FILES) as temporary:
                yield temporary
        finally:
            # While it is held: a process that waits for it sees this and makes a new one.
            with contextlib.suppress(OSError):  # Windows: removed on release
                os.unlink(lock.lock_file)
