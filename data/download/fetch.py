"""Downloads one file whose size and sha256 are known: resumed, verified, whole or not at all.

The only file of the repository that opens a connection; data.download alone imports it.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from data.download.known_corpora import Content
from utils.errors import UserError
from utils.files import sha256_file, sync_folder
from utils.output import plain

SCHEMES = ("https",)
BLOCK_BYTES = 1 << 16
TIMEOUT_S = 30.0  # of silence
TRIES = 4  # in a row that bring nothing
PAUSE_S = 1.0  # before the second try; twice as long before each one after it
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)  # HTTP status of what another try may mend


class RefusedError(Exception):
    """This address does not give the file, and asking again won't help."""


class BrokenError(Exception):
    """The connection failed or ended early; another try may go on."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        check_scheme(args[-1])
        return super().redirect_request(*args)


def check_scheme(url: str) -> None:
    """Lets no address pass but those of SCHEMES: not http, nor file or ftp.

    >>> check_scheme("file:/etc/passwd")
    Traceback (most recent call last):
    data.download.fetch.RefusedError: file:/etc/passwd: only https is allowed

    Raises:
        RefusedError: another scheme.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise RefusedError(f"{url}: only {' or '.join(SCHEMES)} is allowed")


def opener() -> urllib.request.OpenerDirector:
    """What opens addresses: http and https with checked certificates, proxies, nothing else."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirects,
    ):
        director.add_handler(handler())  # type: ignore[arg-type]
    return director


def fetch(url: str, target: Path, content: Content) -> None:
    """Downloads `url` to `target`, which is not there before its sha256 is right.

    What has come is kept in a hidden file beside `target`; the next call goes on there.

    Raises:
        RefusedError: the address does not give this file.
        BrokenError: the network failed TRIES times in a row.
        UserError: another process downloads the same file.
        OSError: the file can't be written.
    """
    partial = target.with_name(f".{target.name}.part")
    with _made(partial.parent), _opened(partial) as file:
        resumed = file.seek(0, os.SEEK_END) > 0
        _fill(url, file, content)
        found = sha256_file(partial)
        if found != content.sha256 and resumed:
            # The beginning may be what is wrong: of an older file, or of another mirror's.
            plain(f"{url}: what came before does not fit; once more from the start")
            file.truncate(0)
            _fill(url, file, content)
            found = sha256_file(partial)
        os.fsync(file.fileno())
    if found != content.sha256:
        partial.unlink()
        raise RefusedError(f"{url}: wrong content: sha256 {found}, expected {content.sha256}")
    os.replace(partial, target)
    sync_folder(target.parent)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder, which goes again where nothing came into it."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in new:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def _opened(partial: Path) -> Iterator[IO[bytes]]:
    """Opens the file to append to, and locks it; the lock dies with the process."""
    with open(partial, "ab") as file:
        try:
            import fcntl  # not on Windows, where it goes unlocked
        except ImportError:
            pass
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{partial}: another process is downloading it; wait") from None
        try:
            yield file
        finally:
            if not file.seek(0, os.SEEK_END):
                partial.unlink(missing_ok=True)


def _fill(url: str, file: IO[bytes], content: Content) -> None:
    """Appends what is missing, in as many connections as it takes."""
    failures = 0
    size_bytes = file.seek(0, os.SEEK_END)
    bar = tqdm(
        total=content.size_bytes,
        initial=min(size_bytes, content.size_bytes),
        desc=content.name,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    )
    with bar:
        while size_bytes < content.size_bytes:
            before = size_bytes
            try:
                for start, block in _blocks(url, before, content):
                    if start != size_bytes:  # the server does not resume
                        file.truncate(start)
                    file.write(block)
                    size_bytes = start + len(block)
                    bar.n = size_bytes
                    bar.update(0)
            except BrokenError:
                failures = 0 if size_bytes > before else failures + 1
                if failures >= TRIES:
                    raise
                time.sleep(PAUSE_S * 2 ** max(0, failures - 1))
            finally:
                file.flush()


def _blocks(url: str, offset: int, content: Content) -> Iterator[tuple[int, bytes]]:
    """Yields (place in the file, bytes) from `offset` on, or from 0 where the server won't resume.

    Raises:
        RefusedError: what the server says or sends can't be this file.
        BrokenError: it ended before the file did.
    """
    check_scheme(url)
    headers = {"User-Agent": "llm-tiny", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    web = opener()
    try:
        with web.open(request, timeout=TIMEOUT_S) as response:
            start = _start(response, url, offset, content)
            # One byte more than should come is asked for, so that more is seen.
            while block := response.read1(min(BLOCK_BYTES, content.size_bytes - start + 1)):
                if start + len(block) > content.size_bytes:
                    raise RefusedError(f"{url}: sends more than {content.size_bytes} bytes")
                yield start, block
                start += len(block)
        if start < content.size_bytes:
            raise BrokenError(f"{url}: ended at byte {start} of {content.size_bytes}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # it has no such range: begin again
            yield from _blocks(url, 0, content)
            return
        kind = BrokenError if error.code in MAY_PASS else RefusedError
        raise kind(f"{url}: HTTP status {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:  # none of a write: that happens outside
        reason = getattr(error, "reason", None) or error
        kind = RefusedError if isinstance(reason, ssl.SSLCertVerificationError) else BrokenError
        raise kind(f"{url}: {str(reason) or type(reason).__name__}") from None


def _start(response: Any, url: str, offset: int, content: Content) -> int:
    """The place in the file at which a response begins, after its headers were found sensible."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RefusedError(f"{url}: comes in the encoding {encoding}, which was not asked for")
    start, total = 0, response.headers.get("Content-Length")
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != offset:
            raise RefusedError(f"{url}: answers another range than was asked for")
        start, total = offset, None if found[2] == "*" else found[2]
    elif response.status != 200:
        raise RefusedError(f"{url}: HTTP status {response.status}")
    if total is not None and total != str(content.size_bytes):
        raise RefusedError(f"{url}: has {total} bytes, expected {content.size_bytes}")
    return start
