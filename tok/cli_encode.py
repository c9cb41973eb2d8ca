"""`python -m tok.bpe encode`: text to ids as text, block by block."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from io import BytesIO
from typing import BinaryIO

import numpy as np

from tok.encoding.parallel import encode_parts
from tok.encoding.progress import ProgressLine
from tok.text_files import STDIN, check_stream
from tok.tokenizer import BPETokenizer
from utils.errors import UserError, describe_os_error

SPOOL_BYTES = 1 << 24  # of a pipe that are kept in memory; the rest goes to a temporary file


def print_ids(tokenizer: BPETokenizer, arguments: Namespace) -> str:
    """Prints a line of ids for each text, block by block; returns figures about them.

    Raises:
        UserError: a text that can't be read, or is not UTF-8; nothing of it was printed.
    """
    start = time.monotonic()
    n_bytes = n_tokens = 0
    for name, stream in _streams(arguments):
        size = check_stream(stream, name, arguments.errors)
        stream.seek(0)
        n_bytes += size
        n_tokens += _print_stream(tokenizer, stream, size, arguments)
    ratio = f" ({n_bytes / n_tokens:.2f} bytes per token)" if n_tokens else ""
    return f"{n_bytes:,} bytes, {n_tokens:,} tokens{ratio}, {time.monotonic() - start:.1f} s"


def _print_stream(
    tokenizer: BPETokenizer, stream: BinaryIO, size: int, arguments: Namespace
) -> int:
    out = sys.stdout.buffer
    show = ProgressLine("bytes", size, enabled=True)
    parts = tokenizer.encoder.parts(stream.read, arguments.allow_special)
    n_tokens = 0
    finish = partial(format_ids, tokenizer.vocab_size)
    for text in encode_parts(tokenizer, parts, finish=finish, workers=arguments.workers):
        out.write(text if n_tokens else text[1:])  # a blank stands between ids only
        n_tokens += text.count(b" ")
        show(min(stream.tell(), size - 1))  # workers are a little behind
    show(size)
    out.write(b"\n")
    out.flush()
    return n_tokens


def _streams(arguments: Namespace) -> Iterator[tuple[str, BinaryIO]]:
    """Each text with its name in messages, as a stream that can be read twice."""
    if arguments.text:
        for text in arguments.text:
            yield f"text {text!r:.40}", BytesIO(os.fsencode(text))
    elif arguments.file:
        try:
            with open(arguments.file, "rb") as file, _seekable(file) as stream:
                yield arguments.file, stream
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
    else:
        with _seekable(sys.stdin.buffer) as stream:
            yield STDIN, stream


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream itself, or a copy of what comes through a pipe, which can be read only once."""
    if stream.seekable():
        yield stream
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy  # type: ignore[misc]


def format_ids(vocab_size: int, ids: np.ndarray) -> bytes:
    """Ids below `vocab_size` as text.

    >>> format_ids(257, np.array([0, 12, 256]))
    b' 0 12 256'
    """
    # uint8[ids, width]: each id's text, filled up with zero bytes. What is left without them is
    # the text of all.
    padded = _id_texts(vocab_size)[ids]
    return padded[padded != 0].tobytes()


@lru_cache(maxsize=1)
def _id_texts(vocab_size: int) -> np.ndarray:
    """uint8[vocab_size, width]: the text of each id, filled up with zero bytes."""
    texts = np.array([b" %d" % token_id for token_id in range(vocab_size)])
    return texts.view(np.uint8).reshape(vocab_size, -1)
