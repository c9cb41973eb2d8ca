"""A large text that every machine has: the source and docs of the installed Python packages."""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.errors import UserError
from utils.files import write_atomic

SUFFIXES = (".py", ".rst", ".md", ".txt")
END_OF_LINE = re.compile(rb"[A-Za-z](?=\n)")
LIMIT_BYTES = 100_000_000
FOLDER = Path("artifacts") / "bench"


def python_corpus(folder: Path = FOLDER, limit_bytes: int = LIMIT_BYTES) -> Path:
    """Writes the text into `folder`, named by the start of its sha256, and returns the file.

    Raises:
        UserError: there is no such text here.
    """
    parts, size = [], 0
    for raw in texts(installed_files()):
        parts.append(cut_utf8(raw, limit_bytes - size))
        size += len(parts[-1])
        if size >= limit_bytes - 3:  # a character can be four bytes long
            break
    if not size:
        raise UserError("--corpus python: no Python package with text is installed here")
    content = b"".join(parts)
    path = folder / f"python-{hashlib.sha256(content).hexdigest()[:12]}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    return path


def installed_files() -> list[Path]:
    """Every text file below the folders of installed packages and the standard library, by path."""
    names = sysconfig.get_paths()
    roots = {Path(names[kind]) for kind in ("purelib", "platlib", "stdlib")}
    files = {
        file
        for root in roots
        if root.is_dir()
        for file in root.rglob("*")
        if file.suffix in SUFFIXES and file.is_file()
    }
    return sorted(files, key=lambda file: file.parts)


def texts(files: Iterable[Path]) -> Iterator[bytes]:
    """The content of each file that is UTF-8."""
    for file in files:
        try:
            raw = file.read_bytes()
            raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield raw


def cut_utf8(raw: bytes, most: int) -> bytes:
    """At most `most` bytes of valid UTF-8, no character cut in two.

    >>> cut_utf8("aé".encode(), 2), cut_utf8(b"ab", 5)
    (b'a', b'ab')
    """
    return raw if len(raw) <= most else raw[: max(most, 0)].decode("utf-8", "ignore").encode()


def safe_blocks(raw: bytes, size: int) -> Iterator[bytes]:
    """Cuts text where every pattern has a cut anyway: before a line end that follows a letter.

    So the blocks of a text split, and count, as the whole does, and a peer can take them in
    parallel.

    >>> list(safe_blocks(b"one two\\n\\nthree.\\nfour\\n", 4))
    [b'one two', b'\\n\\nthree.\\nfour', b'\\n']
    """
    start = 0
    while start < len(raw):
        found = END_OF_LINE.search(raw, start + size - 1)
        end = found.end() if found else len(raw)
        yield raw[start:end]
        start = end
