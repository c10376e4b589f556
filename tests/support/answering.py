"""A server that answers everything alike, and remembers what it was asked: one that somebody else runs."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any


class Answering(http.server.ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: Request lines.
        tokens: The Authorization headers that it was shown.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {"version": "0.3.753", "apps": []}
        self.requests: list[str] = []
        self.tokens: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answering

    def _answer(self) -> None:
        self.server.requests.append(self.requestline)
        if (token := self.headers.get("Authorization")) is not None:
            self.server.tokens.append(token)
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        for name, value in {**self.server.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def answering(port: int = 0) -> Iterator[Answering]:
    """Serve from a thread of its own."""
    with Answering(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
