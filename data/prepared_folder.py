"""Prepared folders: train.npy, val.npy, tokenizer.json and meta.json, written atomically."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tok.tokenizer import BPETokenizer
from utils.errors import UserError, looked_in
from utils.files import (
    NAME_PART,
    atomic_folder,
    make_parents,
    parse_json,
    read_bytes,
    sha256_file,
    write_atomic,
)
from utils.run.locks import acquire

FORMAT = 1  # of meta.json
META = "meta.json"
SPLITS = ("train", "val")
COUNTS = ("tokens", "bytes", "documents")  # of each split, in meta.json
# meta.json comes first: it is the first to be removed, and a folder without it is not valid.
FILES = (META, "tokenizer.json", "train.npy", "val.npy")
META_KEYS = "identity recipe tokenizer_sha256 vocab_size end_id train val sha256 split floor"
CHECKSUM = "meta_sha256"


def meta_sha256(meta: Mapping[str, Any]) -> str:
    """Return the sha256 of meta.json's content, without the entry CHECKSUM itself."""
    content = {name: value for name, value in meta.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the content of meta.json of a prepared folder.

    Raises:
        UserError: the folder is not a prepared folder, or has another format version.
    """
    try:
        meta = parse_json((folder / META).read_bytes())
        version = meta["recipe"]["format"]
        valid = all(isinstance(meta[split][name], int) for split in SPLITS for name in COUNTS)
        valid = valid and isinstance(meta["identity"] + meta["tokenizer_sha256"], str)
        files = meta.setdefault("sha256", dict.fromkeys(SPLITS, ""))  # the oldest have none
        valid = valid and all(isinstance(files[split], str) for split in SPLITS)
        valid = valid and isinstance(meta["floor"], (dict, type(None)))
        # Older versions wrote no checksum. A name that they did not write may be a damaged one.
        checksum = meta[CHECKSUM] if meta.keys() - META_KEYS.split() else meta_sha256(meta)
        valid = valid and checksum == meta_sha256(meta)
    except (OSError, ValueError, KeyError, TypeError):
        valid, version = False, None
    if version not in (None, FORMAT):
        raise UserError(
            f"{folder / META}: format {version}, this program reads {FORMAT}; prepare it again"
        )
    if not valid:
        where = "" if folder.exists() else looked_in(folder)
        raise UserError(
            f"{folder}: not a prepared folder{where}; make it with `python -m data.prepare`"
        )
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write meta.json with its checksum."""
    content = {**meta, CHECKSUM: meta_sha256(meta)}
    write_atomic(folder / META, (json.dumps(content, indent=1) + "\n").encode())


def val_coverage(meta: dict[str, Any]) -> str:
    """Return what an evaluation covers if that is not the whole validation part; else "".

    Args:
        meta: of a prepared folder; `part_bytes` is there if data.val_max_bytes was set.
    """
    val = meta["val"]
    if val.get("part_bytes", 0) <= val["bytes"]:
        return ""
    return f"the first {val['bytes']:,} of {val['part_bytes']:,} bytes of the validation part"


def check_val_bytes(folder: Path, limit: int) -> None:
    """Check that the validation part of a folder that the user names has at most `limit` bytes.

    Raises:
        UserError: it has more.
    """
    if limit and (n_bytes := read_meta(folder)["val"]["bytes"]) > limit:
        raise UserError(
            f"{folder}: {n_bytes} bytes for validation, more than data.val_max_bytes {limit}; "
            f"prepare it with --val-max-bytes {limit}, or set --data.val_max_bytes 0"
        )


def check_content(folder: Path) -> None:
    """Check the sha256 of both token files against meta.json.

    This reads both files: one or two seconds per gigabyte.

    Raises:
        UserError: not a prepared folder, or a file is missing or has changed.
    """
    expected = read_meta(folder)["sha256"]
    for split in SPLITS:
        path = folder / f"{split}.npy"
        if expected[split] and sha256_file(path) != expected[split]:
            raise UserError(
                f"{path}: not what data.prepare wrote, its sha256 differs from the one in "
                "meta.json; put the original back, or run data.prepare again"
            )


def check_compatible(
    folder: Path,
    tokenizer: BPETokenizer,
    vocab_size: int,
    *,
    pretrained_tokenizer: BPETokenizer | None,
    state: Mapping[str, Any] | None,
) -> None:
    """Check that a prepared folder, its tokenizer, a model and a checkpoint fit together.

    Args:
        tokenizer: the tokenizer of the folder.
        vocab_size: vocabulary size of the model.
        pretrained_tokenizer: the tokenizer that came with pretrained weights.
        state: the checkpoint to resume from.

    Raises:
        UserError: two of them do not fit; names both sizes or identities.
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
    """Return True if `folder` is complete, unchanged, and has this identity."""
    try:
        meta = read_meta(folder)
        check_content(folder)
        tokenizer = BPETokenizer.load(folder / "tokenizer.json").identity
        return (meta["identity"], meta["tokenizer_sha256"]) == (identity, tokenizer)
    except UserError:
        return False


def check_overwrite(folder: Path, identity: str) -> None:
    """Check that writing the data of `identity` to `folder` overwrites no other data.

    Raises:
        UserError: `folder` is a file, or holds other prepared data or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder; name another folder")
    if not folder.exists():
        return
    if others := sorted({path.name for path in folder.iterdir()} - set(FILES)):
        raise UserError(
            f"{folder}: holds {others[0]}, which is not prepared data; name another folder"
        )
    files = [folder / name for name in FILES if (folder / name).exists()]
    # The first file is meta.json if it exists. Even if damaged, its text may hold the identity and
    # so show that the folder is ours. No other file holds the identity.
    if files and identity.encode() not in read_bytes(files[0]):
        what = "other prepared data" if files[0].name == META else f"{files[0].name} without {META}"
        raise UserError(f"{folder}: holds {what}; name another folder, or remove this one")


@contextlib.contextmanager
def locked_atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` if the block succeeds and wrote files.

    If the block fails, `folder` does not change. A lock lets one process at a time make a folder;
    others wait here. Files left by a killed process are removed.

    Raises:
        OSError: the folder can't be created or written.
    """
    folder = Path(os.path.realpath(folder))
    lock = FileLock(folder.with_name(f".{folder.name[:NAME_PART]}.lock"))
    with make_parents(folder):
        has_lock = acquire(lock)
        try:
            stale_files = folder.parent.glob(f".{glob.escape(folder.name[:NAME_PART])}.tmp*")
            for stale in stale_files if has_lock else ():
                shutil.rmtree(stale)
            with atomic_folder(folder, replaces=FILES) as temporary:
                yield temporary
        finally:
            # Remove the lock file while it is locked: a waiting process notices and makes another.
            with contextlib.suppress(OSError):  # Windows: removed on release
                os.unlink(lock.lock_file)
            lock.release()
