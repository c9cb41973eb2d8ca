"""Download a well-known corpus, verified by sha256: `python -m data.download NAME`.

A failed download is retried. The result on stdout is a JSON object with the paths of the files.
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from filelock import FileLock

from data.download.known_corpora import CORPORA, CORPORA_FOLDER, Content, KnownCorpus, Source
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.files import make_parents, sha256_file, write_atomic
from utils.output import log, progress_bar
from utils.run.locks import acquire
from utils.suggest import nearest

EXAMPLES = ("python -m data.download --list", "python -m data.download tinyshakespeare")
SCHEME = "https"
TIMEOUT_S = 30.0  # without receiving a byte
RETRIES = 3
RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses of temporary errors
CHUNK_BYTES = 1 << 20
# Options of the progress bar. disable None: no bar if stderr is not a terminal.
BAR: dict[str, Any] = {"unit_scale": True, "disable": None, "leave": False}


class FetchError(Exception):
    """A URL does not deliver the expected file."""


def find_corpus(name: str) -> KnownCorpus:
    """Return the corpus of that name; upper and lower case are equal.

    >>> find_corpus("Enwik8").licence
    'GFDL'

    Raises:
        UserError: there is no such corpus.
    """
    by_name = {corpus.name: corpus for corpus in CORPORA}
    if name.lower() in by_name:
        return by_name[name.lower()]
    near = nearest(name.lower(), by_name)
    meant = f" (did you mean {near}?)" if near else ""
    raise UserError(f"{name}: no such corpus{meant}; there are: {', '.join(by_name)}")


def ensure_downloaded(source: Source, folder: Path) -> None:
    """Download the texts of a source into `folder`, unless they are there.

    Raises:
        UserError: a text is there with other content, or the download failed; then the message says
            how to place the file by hand.
    """
    missing = [text for text in source.texts() if not has_content(folder / text.name, text)]
    if not missing:
        log(f"{', '.join(text.name for text in source.texts())}: already there, sha256 verified")
        return
    if not source.tried_by_us:
        log(
            f"warning: {source.content.name}: the authors of llm-tiny have not tried this "
            f"download; its size and sha256 are those published by {source.published}"
        )
    target = folder / source.content.name
    with make_parents(target), download_lock(target):
        provide(source, target)


@contextlib.contextmanager
def download_lock(target: Path) -> Iterator[None]:
    """Hold the lock of a download while the block runs. The lock of a killed process ends, too.

    Raises:
        UserError: another process holds the lock.
    """
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path, blocking=False)
    acquire(lock, f"{target}: another process is downloading it; wait for it")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows can't remove an open file
            path.unlink()
        lock.release()


def provide(source: Source, target: Path) -> None:
    """Download the file of a source, and unzip its members next to it."""
    was_there = has_content(target, source.content)  # placed by the user, who may keep it
    if not was_there:
        download(source, target)
    for member in source.members:
        unzip(target, member, target.with_name(Path(member.name).name))
    if source.members and not was_there:
        target.unlink()


def has_content(path: Path, content: Content) -> bool:
    """Return True if the file exists with the expected content, False if it does not exist.

    Raises:
        UserError: the file exists with other content.
    """
    if not path.exists():
        return False
    size_bytes = path.stat().st_size
    if size_bytes == content.size_bytes and sha256_file(path) == content.sha256:
        return True
    raise UserError(
        f"{path}: {size_bytes} bytes, not the known file of {content.size_bytes} bytes with sha256 "
        f"{content.sha256[:12]}; move it away and download it again"
    )


def download(source: Source, target: Path) -> None:
    """Download a source from the first of its URLs that delivers it.

    Raises:
        UserError: no URL delivers the file.
    """
    failures = []
    for url in source.urls:
        log(f"{target}: {source.content.size_bytes} bytes from {url}")
        try:
            fetch(url, target, source.content)
        except FetchError as error:
            failures.append(f"{url}: {error}")
        else:
            return
    raise UserError(
        f"{'; '.join(failures)}; run the command again to retry. Without a network, copy a file "
        f"{source.content.name} of {source.content.size_bytes} bytes, sha256 "
        f"{source.content.sha256}, to {target}, and run the command again"
    )


def fetch(url: str, target: Path, content: Content) -> None:
    """Download `url`. The file gets the name `target` once its sha256 is verified.

    Raises:
        FetchError: the URL does not deliver this file, or the connection failed too often.
        OSError: the file can't be written.
    """
    import pooch  # loading pooch and requests takes a third of a second
    import requests

    def check_response(response: requests.Response, *_: Any, **_options: Any) -> None:
        """Check a response, before requests follows a redirect."""
        size = response.headers.get("Content-Length", str(content.size_bytes))
        if response.is_redirect:
            check_scheme(urljoin(response.url, response.headers["Location"]))
        elif response.status_code != 200:
            kind = requests.HTTPError if response.status_code in RETRY_STATUSES else FetchError
            raise kind(f"HTTP status {response.status_code} {response.reason}")
        elif size != str(content.size_bytes):
            raise FetchError(f"has {size} bytes, expected {content.size_bytes}")

    def download_once(url: str, output: str, registry: pooch.Pooch) -> None:
        Path(output).unlink()  # pooch creates it readable by its owner only
        bar = progress_bar(total=content.size_bytes, desc=content.name, unit="B", **BAR)
        with bar, SizeLimitedFile(output, content.size_bytes) as file:
            pooch.HTTPDownloader(
                progressbar=bar,
                chunk_size=CHUNK_BYTES,
                timeout=TIMEOUT_S,
                headers={"User-Agent": "llm-tiny", "Accept-Encoding": "identity"},
                hooks={"response": check_response},
            )(url, file, registry)

    check_scheme(url)
    pooch.get_logger().setLevel("WARNING")  # `download` has logged the URL
    registry = pooch.create(
        target.parent,
        base_url="",
        registry={target.name: content.sha256},
        urls={target.name: url},
        retry_if_failed=RETRIES,
    )
    try:
        with make_parents(target):
            registry.fetch(target.name, downloader=download_once)
    except (requests.RequestException, ValueError) as error:  # ValueError: wrong sha256
        raise FetchError(str(error)) from None


def check_scheme(url: str) -> None:
    """Check that a URL uses https, not http, file or ftp.

    >>> check_scheme("file:/etc/passwd")
    Traceback (most recent call last):
    FetchError: file:/etc/passwd: only https is allowed

    Raises:
        FetchError: the URL has another scheme.
    """
    if urlsplit(url).scheme != SCHEME:
        raise FetchError(f"{url}: only {SCHEME} is allowed")


class SizeLimitedFile(io.BufferedWriter):
    """A file that refuses more than `limit_bytes` bytes."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.limit_bytes = limit_bytes

    def write(self, block: Any) -> int:
        """Write a block of bytes.

        Raises:
            FetchError: the file would exceed the limit.
        """
        if self.tell() + len(block) > self.limit_bytes:
            raise FetchError(f"sends more than {self.limit_bytes} bytes")
        return super().write(block)


def unzip(archive: Path, member: Content, target: Path) -> None:
    """Extract a member of a zip file to `target`, which appears once its sha256 is verified.

    The caller chooses the target path, so paths in the zip file cannot write elsewhere. At most
    one byte more than the member's known size is read.

    Raises:
        UserError: not a zip file, damaged, or the member is missing or has other content.
        OSError: the file can't be written.
    """
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(member.name) as stream:
            raw = stream.read(member.size_bytes + 1)
    except KeyError:
        raise UserError(
            f"{archive}: it has no member {member.name}; remove it, and download it again"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive}: not a complete zip file ({error}); remove it and download it again"
        ) from None
    if len(raw) != member.size_bytes or hashlib.sha256(raw).hexdigest() != member.sha256:
        raise UserError(
            f"{archive}: its {member.name} is not the known file; remove it and download it again"
        )
    write_atomic(target, raw)


def describe(corpus: KnownCorpus) -> str:
    """Return the lines of --list about a corpus: one about itself, then those about its files."""
    lines = [f"{corpus.name}: {corpus.about}; licence: {corpus.licence}"]
    for source in corpus.sources:
        content = source.content
        lines += [f"  {content.name}, {content.size_bytes} bytes, sha256 {content.sha256}"]
        lines += [f"    from {url}" for url in source.urls]
        tried = "tried" if source.tried_by_us else "not tried"
        lines += [f"    sha256 published by {source.published}; {tried} by llm-tiny's authors"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Download a corpus, or list all."""
    parser = Parser(prog="data.download", description=__doc__, examples=EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the corpus, see --list")
    parser.add_argument("--list", action="store_true", help="print all corpora, download nothing")
    about = "the files go to FOLDER/NAME/ (default: %(default)s)"
    parser.add_argument("--out", default=CORPORA_FOLDER, metavar="FOLDER", help=about)
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(map(describe, CORPORA)))
        return 0
    if args.name is None:
        parser.error("name a corpus, or give --list")
    corpus = find_corpus(args.name)
    folder = Path(args.out) / corpus.name
    for source in corpus.sources:
        ensure_downloaded(source, folder)
    texts = [folder / text.name for source in corpus.sources for text in source.texts()]
    print(json.dumps({"corpus": corpus.name, "files": [str(path) for path in texts]}))
    return 0


if __name__ == "__main__":
    run_cli(main)
