"""Calls that run until the test lets them end: their functions wait for the last byte of the body."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tests.support.node import RunningNode
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.waiting import until

#: A shorter body would be read as a whole before its call takes a container.
_PAD_BYTES: Final = 1 << 17


class HeldCall:
    """A call that runs."""

    def __init__(self, raw: RawClient, rest: str) -> None:
        self._raw = raw
        self._rest = rest

    def let_go(self) -> RawAnswer:
        """Give the function the last byte; the answer."""
        self._raw.send(self._rest)
        answer = self._raw.answer()
        assert answer is not None
        return answer

    def is_closed(self) -> bool:
        """Whether the node has closed the connection after the answer."""
        return self._raw.is_closed()


@contextlib.contextmanager
def holding(node: RunningNode, path: str, **orders: object) -> Iterator[HeldCall]:
    """A call of a hot function with these orders, once it runs."""
    body = json.dumps({**orders, "pad": "x" * _PAD_BYTES})
    with RawClient(node.url) as raw:
        raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body[:-1]}")
        assert until(lambda: node.http.get("/stats").json()["Running"] > 0)
        yield HeldCall(raw, body[-1])


def listens(node: RunningNode) -> bool:
    """Whether a node takes new connections."""
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(node.url).port or 0), timeout=60):
            return True
    except ConnectionRefusedError:
        return False
