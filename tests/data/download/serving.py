"""A local web server that serves one file, correctly or with the faults that a test chooses."""

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
    """Handler: request n gets answer n of the server, later requests get the last answer."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.n_requests += 1
        answer = server.answers[min(server.n_requests, len(server.answers)) - 1]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):  # the client closed the connection
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send_headers(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send_file(self, body: bytes, end: int | None = None) -> None:
        """Send the file correctly, or only its first `end` bytes."""
        self.send_headers(200, Content_Length=len(body))
        self.wfile.write(body[:end])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers = answers
        self.n_requests = 0

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host name, which takes seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    """Run a server whose first request gets the first answer, and so on."""
    with Server(list(answers)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def good(body: bytes) -> Answer:
    return lambda request: request.send_file(body)


def breaks(body: bytes, at: int) -> Answer:
    return lambda request: request.send_file(body, at)


def says(length: int, body: bytes) -> Answer:
    def answer(request: Request) -> None:
        request.send_headers(200, Content_Length=length)
        request.wfile.write(body)

    return answer


def unmeasured(body: bytes) -> Answer:
    def answer(request: Request) -> None:
        request.send_headers(200)
        request.wfile.write(body)

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda request: request.send_headers(code, **headers)


def silent(body: bytes, at: int, ended: list[bool]) -> Answer:
    """Stop sending at byte `at`; append to `ended` whether the client sent another request."""

    def answer(request: Request) -> None:
        request.send_file(body, at)
        request.wfile.flush()
        n_before, give_up = request.server.n_requests, time.monotonic() + 5
        while (waits := request.server.n_requests == n_before) and time.monotonic() < give_up:
            time.sleep(0.02)
        ended.append(not waits)

    return answer


def wait_for(ended: list[bool]) -> None:
    """Wait until the thread of a `silent` answer has appended its result."""
    give_up = time.monotonic() + 5
    while not ended and time.monotonic() < give_up:
        time.sleep(0.02)


def allow_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let data.download use plain http to this machine, and retry without pauses."""
    monkeypatch.setattr(download, "SCHEME", "http")
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("no_proxy", "*")
