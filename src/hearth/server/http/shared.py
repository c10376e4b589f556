"""The parts that the connections of one server share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from hearth.aio.background import Background, Workers
from hearth.aio.clock import Clock
from hearth.aio.deadlines import Expiries
from hearth.server.http.clients import Clients
from hearth.server.http.departures import Departures
from hearth.server.http.descriptors import Descriptors
from hearth.server.http.exchange import Dates, HttpExchange
from hearth.server.http.heads import HeadBudget
from hearth.telemetry.series import Series

if TYPE_CHECKING:
    from hearth.server.http.connection import HttpConnection
    from hearth.server.http.tls import TlsConnection

#: Seconds for which a connection is kept between two requests: longer than balancers keep theirs (HAProxy 5 s, nginx
#: and most clouds 60 s). Of two ends that give up at the same time, one sends a request that nobody reads any more.
KEEP_ALIVE_S: Final = 75.0
#: Seconds that a client for which there is no descriptor has to send something, to which the refusal is the answer.
_REFUSAL_S: Final = 1.0
#: Seconds for a TLS handshake: two or three packets each way.
_HANDSHAKE_S: Final = 10.0
#: The beginning of the paths of calls of routes.
ROUTES: Final = "/r/"
#: And of those of fns: by id, and through a trigger.
INVOKE: Final = "/invoke/"
TRIGGERS: Final = "/t/"
CALLS: Final = (ROUTES, INVOKE, TRIGGERS)

#: Answers a request.
Handler = Callable[[HttpExchange], Awaitable[None]]


class Shared:
    """The limits and the application of a server, and what runs for its clients.

    Args:
        app: Answers requests.
        calls: Answers function calls; ``None`` if the application does that, too.
        head_timeout_s: Time for the head of a request.
        heads: Of all connections of the server.
        clients: The same, by address; without it they have no limits.
        failed_handshakes: Counts TLS handshakes that failed.

    Attributes:
        tasks: Those that have the application answer requests.
        workers: Those that answer function calls.
    """

    def __init__(
        self,
        clock: Clock,
        app: ASGIApp,
        calls: Handler | None,
        *,
        head_timeout_s: float,
        descriptors: Descriptors,
        heads: HeadBudget | None = None,
        clients: Clients | None = None,
        failed_handshakes: Series | None = None,
    ) -> None:
        self.connections: set[HttpConnection] = set()
        self.handshakes: set[TlsConnection] = set()
        self.failed_handshakes = failed_handshakes or Series()
        self.departures = Departures()
        self.descriptors = descriptors
        self.heads = heads or HeadBudget()
        self.clients = clients or Clients()
        self.head_limit = Expiries(clock, head_timeout_s)
        self.handshake_limit = Expiries(clock, min(_HANDSHAKE_S, head_timeout_s))
        self.refusal_limit = Expiries(clock, _REFUSAL_S)
        self.tasks = Background()
        self.workers = Workers()
        self.clock = clock
        self.dates = Dates(clock)
        self.app = app
        self.calls = calls
        self._all_lost = asyncio.Event()

    def lost(self, connection: HttpConnection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_lost.set()

    async def drained(self) -> None:
        """Wait until no connection is left, and nothing runs for one."""
        while self.connections:
            self._all_lost.clear()
            await self._all_lost.wait()
        await self.tasks.join()
        await self.workers.join()

    def abort_handshakes(self) -> None:
        """Close the connections whose handshake has not ended."""
        for connection in list(self.handshakes):
            connection.abort()

    async def close(self) -> None:
        """Break off everything."""
        self.abort_handshakes()
        for connection in list(self.connections):
            connection.transport.abort()
        await self.tasks.cancel()
        await self.workers.cancel()
        for limit in (self.head_limit, self.refusal_limit, self.handshake_limit):
            limit.close()
