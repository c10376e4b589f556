"""Requests of a connection, as an ASGI application sees them (ASGI 3.0, HTTP specification 2.3)."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Scope

from hearth.agent.call import ClientGone
from hearth.server.http.exchange import HttpExchange

#: The key of a scope under which its :class:`HttpExchange` is found.
EXCHANGE: Final = "hearth.exchange"

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


async def run_asgi(app: ASGIApp, exchange: HttpExchange, transport: asyncio.BaseTransport) -> None:
    """Have an application answer a request.

    Raises:
        RuntimeError: It did not.
    """
    channels = _Channels(exchange)
    await app(_scope(exchange, transport), channels.receive, channels.send)
    if not exchange.started and not exchange.is_over:
        raise RuntimeError("the application did not answer")


def _scope(exchange: HttpExchange, transport: asyncio.BaseTransport) -> Scope:
    head = exchange.head
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": head.version,
        "method": head.method,
        "scheme": head.scheme,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "root_path": "",
        "headers": list(head.headers),  # the application may change them, and the head may serve again
        "client": _address(transport, "peername"),
        "server": _address(transport, "sockname"),
        EXCHANGE: exchange,
    }


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    """Return the address of an end of a connection; a unix socket has none."""
    found = transport.get_extra_info(name)
    return (found[0], found[1]) if isinstance(found, tuple) else None


class _Channels:
    """The two channels of an ASGI application: receive and send."""

    __slots__ = ("_exchange", "_was_read")

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self._was_read = False

    async def receive(self) -> Message:
        """Return the next piece of the body; then wait until the client leaves, or has its answer."""
        exchange = self._exchange
        if not self._was_read:
            try:
                data = await exchange.read()
            except ClientGone:
                return {"type": "http.disconnect"}
            self._was_read = exchange.ended
            return {"type": "http.request", "body": data, "more_body": not self._was_read}
        await exchange.over()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        exchange = self._exchange
        if message["type"] == "http.response.start":
            exchange.begin(message["status"], message.get("headers", ()))
        elif message["type"] != "http.response.body":
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        elif message.get("more_body", False):
            await exchange.write(bytes(message.get("body", b"")))
        else:
            await exchange.end(bytes(message.get("body", b"")))
