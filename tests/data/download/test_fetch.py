"""Downloads from a server that breaks off, lies, refuses and sends the wrong bytes."""

from __future__ import annotations

import errno
import hashlib
import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from data.download import fetch
from data.download.fetch import BrokenError, RefusedError
from data.download.known_corpora import Content
from tests.data.download import serving
from tests.data.download.serving import Answer, Server, breaks, good
from utils.errors import UserError

BODY = random.Random(1).randbytes(300_000)
CONTENT = Content("file", len(BODY), hashlib.sha256(BODY).hexdigest())
HALF = len(BODY) // 2

Fetched = Callable[..., tuple[Server, Path]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http, to this machine, without pauses."""
    monkeypatch.setattr(fetch, "SCHEMES", ("http",))
    monkeypatch.setattr(fetch, "PAUSE_S", 0)
    monkeypatch.setenv("no_proxy", "*")


def run(target: Path, *answers: Answer) -> Server:
    with serving.serving(*answers) as server:
        fetch.fetch(server.url, target, CONTENT)
    return server


def partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def only(target: Path) -> bytes:
    """The content of the file, beside which nothing lies."""
    assert list(target.parent.iterdir()) == [target]
    return target.read_bytes()


def test_a_good_server(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file"
    assert run(target, good(BODY)).ranges == [None]
    assert only(target) == BODY


def test_what_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    target = tmp_path / "file"
    places = (1, 70_000, HALF, len(BODY) - 1)
    server = run(target, *(breaks(BODY, at) for at in places), good(BODY))
    assert server.ranges == [None, *(f"bytes={at}-" for at in places)]
    assert only(target) == BODY


def test_a_later_call_goes_on_too(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(BrokenError, match=f"ended at byte {HALF} of {len(BODY)}"):
        run(target, breaks(BODY, HALF))
    assert not target.exists() and partial(target).read_bytes() == BODY[:HALF]
    assert run(target, good(BODY)).ranges == [f"bytes={HALF}-"]
    assert only(target) == BODY


def test_it_gives_up_after_some_tries_that_bring_nothing(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with serving.serving(serving.status(503)) as server:
        with pytest.raises(BrokenError, match="HTTP status 503"):
            fetch.fetch(server.url, target, CONTENT)
    assert len(server.ranges) == fetch.TRIES
    assert not target.parent.exists(), "nothing is left behind"
    server = run(
        target, *[serving.status(503)] * 3, breaks(BODY, 9), serving.status(429), good(BODY)
    )
    assert only(target) == BODY


def test_a_server_that_does_not_resume(tmp_path: Path) -> None:
    target = tmp_path / "file"
    server = run(target, breaks(BODY, HALF), serving.no_ranges(BODY))
    assert server.ranges == [None, f"bytes={HALF}-"] and only(target) == BODY
    target.unlink()
    server = run(target, breaks(BODY, HALF), serving.status(416), good(BODY))
    assert server.ranges == [None, f"bytes={HALF}-", None] and only(target) == BODY


def test_without_a_length_it_is_read_to_the_end(tmp_path: Path) -> None:
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
        (good(BODY[::-1]), f"wrong content: sha256 [0-9a-f]+, expected {CONTENT.sha256}"),
        (serving.status(404), "HTTP status 404"),
        (serving.status(204), "HTTP status 204"),
        (serving.status(200, Content_Encoding="gzip"), "in the encoding gzip"),
        (serving.status(302, Location="ftp://127.0.0.1/file"), "ftp.*: only http is allowed"),
        (serving.status(302, Location="https://127.0.0.1/file"), "https.*: only http is allowed"),
        (serving.status(302, Location="file:/etc/passwd"), "file:/etc/passwd' is not allowed"),
    ],
)
def test_what_is_another_file_is_refused_at_once(
    answer: Answer, message: str, tmp_path: Path
) -> None:
    with serving.serving(answer) as server:
        with pytest.raises(RefusedError, match=message):
            fetch.fetch(server.url, tmp_path / "file", CONTENT)
    assert len(server.ranges) == 1 and not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "range_", [f"bytes 0-9/{len(BODY)}", f"bytes {HALF}-9/7", "bytes */9", "", f"bytes {HALF}-9/-"]
)
def test_another_range_than_was_asked_for_is_refused(range_: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(RefusedError, match="another range|has 7 bytes"):
        run(target, breaks(BODY, HALF), serving.other_range(BODY[HALF:], range_))
    assert partial(target).read_bytes() == BODY[:HALF]


def test_a_beginning_of_another_file_is_given_up(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for begun in (b"other" * 9, BODY[:-1] + b"x", BODY + b"and more"):
        partial(target).write_bytes(begun)
        run(target, good(BODY))
        assert only(target) == BODY
        target.unlink()
    partial(target).write_bytes(b"other")
    with pytest.raises(RefusedError, match="wrong content"):
        run(target, good(BODY[::-1]))
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_that_was_not_renamed_needs_no_server(tmp_path: Path) -> None:
    target = tmp_path / "file"
    partial(target).write_bytes(BODY)
    fetch.fetch("http://127.0.0.1:1/file", target, CONTENT)
    assert only(target) == BODY


def test_silence_is_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    target = tmp_path / "file"
    came_again: list[bool] = []
    server = run(target, serving.silent(BODY, HALF, came_again), good(BODY))
    for _ in range(100):  # the silent one may still be asleep
        if came_again:
            break
        time.sleep(0.02)
    assert came_again == [True]
    assert server.ranges == [None, f"bytes={HALF}-"] and only(target) == BODY


def test_no_server_and_no_such_name(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1/file", "http://nowhere.invalid/file"):
        with pytest.raises(BrokenError, match=url):
            fetch.fetch(url, tmp_path / "file", CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_is_followed_and_keeps_the_range(tmp_path: Path) -> None:
    target = tmp_path / "file"
    partial(target).write_bytes(BODY[:HALF])
    with serving.serving(good(BODY)) as other:
        with serving.serving(serving.status(302, Location=other.url)) as server:
            fetch.fetch(server.url, target, CONTENT)
    assert other.ranges == server.ranges == [f"bytes={HALF}-"]
    assert only(target) == BODY


def test_https_alone_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert fetch.SCHEMES == ("https",)
    for url in (
        "http://127.0.0.1/file",
        "file:/etc/hostname",
        "ftp://127.0.0.1/f",
        "/etc/passwd",
    ):
        with pytest.raises(RefusedError, match=f"{url}: only https is allowed"):
            fetch.fetch(url, tmp_path / "file", CONTENT)
        with pytest.raises(RefusedError, match=f"{url}: only https is allowed"):
            request = urllib.request.Request("https://example.com")
            fetch._Redirects().redirect_request(request, None, 302, "Found", {}, url)
    assert not any(hasattr(one, "file_open") for one in fetch.opener().handlers)


def test_a_full_disk_is_no_broken_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, offset: int, content: Content) -> object:
        yield 0, BODY[:10]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_blocks", full)  # as a write would raise it, between two blocks
    with pytest.raises(OSError, match="No space"):
        fetch.fetch("http://127.0.0.1:1/file", tmp_path / "file", CONTENT)
    assert partial(tmp_path / "file").read_bytes() == BODY[:10]


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with fetch._opened(partial(target)):
        with pytest.raises(UserError, match="another process is downloading it"):
            run(target, good(BODY))
    run(target, good(BODY))
