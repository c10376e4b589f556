"""A connection of the HTTP server without a socket: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from starlette.types import ASGIApp

from hearth.aio.clock import Clock, SystemClock
from hearth.server.http.clients import Clients
from hearth.server.http.connection import HttpConnection
from hearth.server.http.departures import Departures
from hearth.server.http.descriptors import Descriptors
from hearth.server.http.shared import Handler, Shared


class FakeDepartures:
    """Clients that are watched because they are not read, by descriptor."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, left: Callable[[], None]) -> None:
        self.watched[descriptor] = left

    def forget(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)


class FakeSocket:
    """A descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


class FakeClient(asyncio.Transport):
    """A client, and the transport to it.

    Attributes:
        received: The bytes that it was sent.
        writes: The same, write by write.
        is_closed: The server has closed the connection.
        is_read: The server reads it.
    """

    def __init__(self, shared: Shared, descriptor: int = 3, peer: Any = ("192.0.2.1", 5)) -> None:
        super().__init__()
        self.received = b""
        self.writes: list[bytes] = []
        self.is_closed = False
        self.is_read = True
        self._unread: list[bytes] = []
        self._socket = FakeSocket(descriptor)
        self._peer = peer
        self._is_lost = False
        self.connection = HttpConnection(shared)
        self.connection.connection_made(self)

    # -- the client ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes | str) -> None:
        """Send bytes, if there are any; they arrive once the server reads."""
        if data:
            self._unread.append(data.encode("latin-1") if isinstance(data, str) else data)
        self._arrive()

    def leave(self) -> None:
        """Close the connection."""
        self.is_closed = True
        self._lose()

    async def settled(self) -> bytes:
        """Let everything run that can; return what was received since the last look."""
        for _ in range(20):
            await asyncio.sleep(0)
        received, self.received = self.received, b""
        return received

    def _arrive(self) -> None:
        while self._unread and self.is_read and not self.is_closed:
            self.connection.data_received(self._unread.pop(0))

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.connection.connection_lost(None)

    # -- the transport ------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed, "nothing is written to a closed connection"
        self.writes.append(bytes(data))
        self.received += bytes(data)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self._lose)

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True
        asyncio.get_running_loop().call_soon(self._arrive)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self._socket, "peername": self._peer, "sockname": ("192.0.2.2", 80)}.get(name, default)


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Take no request."""
    raise AssertionError(scope["path"])


@contextlib.asynccontextmanager
async def shared_of(
    app: ASGIApp = no_app,
    calls: Handler | None = None,
    *,
    clock: Clock | None = None,
    head_timeout_s: float = 30,
    first_reserved: int = 1000,
    most_open: int = 1024,
    clients: Clients | None = None,
) -> AsyncIterator[Shared]:
    """What connections share, for these handlers. Leaving it breaks off what still runs."""
    descriptors = Descriptors(first_reserved, most_open)
    shared = Shared(
        clock or SystemClock(), app, calls, head_timeout_s=head_timeout_s, descriptors=descriptors, clients=clients
    )
    shared.departures = cast(Departures, FakeDepartures())
    try:
        yield shared
    finally:
        await shared.close()
