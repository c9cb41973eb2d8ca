"""List the text files of folders, and check that bytes are valid UTF-8."""

import contextlib
import fnmatch
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tok.errors import TokenizerError
from utils.errors import UserError, describe_os_error, looked_in, plural, user_error_if_os_error
from utils.files import decode_utf8
from utils.suggest import did_you_mean

READ_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
STDIN = "standard input"  # name in messages
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
HEAD_BYTES = 1 << 20  # of a file, to recognize its format
HEAD_OF_TEXT = 4096  # bytes, to guess whether a file is text
MAX_SUGGESTED = 10  # patterns in a hint
# Kind -> what such a file begins with.
ARCHIVES = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "Zstandard": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&SY"),
    "zip": re.compile(rb"PK\x03\x04"),
    "tar": re.compile(rb".{257}ustar", re.DOTALL),
}


def expand_folders(
    paths: Iterable[str | Path],
    hint: Callable[[Path], str] = lambda path: "",
    include: Sequence[str] = (),
    flag: str = "--include",
) -> list[Path]:
    """Return the given files, with each folder replaced by the files below it.

    The files of a folder are sorted by path; hidden files and folders are left out. Links to files
    and folders are followed.

    Args:
        hint: returns text to append to the error message about a path that does not exist.
        include: file patterns, see `is_included`; they choose among the files of folders.
        flag: the flag of the patterns, for messages.

    Raises:
        UserError: a path is empty or does not exist, a folder contains no files that match, or
            something in it is neither a readable folder nor a file.
    """
    files: list[Path] = []
    for given in paths:
        if not str(given) or "://" in str(given):
            problem = "a web address: download it first, and" if str(given) else "an empty path:"
            raise UserError(f"{str(given)!r} is {problem} name a file or folder")
        path = Path(given)
        if path.is_dir():
            visible = [file.relative_to(path) for file in files_below(path, include, flag)]
            if not visible:
                raise UserError(f"{path}: no files in this folder; name one that holds text files")
            chosen = [file for file in visible if is_included(file, include)]
            if not chosen:
                raise UserError(
                    f"{path}: none of its {len(visible)} files matches {' or '.join(include)}; "
                    "give another pattern, in quotes, such as '*.txt'"
                )
            for file in sorted(chosen, key=lambda file: file.parts):
                if not (path / file).is_file():
                    raise UserError(
                        f"{path / file}: a pipe, socket or device, not a file; move it away"
                    )
                files.append(path / file)
        elif path.exists():
            files.append(path)
        else:
            fix = hint(path) or did_you_mean(path)
            raise UserError(f"{path}: No such file or directory{looked_in(path)}{fix}")
    return files


def files_below(folder: Path, include: Sequence[str] = (), flag: str = "") -> Iterator[Path]:
    """Yield the files (and pipes, devices) at any depth in a folder, unsorted, except hidden ones.

    Args:
        include: file patterns, see `is_included`. An entry without a known type, such as a dangling
            link, is yielded as a file if its name matches none of them.

    Raises:
        UserError: a folder can't be read, or a link is dangling or leads to a folder around it. If
            such an entry were skipped, two users of one folder could get two corpora.
    """
    fix = "repair it, or move it out of the folder"

    def fail(error: OSError) -> NoReturn:
        raise UserError(f"{describe_os_error(error)}; {fix}")

    for name, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here, real = Path(name), os.path.realpath(name)
        # The folders around it, up to the first one.
        around = islice(here.parents, len(here.parts) - len(folder.parts))
        if real in map(os.path.realpath, around):
            raise UserError(f"{here}: a link to {real}, which it is in; remove the link")
        folders[:] = [one for one in folders if not one.startswith(".")]
        for path in (here / file for file in files if not file.startswith(".")):
            try:
                path.stat()
            except OSError as error:
                if is_included(path.relative_to(folder), include):
                    link = f" (a link to {os.readlink(path)})" if path.is_symlink() else ""
                    fix += f", or choose the other files with {flag}"
                    raise UserError(f"{path}{link}: {error.strerror}; {fix}") from None
            yield path


def is_included(path: Path, include: Sequence[str]) -> bool:
    """Return whether a file matches one of the patterns; without patterns, every file does.

    A pattern without a slash is compared with the file's name, any other
    with its path in the folder; then * also matches slashes.

    >>> is_included(Path("a/b.md"), ["*.md"]), is_included(Path("a/b.md"), ["c/*", "a/*.txt"])
    (True, False)
    """
    patterns = [pattern.removeprefix("**/") for pattern in include]
    names = [path.as_posix() if "/" in pattern else path.name for pattern in patterns]
    return not include or any(map(fnmatch.fnmatchcase, names, patterns))


def describe_left_out(paths: Iterable[str | Path], include: Sequence[str], n_empty: int) -> str:
    """Return what was left out of the files that `expand_folders` was given, for people.

    Args:
        n_empty: how many of the files that it returned are empty.
    """
    parts = [plural(n_empty, "empty file")] if n_empty else []
    folders = [Path(path) for path in paths if include and Path(path).is_dir()]
    files = [file.relative_to(top) for top in folders for file in files_below(top, include)]
    if n := sum(not is_included(file, include) for file in files):
        verb = "does" if n == 1 else "do"
        parts.append(f"{n} that {verb} not match {' or '.join(map(repr, include))}")
    return f"; left out: {', '.join(parts)}" if parts else ""


def describe_folders(
    files: Sequence[Path], paths: Sequence[str | Path], include: Sequence[str]
) -> str:
    """Return how many files of folders are read, for people; empty if no folder is given."""
    if not any(Path(path).is_dir() for path in paths):
        return ""
    empty = [path for path in files if path.is_file() and not path.stat().st_size]
    left_out = describe_left_out(paths, include, len(empty))
    return f"reading {plural(len(files) - len(empty), 'file')}{left_out}"


def check_include(paths: Iterable[str | Path], include: Sequence[str], flag: str) -> None:
    """Check that file patterns have an effect.

    Args:
        paths: files and folders that `expand_folders` is given.
        flag: the flag of the patterns, for the message.

    Raises:
        UserError: there are patterns, but no folder.
    """
    if include and not any(Path(path).is_dir() for path in paths):
        raise UserError(f"{flag}: has an effect only on folders, and no folder is given; drop it")


@contextlib.contextmanager
def suggest_include(
    files: Sequence[Path], paths: Iterable[str | Path], flag: str
) -> Iterator[None]:
    """Append to an error about a file of a folder which patterns choose the other files.

    Args:
        files: what `expand_folders` returned for `paths`.
        flag: the flag of the patterns.
    """
    try:
        yield
    except UserError as error:
        folders = {Path(path) for path in paths if Path(path).is_dir()}
        inside = [file for file in files if not folders.isdisjoint(file.parents)]
        # For each file whether the error is about it: errors begin with the name of a file.
        starts = [str(error).startswith((f"{file}:", f"{file} (")) for file in inside]
        patterns = patterns_of_others(inside, inside[starts.index(True)]) if any(starts) else ""
        if not patterns:
            raise
        message = f"{error}, or choose files of the folder, such as {flag} {patterns}"
        raise UserError(message) from None


def patterns_of_others(files: Iterable[Path], bad: Path) -> str:
    """Return patterns of the text files that are not named like `bad`; "" if none leaves it out."""
    first: dict[str, Path] = {}  # ending -> the first file with it
    counts = Counter[str]()
    for file in files:
        ending = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
        if re.fullmatch(r"(\.\w+)+", ending) and not bad.name.endswith(ending):
            first.setdefault(ending, file)
            counts[ending] += 1
    found = [ending for ending, _ in counts.most_common() if looks_like_text(first[ending])]
    if not found and bad.suffix != ".txt":
        found = [".txt"]
    return " ".join(f"'*{ending}'" for ending in found[:MAX_SUGGESTED])


def looks_like_text(path: Path) -> bool:
    """Return whether a file begins with UTF-8 text, or is named as a gzip file and is one."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_OF_TEXT)
        head[: end_of_whole_characters(head)].decode("utf-8")
    except UnicodeDecodeError:
        return path.suffix == ".gz" and archive_kind(head) == "gzip"
    except OSError:
        return False
    return b"\0" not in head and not archive_kind(head)


def archive_kind(head: bytes) -> str:
    """Return the kind of archive or compressed file that begins with `head`; "" if it is none.

    >>> archive_kind(b"\\x1f\\x8b\\x08\\x00"), archive_kind(b"once")
    ('gzip', '')
    """
    return next((kind for kind, start in ARCHIVES.items() if start.match(head)), "")


def first_json_object(head: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a file begins with, alone or in an array; None without one.

    >>> first_json_object(b'[\\n {"text": "a"}, ...'), first_json_object(b"{a}")
    ({'text': 'a'}, None)
    """
    start = head[:64].removeprefix(BOM).lstrip()
    if not start.startswith((b"{", b"[")):
        return None
    text = head.removeprefix(BOM).decode("utf-8", "replace").lstrip().removeprefix("[").lstrip()
    try:
        found = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_plain_text(files: Sequence[Path]) -> str:
    """Return a warning about JSON, or ""; refuse compressed files. Names and contents are checked.

    data.readers could read both kinds of files, but tok must not import data.

    Raises:
        UserError: a file is compressed, or can't be read.
    """
    warning = ""
    for path in files:
        head = b""
        if path.is_file():  # a pipe can be read only once
            with user_error_if_os_error(), open(path, "rb") as file:
                head = file.read(HEAD_BYTES)
        if path.suffix.lower() == ".gz" or archive_kind(head):
            raise UserError(f"{path}: compressed; decompress it first (gunzip --keep)")
        if path.suffix.lower() in JSON_SUFFIXES or first_json_object(head):
            warning = warning or (
                f"warning: {path}: the tokenizer learns the JSON syntax too, keys and braces; "
                "train.py --data.files learns from the texts only and writes tokenizer.json to "
                "the run"
            )
    return warning


def check_errors(errors: str) -> None:
    """Check the setting `errors`.

    Raises:
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    if errors not in ("strict", "bytes"):
        raise TokenizerError(f"errors must be 'strict' or 'bytes', not {errors!r}")


def check_text(raw: bytes, name: str | Path, errors: str, *, offset: int = 0) -> None:
    """Check that `raw` is valid UTF-8, unless `errors` is "bytes".

    Args:
        name: of the text, for messages.
        offset: of `raw` in that text, in bytes.

    Raises:
        UserError: invalid UTF-8; the message names the offset of the first invalid byte.
        TokenizerError: `errors` is neither "strict" nor "bytes".
    """
    check_errors(errors)
    if errors == "strict" and not raw.isascii():
        decode_utf8(raw, name, offset=offset)


def check_stream(stream: BinaryIO, name: str | Path, errors: str) -> int:
    """Check a stream like `check_text`, in blocks, to its end; return its size in bytes.

    Raises:
        UserError: invalid UTF-8; the message names the offset of the first invalid byte.
        TokenizerError: as in `check_text`.
    """
    n_bytes = 0
    for raw in blocks_of_whole_characters(stream.read):
        check_text(raw, name, errors, offset=n_bytes)
        n_bytes += len(raw)
    return n_bytes


def blocks_of_whole_characters(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield a stream in blocks that end between UTF-8 characters. The last may not, or be empty."""
    rest = b""
    while block := read(READ_BYTES):
        raw = rest + block
        end = end_of_whole_characters(raw)
        yield raw[:end]
        rest = raw[end:]
    yield rest


def end_of_whole_characters(raw: bytes) -> int:
    """Return the length of `raw` without an incomplete UTF-8 character at its end.

    >>> end_of_whole_characters("aé".encode()), end_of_whole_characters("aé".encode()[:-1])
    (3, 1)
    """
    for back, byte in enumerate(raw[:-4:-1], start=1):
        if byte >= 0xC0:  # the first byte of a character of 2, 3 or 4 bytes
            n_bytes = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(raw) - back if n_bytes > back else len(raw)
        if byte < 0x80:
            break
    return len(raw)
