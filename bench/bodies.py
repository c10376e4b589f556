"""Large bodies, to a function and from it: how fast they pass, and what they cost the node."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from tests.support.node import RunningNode, build_multi, running_node

from bench.figures import Figures
from bench.load import cpu_seconds, memory_mib

_BYTES: Final = 100_000_000
_PIECE: Final = bytes(1 << 20)
_FORMATS: Final = ("http", "http-stream")
_TO, _FROM = "to a function", "from a function"
_ORDERS: Final = {_TO: {"echo": "x"}, _FROM: {"size": _BYTES}}


def bodies(figures: Figures, *, rounds: int) -> None:
    """Pass a body of 100 MB each way through each format in turn, round after round."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with running_node("process", data, build_multi(data, data / "source")) as node:
            paths = {name: node.route(name, name, memory=1024, timeout=120, idle_timeout=600) for name in _FORMATS}
            for path in paths.values():
                node.call(path, echo="x")
            before = memory_mib(node.process.pid)
            for _ in range(rounds):
                for name, path in paths.items():
                    for way in (_TO, _FROM):
                        _measure(figures, node, f"{way}, {name}", path, way)
            figures.add("bodies", "node", "MiB more after it", memory_mib(node.process.pid) - before)


def _measure(figures: Figures, node: RunningNode, subject: str, path: str, way: str) -> None:
    spent, begun = cpu_seconds(node.process.pid), time.perf_counter()
    received = _passed(node.url, f"{path}?do={quote(json.dumps(_ORDERS[way]))}", _BYTES if way == _TO else 0)
    took = time.perf_counter() - begun
    if received < (_BYTES if way == _FROM else 1):
        raise SystemExit(f"bench: {subject}: {received} bytes were answered")
    figures.add("bodies", subject, "MB/s", _BYTES / took / 1e6)
    figures.add("bodies", subject, "ms CPU of the node", (cpu_seconds(node.process.pid) - spent) * 1000)


def _passed(url: str, target: str, size: int) -> int:
    """Send a request with a body of that size; the number of bytes that are answered."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for sent in range(0, size, len(_PIECE)):
            connection.sendall(_PIECE[: size - sent])
        buffer, received = bytearray(1 << 20), 0
        while count := connection.recv_into(buffer):
            received += count
        return received
