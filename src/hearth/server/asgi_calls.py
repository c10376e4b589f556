"""A call that comes through an ASGI application: behind middleware of extensions, or in tests."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from hearth.agent.call import ClientGone
from hearth.models.errors import BodyTooLarge
from hearth.server.http.asgi import EXCHANGE
from hearth.server.http.exchange import Arrival, HttpExchange
from hearth.server.http.parsing import RequestHead


class AsgiExchange:
    """A :class:`~hearth.server.call_io.CallExchange` over ASGI."""

    __slots__ = (
        "_answer_head",
        "_client",
        "_http",
        "_limit",
        "_receive",
        "_send",
        "_size",
        "ended",
        "head",
        "length",
        "started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.head = _head(scope)
        self.length = self.head.length
        self.ended = self.length == 0
        self.started = False
        self._client = scope.get("client")
        self._receive = receive
        self._send = send
        self._http: HttpExchange | None = scope.get(EXCHANGE)
        self._answer_head: dict[str, Any] = {}
        self._limit: int | None = None
        self._size = 0

    # -- the request --------------------------------------------------------------------------------------------------

    @property
    def client(self) -> str:
        """The address of the client; empty if it has none."""
        return self._client[0] if self._client else ""

    @property
    def arrival(self) -> Arrival:
        """The progress of the request, as far as the server can tell."""
        return Arrival.ARRIVING if self._http is None else self._http.arrival

    @property
    def watcher(self) -> asyncio.Task[Any] | None:
        """The task that is cancelled when the client leaves, if the server can tell."""
        return None if self._http is None else self._http.watcher

    @watcher.setter
    def watcher(self, task: asyncio.Task[Any] | None) -> None:
        if self._http is not None:
            self._http.watcher = task

    def limit(self, most: int) -> None:
        """Refuse a body with more bytes than this.

        Raises:
            BodyTooLarge: The client says that it has more. If it does not say, :meth:`read` raises this.
        """
        if self.length is not None and self.length > most:
            raise BodyTooLarge(self.length, most)
        self._limit = most

    async def read(self) -> bytes:
        """Return the next piece of the body; ``b""`` at the end.

        Raises:
            ClientGone: The client left before the end.
            BodyTooLarge: The body is longer than its limit.
        """
        while not self.ended:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            self.ended = not message.get("more_body", False)
            if data := message.get("body", b""):
                self._size += len(data)
                if self._limit is not None and self._size > self._limit:
                    raise BodyTooLarge(self._size, self._limit)
                return bytes(data)
        return b""

    def whole(self) -> bytes | None:
        """Return a body without a byte; of any other, nobody can tell without waiting."""
        return b"" if self.ended else None

    # -- the answer ---------------------------------------------------------------------------------------------------

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Compose the head; it is sent with what follows."""
        self._answer_head = {"type": "http.response.start", "status": status, "headers": headers}

    def send_known(self, start: bytes, data: bytes) -> bool:
        """Return false: a head goes field by field to what is around the front."""
        return False

    async def write(self, data: bytes) -> None:
        """Send some bytes of the body, after the head."""
        await self._send_part(data, more=True)

    async def end(self, data: bytes = b"") -> None:
        """Send the last bytes of the body."""
        await self._send_part(data, more=False)

    async def _send_part(self, data: bytes, *, more: bool) -> None:
        if not self.started:
            self.started = True
            await self._send(self._answer_head)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _head(scope: Scope) -> RequestHead:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    length: int | None = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = None
    target, query = scope["raw_path"].decode("latin-1"), scope["query_string"]
    return RequestHead(
        scope["method"],
        f"{target}?{query.decode('latin-1')}" if query else target,
        scope["path"],
        scope["raw_path"],
        query,
        scope.get("http_version", "1.1"),
        headers,
        scope.get("scheme", "http"),
        length,
    )
