"""A large text available on every machine: source and docs of the installed Python packages."""

import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.errors import UserError
from utils.files import write_atomic

SUFFIXES = (".py", ".rst", ".md", ".txt")
END_OF_LINE = re.compile(rb"[A-Za-z](?=\n)")
MAX_CORPUS_BYTES = 100_000_000
FOLDER = Path("artifacts") / "bench"


def python_corpus(folder: Path = FOLDER, max_bytes: int = MAX_CORPUS_BYTES) -> Path:
    """Write the text into `folder`, named by the start of its sha256; return the file's path.

    Raises:
        UserError: no text is installed.
    """
    parts, size = [], 0
    for raw in read_texts(installed_files()):
        parts.append(cut_utf8(raw, max_bytes - size))
        size += len(parts[-1])
        if size >= max_bytes - 3:  # the next character may take up to four bytes
            break
    if not size:
        raise UserError(
            "--corpus python: no Python package with text is installed here; name a file"
        )
    content = b"".join(parts)
    path = folder / f"python-{hashlib.sha256(content).hexdigest()[:12]}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    return path


def installed_files() -> list[Path]:
    """Return all text files of the installed packages and the standard library, sorted by path."""
    names = sysconfig.get_paths()
    roots = {Path(names[kind]) for kind in ("purelib", "platlib", "stdlib")}
    named = {path for root in roots for path in root.rglob("*") if path.suffix in SUFFIXES}
    return sorted(filter(Path.is_file, named), key=lambda file: file.parts)


def read_texts(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the content of each file that is valid UTF-8."""
    for file in files:
        try:
            raw = file.read_bytes()
            raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield raw


def cut_utf8(raw: bytes, max_bytes: int) -> bytes:
    """Return at most `max_bytes` of valid UTF-8, without splitting a character.

    >>> cut_utf8("aé".encode(), 2), cut_utf8(b"ab", 5)
    (b'a', b'ab')
    """
    if len(raw) <= max_bytes:
        return raw
    return raw[: max(max_bytes, 0)].decode("utf-8", "ignore").encode()


def safe_blocks(raw: bytes, size: int) -> Iterator[bytes]:
    """Yield blocks of at least `size` bytes, cut where every split pattern has a boundary.

    Such a boundary is before a line end that follows a letter. So the blocks have the same
    pre-tokens as the whole text, and a library can process them in parallel.

    >>> list(safe_blocks(b"one two\\n\\nthree.\\nfour\\n", 4))
    [b'one two', b'\\n\\nthree.\\nfour', b'\\n']
    """
    start = 0
    while start < len(raw):
        found = END_OF_LINE.search(raw, start + size - 1)
        end = found.end() if found else len(raw)
        yield raw[start:end]
        start = end
