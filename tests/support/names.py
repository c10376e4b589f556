"""A name server of a test's own: the addresses of a few hosts, which may change."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

_IPV4 = 1
_NO_SUCH_NAME = 3
_LIFETIME_S = 1


@contextlib.contextmanager
def naming(address: str, names: dict[str, str]) -> Iterator[None]:
    """Answer questions at this address, port 53, while the block runs (RFC 1035)."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sender = self.request
            sender.sendto(_answer(data, names), self.client_address)

    with socketserver.UDPServer((address, 53), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _answer(data: bytes, names: dict[str, str]) -> bytes:
    name, end = _name(data, 12)
    kind = int.from_bytes(data[end : end + 2])
    question = data[12 : end + 4]
    found = names.get(name)
    given = found is not None and kind == _IPV4
    flags = 0x8580 | (0 if found else _NO_SUCH_NAME)
    head = struct.pack("!2sHHHHH", data[:2], flags, 1, int(given), 0, 0)
    if not given or found is None:
        return head + question
    return head + question + struct.pack("!HHHIH4s", 0xC00C, _IPV4, 1, _LIFETIME_S, 4, socket.inet_aton(found))


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels = []
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1
