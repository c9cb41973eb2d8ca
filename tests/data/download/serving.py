"""A web server on this machine that serves one file, well or badly, as the test tells it."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from data.download import __main__ as download

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; the next of the server's answers answers it, the last one ever after."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.n_requests += 1
        answer = server.answers[min(server.n_requests, len(server.answers)) - 1]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):  # the client has had enough
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def whole(self, body: bytes, end: int | None = None) -> None:
        """Sends the file as one should; `end` breaks off there."""
        self.begin(200, Content_Length=len(body))
        self.wfile.write(body[:end])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers = answers
        self.n_requests = 0

    def server_bind(self) -> None:
        """As HTTPServer does it, less its question for this machine's name, which takes seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    """A server whose first request gets the first answer, and so on."""
    with Server(list(answers)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def good(body: bytes) -> Answer:
    return lambda request: request.whole(body)


def breaks(body: bytes, at: int) -> Answer:
    return lambda request: request.whole(body, at)


def says(length: int, body: bytes) -> Answer:
    def answer(request: Request) -> None:
        request.begin(200, Content_Length=length)
        request.wfile.write(body)

    return answer


def unmeasured(body: bytes) -> Answer:
    def answer(request: Request) -> None:
        request.begin(200)
        request.wfile.write(body)

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda request: request.begin(code, **headers)


def silent(body: bytes, at: int, ended: list[bool]) -> Answer:
    """Sends nothing more from `at` on; `ended` gets whether the client came again meanwhile."""

    def answer(request: Request) -> None:
        request.whole(body, at)
        request.wfile.flush()
        n_before, give_up = request.server.n_requests, time.monotonic() + 5
        while (waits := request.server.n_requests == n_before) and time.monotonic() < give_up:
            time.sleep(0.02)
        ended.append(not waits)

    return answer


def wait_for(ended: list[bool]) -> None:
    """Waits until the silent answer has ended: it may still be asleep."""
    give_up = time.monotonic() + 5
    while not ended and time.monotonic() < give_up:
        time.sleep(0.02)


def allow_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets data.download use plain http, to this machine, without pauses."""
    monkeypatch.setattr(download, "SCHEME", "http")
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("no_proxy", "*")
