"""Downloads from servers that break off, send wrong headers, errors or wrong bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
from pathlib import Path

import pytest

from data.download import __main__ as download
from data.download.__main__ import FetchError, fetch
from data.download.known_corpora import Content
from tests.data.download import serving
from tests.data.download.serving import Answer, Server, breaks, good

BODY = random.Random(1).randbytes(300_000)
CONTENT = Content("file", len(BODY), hashlib.sha256(BODY).hexdigest())
HALF = len(BODY) // 2


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    serving.allow_here(monkeypatch)


def run(target: Path, *answers: Answer) -> Server:
    with serving.serving(*answers) as server:
        fetch(server.url, target, CONTENT)
    return server


def only(target: Path) -> bytes:
    """Return the content of a file that must be the only one in its folder."""
    assert list(target.parent.iterdir()) == [target]
    return target.read_bytes()


def test_a_good_server(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file"
    assert run(target, good(BODY)).n_requests == 1
    assert only(target) == BODY
    (tmp_path / "other").touch()
    assert (
        target.stat().st_mode == (tmp_path / "other").stat().st_mode
    ), "readable for other users too"


def test_a_broken_download_is_retried(tmp_path: Path) -> None:
    target = tmp_path / "file"
    server = run(target, breaks(BODY, 1), breaks(BODY, HALF), serving.status(429), good(BODY))
    assert server.n_requests == 4 and only(target) == BODY


def test_the_number_of_retries_is_limited(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    for answer, message in [
        (serving.status(503), "HTTP status 503"),
        (breaks(BODY, HALF), f"{HALF} bytes read, {HALF} more expected"),
        (serving.unmeasured(BODY[:HALF]), f"expected {CONTENT.sha256}"),
    ]:
        with serving.serving(answer) as server:
            with pytest.raises(FetchError, match=message):
                fetch(server.url, target, CONTENT)
        assert server.n_requests == 1 + download.RETRIES
        assert not target.parent.exists(), "nothing is left behind"


def test_a_response_without_length_is_read_to_its_end(tmp_path: Path) -> None:
    run(tmp_path / "file", serving.unmeasured(BODY))
    assert only(tmp_path / "file") == BODY


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (serving.says(len(BODY) + 1, BODY), f"has {len(BODY) + 1} bytes, expected {len(BODY)}"),
        (serving.says(10, BODY), f"has 10 bytes, expected {len(BODY)}"),
        (serving.says(10**15, BODY), f"has {10**15} bytes"),
        (serving.unmeasured(BODY + b"x"), f"sends more than {len(BODY)} bytes"),
        (serving.unmeasured(BODY * 20), f"sends more than {len(BODY)} bytes"),
        (serving.status(404), "HTTP status 404"),
        (serving.status(204), "HTTP status 204"),
        (serving.status(302, Location="ftp://127.0.0.1/file"), "ftp.*: only http is allowed"),
        (serving.status(302, Location="https://127.0.0.1/file"), "https.*: only http is allowed"),
        (serving.status(302, Location="file:/etc/passwd"), "file:/*etc/passwd: only http is"),
    ],
)
def test_another_file_is_an_error_without_retries(
    answer: Answer, message: str, tmp_path: Path
) -> None:
    with serving.serving(answer) as server:
        with pytest.raises(FetchError, match=message):
            fetch(server.url, tmp_path / "file", CONTENT)
    assert server.n_requests == 1 and list(tmp_path.iterdir()) == []


def test_wrong_content_of_the_right_size_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FetchError, match=f"expected {CONTENT.sha256} but got [0-9a-f]+"):
        run(tmp_path / "file", good(BODY[::-1]))
    assert only(tmp_path / "file") == b"old"


def test_a_timeout_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    retried: list[bool] = []
    server = run(tmp_path / "file", serving.silent(BODY, HALF, retried), good(BODY))
    serving.wait_for(retried)
    assert retried == [True]
    assert server.n_requests == 2 and only(tmp_path / "file") == BODY


def test_a_refused_connection_and_an_unknown_host_are_errors(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "nowhere.invalid"):
        with pytest.raises(FetchError, match=re.escape(host)):
            fetch(f"http://{host}:1/file", tmp_path / "file", CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    with serving.serving(good(BODY)) as other:
        run(tmp_path / "file", serving.status(302, Location=other.url))
    assert other.n_requests == 1 and only(tmp_path / "file") == BODY


def test_only_https_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert download.SCHEME == "https"
    for url in (
        "http://127.0.0.1/file",
        "file:/etc/hostname",
        "ftp://127.0.0.1/f",
        "/etc/passwd",
    ):
        with pytest.raises(FetchError, match=f"{url}: only https is allowed"):
            fetch(url, tmp_path / "file", CONTENT)


def test_no_redirect_leaves_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving.serving(good(BODY)) as other:
        with serving.serving(serving.status(302, Location=other.url)) as server:
            # The first URL passes; the target of the redirect is checked as in real use.
            real = download.check_scheme
            monkeypatch.setattr(download, "SCHEME", "https")
            monkeypatch.setattr(
                download, "check_scheme", lambda url: url == server.url or real(url)
            )
            with pytest.raises(FetchError, match=f"{other.url}: only https is allowed"):
                fetch(server.url, tmp_path / "file", CONTENT)
    assert other.n_requests == 0


def test_a_full_disk_is_not_a_broken_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: download.SizeLimitedFile, block: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download.SizeLimitedFile, "write", full)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "file", good(BODY))
    assert list(tmp_path.iterdir()) == []
