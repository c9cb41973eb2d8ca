"""A web server on this machine that serves one file, well or badly, as the test tells it."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; the next of the server's answers answers it, the last one ever after."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        answer = server.answers[min(len(server.ranges), len(server.answers)) - 1]
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

    @property
    def offset(self) -> int:
        """Where the asked range begins."""
        asked = self.headers.get("Range")
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0

    def whole(self, body: bytes, end: int | None = None) -> None:
        """Sends the asked range as one should; `end` breaks off there."""
        if at := self.offset:
            range_ = f"bytes {at}-{len(body) - 1}/{len(body)}"
            self.begin(206, Content_Length=len(body) - at, Content_Range=range_)
        else:
            self.begin(200, Content_Length=len(body))
        self.wfile.write(body[at:end])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers = answers
        self.ranges: list[str | None] = []  # that were asked for

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


def no_ranges(body: bytes) -> Answer:
    def answer(request: Request) -> None:
        request.begin(200, Content_Length=len(body))
        request.wfile.write(body)

    return answer


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


def other_range(body: bytes, range_: str) -> Answer:
    def answer(request: Request) -> None:
        request.begin(206, Content_Range=range_)
        request.wfile.write(body)

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda request: request.begin(code, **headers)


def silent(body: bytes, at: int, ended: list[bool]) -> Answer:
    """Sends nothing more from `at` on; `ended` gets whether the client came again meanwhile."""

    def answer(request: Request) -> None:
        request.whole(body, at)
        request.wfile.flush()
        n_before, give_up = len(request.server.ranges), time.monotonic() + 5
        while (waits := len(request.server.ranges) == n_before) and time.monotonic() < give_up:
            time.sleep(0.02)
        ended.append(not waits)

    return answer
