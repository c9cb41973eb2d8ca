"""Checkpoints: tensors and plain values only, written whole or not at all, with a checksum.

A checkpoint is what `torch.save` writes of a dict: `torch.load(path, weights_only=True)` reads it.
Its key `sha256` is the digest of all the rest, because torch.load does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from utils.errors import UserError, one_line
from utils.files import read_bytes, write_atomic

FORMAT = 1


def digest(value: Any) -> str:
    """Hex sha256 of a tree of dicts, lists, tuples, tensors and plain values.

    >>> digest({"a": 1, "b": [2.0, "x"]}) == digest({"b": [2.0, "x"], "a": 1})
    True
    >>> digest([1]) == digest([2])
    False
    """
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        hasher.update(raw.numpy())
    elif isinstance(value, dict):
        hasher.update(f"dict {len(value)} ".encode())
        for key in sorted(value, key=repr):
            _feed(hasher, key)
            _feed(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(f"{type(value).__name__} {len(value)} ".encode())
        for item in value:
            _feed(hasher, item)
    else:
        assert value is None or isinstance(value, (bool, int, float, str)), type(value)
        text = f"{type(value).__name__} {value!r}"
        hasher.update(f"{len(text)} {text} ".encode())


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint; a crash, a kill or a full disk leaves the old file as it was.

    Raises:
        OSError: the disk is full or the folder can't be written.
    """
    # To memory first: torch.save turns a full disk into a message about its zip writer.
    buffer = io.BytesIO()
    whole = {"format": FORMAT, **content}
    torch.save({**whole, "sha256": digest(whole)}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: str | Path, hint: str = "", required: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU and verifies its checksum. Never runs code from the file.

    Args:
        hint: what the message about a damaged file ends with.
        required: keys that a checkpoint for this purpose has.

    Raises:
        UserError: missing, truncated, damaged, or not one of ours.
    """
    raw, ending = read_bytes(path), f"; {hint}" if hint else ""
    if not raw:
        raise UserError(f"{path}: damaged, the file is empty{ending}")
    try:
        with warnings.catch_warnings():  # of a file that is refused anyway: one line is enough
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = one_line(error).split(". ")[0]
        raise UserError(
            f"{path}: refused, it is not a checkpoint of tensors and plain values "
            f"({reason}){ending}"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{path}: damaged or not a checkpoint "
            f"({one_line(error)[:80] or type(error).__name__}){ending}"
        ) from None
    if not isinstance(content, dict) or "sha256" not in content or "format" not in content:
        raise UserError(f"{path}: not a checkpoint of this program{ending}")
    if content["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {content['format']}, this program reads {FORMAT}"
        )
    expected = content.pop("sha256")
    try:
        intact = digest(content) == expected
    except (AssertionError, TypeError, RuntimeError):
        intact = False
    if not intact:
        raise UserError(f"{path}: damaged, its checksum does not match{ending}")
    if missing := [name for name in required if name not in content]:
        raise UserError(f"{path}: not a training checkpoint, it has no {missing[0]}")
    return content
