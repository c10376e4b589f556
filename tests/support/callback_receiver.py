"""A receiver of the records of calls."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from hearth_fdk import is_signed

KEY = "key of the app"


class Receiver(http.server.ThreadingHTTPServer):
    """A receiver that answers 500 so many times.

    Attributes:
        received: The path, the id of the call that sent it, and the body of each record.
        fails: How many more records are answered 500.
    """

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server_address[1]}"
        self.received: list[tuple[str, str, dict[str, Any]]] = []
        self.fails = 0
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def of(self, path: str) -> list[dict[str, Any]]:
        """Return the records that a path has received."""
        return [body for where, _, body in self.received if where == path]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_valid = is_signed(body, self.headers["Hearth-Signature"], KEY)
        assert is_valid
        self.server.received.append((self.path, self.headers["Hearth-Call-Id"], json.loads(body)))
        self.server.fails, status = max(0, self.server.fails - 1), 500 if self.server.fails else 200
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Receive records that are signed with ``KEY``."""
    with Receiver(tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
