"""What requests leave behind in the memory of a node."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.node import RunningNode
from tests.support.waiting import until

_BODY_BYTES = 50_000_000
_PIECE = b"x" * 1_000_000


def rss_mib(node: RunningNode) -> float:
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def abort_upload(node: RunningNode, path: str) -> None:
    """Send most of a body, then close the connection. The node may have refused it before."""
    address = urlsplit(node.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {_BODY_BYTES}\r\n\r\n".encode())
        try:
            for _ in range(_BODY_BYTES // len(_PIECE) - 1):
                client.sendall(_PIECE)
        except (BrokenPipeError, ConnectionResetError):
            return


def test_aborted_uploads_leave_no_memory_behind(node: RunningNode, hot: str) -> None:
    path = node.route(f"aborted-{hot}", hot, timeout=60, idle_timeout=30)
    assert node.call(path, echo="x").status_code == 200
    for _ in range(4):  # what the allocator keeps for the next one
        abort_upload(node, path)
    before = rss_mib(node)
    for _ in range(8):  # more than twice what may be added, if their bytes stayed
        abort_upload(node, path)
    assert node.call_once_free(path, echo="x").status_code == 200
    assert until(lambda: rss_mib(node) < before + 150)
