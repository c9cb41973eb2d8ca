"""`python -m tok.bpe encode`: print the ids of texts, block by block."""

import contextlib
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
from utils.errors import user_error_if_os_error

BLOCK_IDS = 1 << 16  # formatted together; each takes 12 bytes of memory or more
SPOOL_BYTES = 1 << 24  # a larger input from a pipe is copied to a temporary file


def print_ids(tokenizer: BPETokenizer, arguments: Namespace) -> str:
    """Print one line of ids per text; return a line with counts of bytes and tokens, and the time.

    Raises:
        UserError: a text can't be read or is not UTF-8; none of its ids were printed.
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
    """Print the ids of one text of `size` bytes; return how many there are."""
    out = sys.stdout.buffer
    show = ProgressLine("bytes", size, enabled=True)
    parts = tokenizer.encoder.parts(stream.read, arguments.allow_special)
    n_tokens = 0
    finish = partial(format_ids, tokenizer.vocab_size)
    with contextlib.closing(show):
        for text in encode_parts(tokenizer, parts, finish=finish, workers=arguments.workers):
            # Each id begins with a blank; omit the first. A view, as a slice would be a copy.
            out.write(memoryview(text)[not n_tokens :])
            n_tokens += text.count(b" ")
            # Approximate, as the workers are behind the reader; at `size` the line would end.
            show(min(stream.tell(), size - 1))
        show(size)
    out.write(b"\n")
    out.flush()
    return n_tokens


def _streams(arguments: Namespace) -> Iterator[tuple[str, BinaryIO]]:
    """Yield each text as a seekable stream, with its name for messages."""
    if arguments.text:
        for text in arguments.text:
            yield f"text {text!r:.40}", BytesIO(os.fsencode(text))
    elif arguments.file:
        with (
            user_error_if_os_error(),
            open(arguments.file, "rb") as file,
            _seekable(file) as stream,
        ):
            yield arguments.file, stream
    else:
        with _seekable(sys.stdin.buffer) as stream:
            yield STDIN, stream


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Return the stream itself, or a copy of it if it is a pipe, which can be read only once."""
    if stream.seekable():
        yield stream
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy  # type: ignore[misc]


def format_ids(vocab_size: int, ids: np.ndarray) -> bytes:
    """Return ids, all below `vocab_size`, as ASCII text. Each is preceded by a blank.

    >>> format_ids(257, np.array([0, 12, 256]))
    b' 0 12 256'
    """
    # uint8[V, width]: the text of each id, padded with zero bytes, which are then removed.
    texts, out = _id_texts(vocab_size), BytesIO()
    for start in range(0, len(ids), BLOCK_IDS):
        padded = texts[ids[start : start + BLOCK_IDS]]
        out.write(padded[padded != 0].tobytes())
    return out.getvalue()


@lru_cache(maxsize=1)
def _id_texts(vocab_size: int) -> np.ndarray:
    """Return uint8[V, width]: the text of each id, padded with zero bytes."""
    texts = np.array([b" %d" % token_id for token_id in range(vocab_size)])
    return texts.view(np.uint8).reshape(vocab_size, -1)
