"""Checkpoints written by a thread, while training continues."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from utils.errors import describe_os_error
from utils.output import log
from utils.run import checkpoint


class Saver:
    """Writes one checkpoint at a time. An error of a write is raised by the next call.

    A checkpoint is complete or absent, as with `checkpoint.save`: a kill while it is written leaves
    the old files, and the program does not end before it is written.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._write: Future[None] | None = None

    def save(self, paths: Sequence[Path], state: dict[str, Any]) -> None:
        """Copy the state, and start to write it to all paths; wait if the last one does not exist.

        Raises:
            OSError: an earlier checkpoint could not be written.
        """
        self.wait()
        self._write = self._thread.submit(_save_all, paths, copied(state, {}))
        if not paths[-1].exists():  # without a checkpoint, resuming refuses rows of later steps
            self.wait()

    def check(self) -> None:
        """Raise the error of a write that has ended; do not wait."""
        if self._write and self._write.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint is written.

        Raises:
            OSError: it could not be written.
        """
        write, self._write = self._write, None
        if write:
            write.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Wait, and end the thread. An error of the block counts more than one of the write.

        Raises:
            OSError: the checkpoint could not be written, and the block has succeeded.
        """
        self._thread.shutdown()
        try:
            self.wait()
        except OSError as failed:
            if error is None:
                raise
            log(f"warning: {describe_os_error(failed)}")


def _save_all(paths: Sequence[Path], state: dict[str, Any]) -> None:
    content: dict[str, Any] | bytes = state
    for path in paths:
        content = checkpoint.save(path, content)


def copied(value: Any, tensors: dict[Any, torch.Tensor]) -> Any:
    """Return a copy in the host's memory of nested dicts, lists, tuples and tensors.

    Args:
        tensors: copies so far; tied weights, which are one tensor, get one copy.
    """
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if key not in tensors:
            tensors[key] = value.detach().to("cpu", copy=True)
        return tensors[key]
    if isinstance(value, dict):
        return {key: copied(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, tensors) for item in value)
    return value
