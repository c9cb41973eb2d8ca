"""Checkpoints: dicts of tensors and plain values with a checksum, written atomically.

A checkpoint is a file of `torch.save`, so `torch.load(path, weights_only=True)` reads it. Its key
`sha256` is the digest of all other keys, because torch.load does not detect a flipped bit.
"""

import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from utils.errors import UserError, one_line
from utils.files import read_bytes, write_atomic

FORMAT = 1
MAX_THREADS = 4096  # more than any machine has; OpenMP ends the process if it can't start them

PENDING_METRICS = {"lr", "train_loss", "grad_norm", "tokens_per_s"}


def _is_count(value: Any, least: int = 0, most: int = 2**63 - 1) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_count(value, least=-(2**63))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, str)) or _is_number(value)


def _is_mapping(value: Any, key: type, holds: Callable[[Any], bool] = lambda item: True) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, key) and holds(item) for name, item in value.items()
    )


def _is_config(value: Any) -> bool:
    if not _is_mapping(value, str) or "train" not in value:
        return False
    sections = [item for name, item in value.items() if name != "run_dir"]
    return all(_is_mapping(section, str, _is_plain) for section in sections) and all(
        _is_count(value["train"].get(name), 1) for name in ("max_steps", "eval_every_steps")
    )


# The keys of a run's checkpoint, each with the condition that its value meets. A file with a valid
# checksum may come from anywhere, so `load` checks them before any other code reads the values.
SCHEMA: dict[str, Callable[[Any], bool]] = {
    "model": lambda value: _is_mapping(value, str, lambda item: isinstance(item, torch.Tensor)),
    "optimizer": lambda value: _is_mapping(value, str),
    "scaler": lambda value: _is_mapping(value, str, _is_number),
    "config": _is_config,
    **dict.fromkeys(("step", "tokens", "bad_evals"), _is_count),
    **dict.fromkeys(("best_val", "last_val"), _is_number),
    "elapsed_s": lambda value: _is_number(value) and 0 <= value < math.inf,
    **dict.fromkeys(("tokenizer_sha256", "data_identity", "torch"), lambda x: isinstance(x, str)),
    "threads": lambda value: _is_count(value, 1, MAX_THREADS),
}
# Older versions did not write `ranks`; the others are there in some states of a run only.
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "ranks": lambda value: _is_count(value, 1),
    "logs": lambda value: _is_mapping(
        value, str, lambda item: isinstance(item, list) and [*map(type, item)] == [int, str]
    ),
    "training_weights": SCHEMA["model"],
    "val_step": lambda value: value is None or _is_count(value),
    "pending_evaluation": lambda value: value is None
    or (_is_mapping(value, str, _is_number) and value.keys() <= PENDING_METRICS),
}


def digest(value: Any) -> str:
    """Return the hex sha256 of nested dicts, lists, tuples, tensors and plain values.

    >>> digest({"a": 1, "b": [2.0, "x"]}) == digest({"b": [2.0, "x"], "a": 1})
    True
    >>> digest([1]) == digest([2])
    False
    """
    hasher = hashlib.sha256()
    _update(hasher, value)
    return hasher.hexdigest()


def _update(hasher: Any, value: Any) -> None:
    """Add a value and its type to the hash: equal values of different types must differ."""
    if isinstance(value, torch.Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        hasher.update(raw.numpy())
    elif isinstance(value, dict):
        hasher.update(f"dict {len(value)} ".encode())
        for key in sorted(value, key=repr):
            _update(hasher, key)
            _update(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(f"{type(value).__name__} {len(value)} ".encode())
        for item in value:
            _update(hasher, item)
    else:
        assert value is None or isinstance(value, (bool, int, float, str)), type(value)
        text = f"{type(value).__name__} {value!r}"
        hasher.update(f"{len(text)} {text} ".encode())


def evaluated_step(state: Mapping[str, Any]) -> int | None:
    """Return the step of the evaluation that gave `last_val`, the loss in a run's checkpoint.

    >>> evaluated_step({"step": 7, "val_step": 4})
    4

    Without the entry `val_step` it is the checkpoint's own step. Older versions never wrote the
    entry; if they did not evaluate the checkpoint's step, the result is None.
    """
    if "val_step" in state:
        return state["val_step"]
    train, step = state["config"]["train"], state["step"]
    evaluated = step == train["max_steps"] or step % train["eval_every_steps"] == 0
    return step if evaluated else None


def describe(state: Mapping[str, Any]) -> str:
    """Return the step of a run's checkpoint and its validation loss, as words for people.

    >>> describe({"step": 7, "val_step": 4, "last_val": 0.5})
    'step 7, not evaluated (step 4: val loss 0.5000 nats/token)'
    """
    step, val_step = state["step"], evaluated_step(state)
    loss = f"val loss {state['last_val']:.4f} nats/token"
    if val_step == step:
        return f"step {step}{', before training' * (step == 0)}, {loss}"
    return f"step {step}, not evaluated" + (f" (step {val_step}: {loss})" if val_step else "")


def save(path: str | Path, content: dict[str, Any] | bytes) -> bytes:
    """Write a checkpoint. A crash, a kill or a full disk leaves the old file unchanged.

    Args:
        content: its values, or the bytes that an earlier call returned, which saves most of the
            time: hashing and packing take longer than writing.

    Raises:
        OSError: the disk is full or the folder can't be written.
    """
    if isinstance(content, dict):
        # To memory first: on a full disk torch.save reports an error of its zip writer instead.
        buffer = io.BytesIO()
        content = {"format": FORMAT, **content}
        torch.save({**content, "sha256": digest(content)}, buffer)
        content = buffer.getvalue()
    write_atomic(path, content)
    return content


def check_zip(raw: bytes) -> None:
    """Check that a checkpoint is a zip file as `save` writes it, in which nothing is compressed.

    Raises:
        ValueError: it would take more memory than the file has bytes.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(raw):
            raise ValueError("compressed")


def check_size(content: Any, n_bytes: int) -> None:
    """Check that the values of a checkpoint are of the types and sizes that a file can hold.

    A huge tensor that is a view of few numbers, or lists that hold each other, would need far more
    time and memory than the size of the file suggests.

    Raises:
        ValueError: a type is not allowed, or the values are larger than the file.
    """
    left, pending = 4 * n_bytes, [content]  # a factor, as tensors may share memory
    while pending:
        value = pending.pop()
        left -= 1
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise ValueError("an unusual tensor")
            left -= value.numel() * value.element_size()
        elif isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            pending += value
        elif value is not None and type(value) not in (bool, int, float, str):
            raise ValueError(f"a value of type {type(value).__name__}")
        if left < len(pending):
            raise ValueError("larger than its file")


def load(path: str | Path, hint: str = "", required: Iterable[str] = ()) -> dict[str, Any]:
    """Read a run's checkpoint onto the CPU; verify its checksum, then the types of its values.

    Code in the file is never run.

    Args:
        hint: a fix, at the end of the message about a damaged file.
        required: keys that the caller needs; SCHEMA has all of a run.

    Raises:
        UserError: missing, truncated, damaged, or not a checkpoint of a run of llm-tiny.
    """
    raw, ending = read_bytes(path), f"; {hint}" if hint else ""
    if not raw:
        raise UserError(f"{path}: damaged, the file is empty{ending}")
    try:
        check_zip(raw)
        with warnings.catch_warnings():  # torch.load warns about files that are refused below
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        check_size(content, len(raw))
    except UnpicklingError as error:
        reason = one_line(error).split(". ")[0]
        raise UserError(
            f"{path}: refused, it is not a checkpoint of tensors and plain values "
            f"({reason}){ending}"
        ) from None
    except Exception as error:  # for a damaged file torch raises errors of many types
        raise UserError(
            f"{path}: damaged or not a checkpoint "
            f"({one_line(error)[:80] or type(error).__name__}){ending}"
        ) from None
    if not isinstance(content, dict) or "sha256" not in content or "format" not in content:
        raise UserError(f"{path}: not a checkpoint of this program{ending}")
    if not _is_count(version := content["format"]) or version != FORMAT:
        found = version if _is_count(version) else f"of type {type(version).__name__}"
        raise UserError(f"{path}: checkpoint format {found}, this program reads {FORMAT}{ending}")
    expected = content.pop("sha256")
    try:
        intact = digest(content) == expected
    except (AssertionError, TypeError, RuntimeError, ValueError):
        intact = False
    if not intact:
        raise UserError(f"{path}: damaged, its checksum does not match{ending}")
    if missing := [name for name in required if name not in content]:
        raise UserError(f"{path}: not a training checkpoint, it has no {missing[0]}{ending}")
    for name, holds in (SCHEMA | OPTIONAL).items():
        if name in content and not holds(content[name]):
            raise UserError(f"{path}: refused, its {name} has a wrong type or value{ending}")
    return content
