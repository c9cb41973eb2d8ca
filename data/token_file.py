"""Token files: .npy arrays of uint16 or uint32, written as a stream and read in ranges."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tok.vocabulary import dtype_for
from utils.errors import UserError, describe_os_error, user_error_if_os_error
from utils.files import atomic_file

BLOCK_TOKENS = 1 << 20  # tokens read at a time when a whole file is read


@contextlib.contextmanager
def token_writer(path: Path, vocab_size: int) -> Iterator[TokenWriter]:
    """Yield a writer of a .npy file. The file gets its name when the `with` block succeeds."""
    with atomic_file(path) as file:
        writer = TokenWriter(file, vocab_size)
        yield writer
        writer.write_header()


class TokenWriter:
    """Writer of token ids to an open .npy file."""

    def __init__(self, file: BinaryIO, vocab_size: int) -> None:
        self.vocab_size, self.n_tokens = vocab_size, 0
        self._file, self._dtype = file, dtype_for(vocab_size)
        self.write_header()

    def write_header(self) -> None:
        """Write the header; called again at the end with the final number of tokens."""
        # NumPy pads the header, so the shape can be overwritten in place.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.n_tokens,)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, ids: np.ndarray) -> None:
        """Append ids to the file.

        Raises:
            ValueError: an id is negative or not below the vocabulary size.
        """
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
            raise ValueError(
                f"{self._file.name}: ids {ids.min()} to {ids.max()} in a vocabulary of "
                f"{self.vocab_size}"
            )
        self._file.write(ids.astype(self._dtype).data)
        self.n_tokens += int(ids.size)


class TokenFile:
    """Reader of ranges of a .npy token file.

    Ranges are read with seek and read instead of a memory map: mapped pages count as memory of this
    process, which would grow with every batch.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Raises:
            UserError: the file is missing, is not a one-dimensional .npy of uint16 or uint32, or
                its size does not match its header.
        """
        self.path = Path(path)
        with user_error_if_os_error():
            self._file = open(path, "rb", buffering=0)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        path = self.path
        try:
            version = np.lib.format.read_magic(self._file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, self.dtype = read[version](self._file)
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
        except Exception:  # NumPy raises many types for a damaged header
            raise UserError(
                f"{path}: not a .npy token file; make it with `python -m data.prepare`"
            ) from None
        # In the string of a dtype, its kind and size follow the byte order.
        if len(shape) != 1 or shape[0] < 0 or self.dtype.str[1:] not in ("u2", "u4"):
            raise UserError(
                f"{path}: expected a one-dimensional array of uint16 or uint32, found "
                f"{self.dtype} {shape}"
            )
        self.n_tokens = shape[0]
        self._start = self._file.tell()
        needed = self._start + self.n_tokens * self.dtype.itemsize
        if (size := os.fstat(self._file.fileno()).st_size) != needed:
            state = "cut short" if size < needed else "too long"
            raise UserError(
                f"{path}: {state}, it should hold {self.n_tokens} tokens; run data.prepare again"
            )

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens `start` to `stop` (clipped at the end) as a new array."""
        stop = min(stop, self.n_tokens)
        self._file.seek(self._start + start * self.dtype.itemsize)
        raw = self._file.read(max(0, stop - start) * self.dtype.itemsize)
        return np.frombuffer(raw, self.dtype)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the whole file in blocks, as (offset, tokens)."""
        for start in range(0, self.n_tokens, BLOCK_TOKENS):
            yield start, self.read(start, start + BLOCK_TOKENS)

    def positions_of(self, token: int) -> np.ndarray:
        """Return all positions of `token`, int64, ascending."""
        found = [np.flatnonzero(block == token) + start for start, block in self.blocks()]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
