"""Files: atomic writes, reads and checks of paths, with errors that name the file."""

import codecs
import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from utils.errors import UserError, user_error_if_os_error

_pipe_copies: dict[tuple[int, int], Any] = {}  # (device, inode) of a pipe -> temporary file
PathKind = Literal["file", "folder", "new folder"]
MAX_JSON_NODES = 1_000_000  # lists and objects in a JSON text
MAX_JSON_VALUES = 2_000_000  # a tokenizer of 256,000 tokens takes 1.4 million
NAME_PART = 60  # characters of a name in that of its temporary file; most systems allow 255 bytes
ANY_BYTES_HINT = "convert the file, or pass --errors bytes to take any bytes"


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: the file is missing, a folder, or can't be read.
    """
    try:
        with user_error_if_os_error():
            return Path(path).read_bytes()
    except ValueError as error:  # a NUL character, or half of a surrogate pair
        raise UserError(f"{str(path)!r}: not a file name ({error}); name another") from None


def readable_again(path: str | Path) -> str | Path:
    """Return the path of a file, or of a copy if it is a pipe, which can be read only once.

    The copy is a temporary file that is kept until the process ends.

    Raises:
        UserError: the file is missing, a device, or an empty pipe.
    """
    with user_error_if_os_error():
        status = os.stat(path)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            raise UserError(f"{path}: a device, not a file; name a file or a pipe")
        if not stat.S_ISFIFO(status.st_mode):
            return path
        key = status.st_dev, status.st_ino
        if key not in _pipe_copies:
            copy = tempfile.NamedTemporaryFile(prefix="pipe-")  # removed when the process ends
            with open(path, "rb") as pipe:
                shutil.copyfileobj(pipe, copy)
            copy.flush()
            if not copy.tell():
                raise UserError(
                    f"{path}: nothing in this pipe; another process may have read it; use a file"
                )
            _pipe_copies[key] = copy
        return str(_pipe_copies[key].name)


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text; for files whose content is not trusted.

    >>> parse_json(b'{"n": [1]}')
    {'n': [1]}

    Raises:
        ValueError: not JSON, nested too deeply, or with more than MAX_JSON_NODES lists and objects
            or MAX_JSON_VALUES values: each takes a few bytes of text, but up to 100 of memory.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_JSON_NODES:
        raise ValueError(f"more than {MAX_JSON_NODES:,} lists and objects")
    if raw.count(b",") > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode_utf8(
    raw: bytes, name: str | Path, *, hint: str = ANY_BYTES_HINT, offset: int = 0
) -> str:
    """Decode UTF-8 strictly. Newlines and a byte order mark are kept.

    >>> decode_utf8(b"\\xef\\xbb\\xbfa\\r\\n", "a.txt")
    '\\ufeffa\\r\\n'

    Args:
        name: of the file, for the message.
        hint: the fix that the message suggests.
        offset: position of `raw` in the file, in bytes.

    Raises:
        UserError: not UTF-8; the message has the byte offset.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if not offset and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            kind = "UTF-32" if raw.startswith(codecs.BOM_UTF32_LE) else "UTF-16"
            hint = f"it is {kind}: save it as UTF-8, or convert it with `iconv -f {kind} -t UTF-8`"
        raise UserError(
            f"{name}: not UTF-8 at byte {offset + error.start} (0x{raw[error.start]:02x}); {hint}"
        ) from None


def write_all_atomic(contents: Mapping[Path, bytes]) -> None:
    """Replace the contents of files of one folder; all are on the disk before any gets its name.

    Of several files, the folder is made if it is missing.

    Raises:
        OSError: no space or no permission; the old files are unchanged.
    """
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            if len(contents) > 1:
                stack.enter_context(make_parents(path))
            file = stack.enter_context(atomic_file(path))
            with replace_path_in_errors(path, path):
                file.write(content)
                file.flush()
                if len(contents) > 1:
                    sync(file.fileno())


def write_atomic(path: str | Path, content: bytes) -> None:
    """Replace the content of a file atomically, see `atomic_file`.

    Raises:
        OSError: no space or no permission; the old file is unchanged.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary binary file that replaces `path` when the block succeeds.

    A crash at any point leaves the old or the new file, never a part of one: temporary file in the
    same folder, fsync, rename, fsync of the folder. A symbolic link is followed. A device or a pipe
    (/dev/stdout) is written to, not replaced.

    Raises:
        OSError: no space or no permission; the old file is unchanged, the temporary one removed.
    """
    # Test `path`, not the real path: for /dev/stdout in a pipe the real path names no file.
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:NAME_PART]}.tmp-{os.getpid()}")
    try:
        with replace_path_in_errors(path, temporary):
            temporary.unlink(missing_ok=True)  # a planted link, which must not be followed
            with open(temporary, "xb") as file:
                copy_mode(target, temporary)
                yield file
                file.flush()
                sync(file.fileno())
            replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(target.parent)


def replace(temporary: Path, target: Path) -> None:
    """Rename a file or folder to `target`, which it replaces.

    Windows refuses while another process, such as sample.py or a virus scanner, has one of them
    open, so it is tried for two seconds.

    Raises:
        OSError: it can't be replaced.
    """
    for wait_s in (0.1, 0.4, 1.5, 0):
        try:
            return os.replace(temporary, target)
        except PermissionError:
            if not wait_s:
                raise
            time.sleep(wait_s)


def copy_mode(old: Path, new: Path) -> None:
    """Give `new` the permissions of `old`, which it replaces, if that exists."""
    with contextlib.suppress(OSError):  # missing, or a file system without permissions
        new.chmod(stat.S_IMODE(old.stat().st_mode))


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """Make a temporary folder that is renamed to `path` when the block succeeds.

    If the block fails or writes nothing, `path` does not change. A killed process leaves a folder
    `.NAME.tmp-PID`.

    Args:
        path: a new folder, an empty one, or one that holds no files but `replaces`.
        replaces: names of files that are removed from `path`, in this order.

    Raises:
        OSError: the folder can't be made or written, or holds other files.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name[:NAME_PART]}.tmp-{os.getpid()}")
    with make_parents(path), replace_path_in_errors(path, temporary):
        try:
            if temporary.is_symlink():
                temporary.unlink()
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with this number
            temporary.mkdir()
            yield temporary
            files = list(temporary.iterdir())
            for file in files:
                with open(file, "rb+") as handle:  # Windows syncs only writable files
                    sync(handle.fileno())
                copy_mode(path / file.name, file)
            copy_mode(path, temporary)
            if files:
                for name in replaces:
                    (path / name).unlink(missing_ok=True)
                if path.exists():
                    path.rmdir()  # fails if it holds other files
                replace(temporary, path)
                fsync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replace_path_in_errors(path: str | Path, temporary: Path) -> Iterator[None]:
    """Make an OSError of the block name `path`, which the user knows, instead of `temporary`."""
    try:
        yield
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(temporary))
        if "requested and" in str(error):  # numpy.tofile: "4800 requested and 432 written"
            error = OSError(errno.ENOSPC, f"not all was written ({error})")
        if error.errno is None or not inside:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def make_parents(path: Path) -> Iterator[None]:
    """Make the missing parents of `path`. After the block, remove those that are empty."""
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # it is not empty
                parent.rmdir()


def check_writable(path: str | Path, name: str, kind: PathKind = "file") -> None:
    """Check, before long work, that the result can be written to `path`.

    Args:
        name: the flag or setting that holds the path, for messages.
        kind: `file` (its folder must exist), `folder` (it and its parents may be missing) or
            `new folder` (the same, but if it exists, it must be empty).

    Raises:
        UserError: it can't be written; the message names the reason and a fix.
    """
    path = Path(path)
    if kind == "file" and path.is_dir():
        raise UserError(f"{name} {path}: this is a folder; name a file")
    if kind == "file" and not path.parent.is_dir():
        raise UserError(f"{name} {path}: there is no folder {path.parent}; make it first")
    if kind != "file" and path.exists() and not path.is_dir():
        raise UserError(f"{name} {path}: this is a file; name a folder")
    if kind == "new folder" and path.is_dir() and any(path.iterdir()):
        raise UserError(f"{name} {path}: the folder is not empty; name another, or remove it")
    absolute = path.absolute()
    # A file or a new folder is renamed into place, so the folder above it must be writable.
    candidates = (absolute, *absolute.parents) if kind == "folder" else absolute.parents
    folder = next(candidate for candidate in candidates if candidate.exists())
    if not folder.is_dir():
        raise UserError(f"{name} {path}: {folder} is not a folder; name another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{name} {path}: can't write into {folder}; name another path")


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Does nothing where a folder can't be opened (Windows)."""
    with contextlib.suppress(PermissionError), replace_path_in_errors(folder, folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            sync(handle)
        finally:
            os.close(handle)


def sync(handle: int) -> None:
    """Write an open file or folder to the disk; warn once if its file system can't.

    CIFS, vboxsf and FUSE can't for folders.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        _warn_of_sync(error.strerror)


@functools.cache
def _warn_of_sync(reason: str) -> None:
    what = f"the file system can't sync ({reason}): a power failure may undo the last writes"
    print(f"warning: {what}", file=sys.stderr)


def sha256_file(path: str | Path) -> str:
    """Return the hex sha256 of a file's content, read in blocks.

    Raises:
        UserError: the file is missing, a folder, or can't be read.
    """
    digest = hashlib.sha256()
    with user_error_if_os_error(), open(readable_again(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
