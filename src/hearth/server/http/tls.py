"""The beginning of a TLS connection to the server: its handshake, with a limit of time."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from hearth.aio.tls import Records, TlsTransport
from hearth.server.http.clients import Client
from hearth.server.http.connection import HttpConnection
from hearth.server.http.shared import Shared


class TlsConnection(Records):
    """A connection whose requests come within TLS. It counts as a connection from its first moment.

    Args:
        shared: The parts that it shares with the other connections of its server.
        context: Of its session.
    """

    def __init__(self, shared: Shared, context: ssl.SSLContext) -> None:
        self._http = http = HttpConnection(shared, scheme="https")
        super().__init__(TlsTransport(http, context, self._settled, is_server=True))
        self._shared = shared
        self._limit: int | None = None
        self._client: Client | None = None
        self._raw: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake, if there is a descriptor for the connection."""
        self._raw = cast("asyncio.Transport", transport)
        if not self._shared.descriptors.admit(transport.get_extra_info("socket").fileno()):
            self._raw.abort()
            return
        client = self._shared.clients.enter(transport.get_extra_info("peername"))
        if client is None:
            self._raw.abort()
            return
        self._client = self._http.client = client
        self._shared.handshakes.add(self)
        self._limit = self._shared.handshake_limit.add(self.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        if self._client is not None:
            self._shared.clients.leave(self._client)
            self._client = None
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self._raw.abort()

    def _settled(self, failure: Exception | None) -> None:
        if self._limit is None:
            return
        self._shared.handshakes.discard(self)
        self._shared.handshake_limit.discard(self._limit)
        if failure is not None:
            self._shared.failed_handshakes.value += 1
            self._raw.close()
