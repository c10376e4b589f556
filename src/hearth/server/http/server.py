"""A server of HTTP: its listeners, and their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType

from starlette.types import ASGIApp

from hearth.aio.clock import Clock
from hearth.server.http.clients import Clients
from hearth.server.http.connection import HttpConnection
from hearth.server.http.descriptors import Descriptors
from hearth.server.http.heads import HeadBudget
from hearth.server.http.shared import Handler, Shared
from hearth.server.http.tls import TlsConnection
from hearth.telemetry.logs import get_logger
from hearth.telemetry.series import Series

#: Connections that wait to be accepted.
_BACKLOG = 2048

_log = get_logger(__name__)


class HttpServer:
    """Listens, and serves until it is drained. An async context manager: leaving it breaks off what still runs.

    Args:
        head_timeout_s: Seconds that a client has for the head of a request.
        refused: Counts connections for which there is no descriptor.
        failed_handshakes: Counts TLS handshakes that failed.
        max_client_connections: Connections of one address; 0 for no limit, ``None`` for half of all.
        max_client_heads: Heads in progress of one address; 0 for no limit.
        refused_clients: Counts connections beyond the first of these limits.
        refused_heads: Counts those beyond the second.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        head_timeout_s: float,
        refused: Series | None = None,
        failed_handshakes: Series | None = None,
        max_client_connections: int | None = None,
        max_client_heads: int = 0,
        refused_clients: Series | None = None,
        refused_heads: Series | None = None,
    ) -> None:
        self._clock = clock
        self._head_timeout_s = head_timeout_s
        self._listeners: list[asyncio.Server] = []
        self._descriptors = Descriptors.of_process(refused)
        self._heads = HeadBudget()
        most = self._descriptors.most // 2 if max_client_connections is None else max_client_connections
        self._clients = Clients(most, max_client_heads, refused_clients, refused_heads)
        self._failed_handshakes = failed_handshakes
        self._shared: list[Shared] = []
        self._patience: asyncio.Timeout | None = None
        self._is_hurried = False

    async def __aenter__(self) -> HttpServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        await self._close()

    async def listen(
        self,
        sockets: Sequence[socket.socket],
        app: ASGIApp,
        calls: Handler | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> Callable[[], None]:
        """Serve the connections of these sockets, which the server closes. May be called more than once.

        Returns a function that stops to listen on them before the others; connections stay.

        Args:
            sockets: Bound.
            app: Answers requests.
            calls: Answers function calls; ``None`` if the application does that, too.
            tls: Returns the TLS context of a new connection; ``None`` for connections without TLS.
        """
        shared = Shared(
            self._clock,
            app,
            calls,
            head_timeout_s=self._head_timeout_s,
            descriptors=self._descriptors,
            heads=self._heads,
            clients=self._clients,
            failed_handshakes=self._failed_handshakes,
        )
        self._shared.append(shared)
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            return HttpConnection(shared) if tls is None else TlsConnection(shared, tls())

        made: list[asyncio.Server] = []
        for one in sockets:
            create = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            made.append(await create(accept, sock=one, backlog=_BACKLOG))
        self._listeners += made

        def stop() -> None:
            for listener in made:
                if listener in self._listeners:  # else the server has stopped to listen itself
                    self._listeners.remove(listener)
                    listener.close()

        return stop

    async def drain(self, limit_s: float) -> None:
        """Accept no connection, close those that are idle, and wait for the others; after the limit break them off."""
        self._stop_listening()
        for shared in self._shared:
            shared.abort_handshakes()
        for connection in self._connections():
            connection.shutdown()
        try:
            async with asyncio.timeout(0 if self._is_hurried else limit_s) as self._patience:
                for shared in self._shared:
                    await shared.drained()
        except TimeoutError:
            if not self._is_hurried:
                _log.warning("requests are broken off", connections=len(self._connections()))
                await self._close()
        finally:
            self._patience = None

    def hurry(self) -> None:
        """Let :meth:`drain` wait for nobody, if it waits or will."""
        self._is_hurried = True
        if self._patience is not None:
            self._patience.reschedule(0.0)

    def _connections(self) -> list[HttpConnection]:
        return [connection for shared in self._shared for connection in shared.connections]

    async def _close(self) -> None:
        for shared in self._shared:
            await shared.close()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
