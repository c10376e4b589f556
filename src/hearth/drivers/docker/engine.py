"""The connection to one Docker Engine: the library's client, and connections of our own for streams."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import aiodocker
import aiohttp

from hearth.clock import Clock
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.errors import temporary
from hearth.drivers.docker.retries import ENGINE_ERRORS, retrying
from hearth.drivers.docker.tls import open_tls

_CONNECT_S: Final = 10.0
_PLAIN_PORT: Final = 2375
_TLS_PORT: Final = 2376
T = TypeVar("T")


class Engine:
    """One Engine. Made on the running loop; :meth:`close` it.

    Args:
        host: Its URL, ``unix://...`` or ``tcp://host:port``.
        clock: For the waits between tries.
        tls: What to show and to demand on a ``tcp`` connection; ``None`` leaves it plain.
        api_version: To speak, as ``1.24``; empty: what the Engine offers.
    """

    def __init__(self, host: str, clock: Clock, *, tls: ssl.SSLContext | None = None, api_version: str = "") -> None:
        self.host = host
        self.clock = clock
        self._address: SplitResult = urlsplit(host)
        self._tls = None if self._address.scheme == "unix" else tls
        self._connector = self._make_connector()
        self.docker = aiodocker.Docker(
            url=self._url(),
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            api_version=f"v{api_version}" if api_version else "auto",
        )

    def __repr__(self) -> str:
        return f"<Engine {self.host} tls={self._tls is not None}>"

    async def ping(self) -> None:
        """Make sure that it answers.

        Raises:
            DriverUnavailable: It does not.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self.docker.version()
        except (TimeoutError, *ENGINE_ERRORS) as exc:
            reason = str(exc) or f"no answer within {_CONNECT_S:g} s"
            raise DriverUnavailable(f"couldn't connect to docker daemon at {self.host}: {reason}") from exc

    async def call(
        self, name: str, call: Callable[[], Awaitable[T]], again: Callable[[Exception], bool] = temporary
    ) -> T:
        """Call until it works or fails for good; the phase around it sets the limit."""
        return await retrying(self.clock, name, call, again)

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Open a connection of its own for a protocol. It can be closed one way and still be read."""
        loop = asyncio.get_running_loop()
        if self._address.scheme == "unix":
            await loop.create_unix_connection(lambda: protocol, self._address.path)
            return
        host, port = self._address.hostname or "localhost", self._address.port
        if self._tls is None:
            await loop.create_connection(lambda: protocol, host, port or _PLAIN_PORT)
        else:
            await open_tls(protocol, self._tls, host, port or _TLS_PORT)

    async def close(self) -> None:
        """Close what is idle, break what is not."""
        await self.docker.close()
        await self._connector.close()  # the library leaves a connector that it was given to its giver

    def _make_connector(self) -> aiohttp.BaseConnector:
        # Every running container holds one connection open (it waits for the exit): no limit of ours on them.
        if self._address.scheme == "unix":
            return aiohttp.UnixConnector(self._address.path, limit=0)
        return aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)

    def _url(self) -> str:
        if self._address.scheme == "unix":
            return "unix://localhost"
        scheme, port = ("http", _PLAIN_PORT) if self._tls is None else ("https", _TLS_PORT)
        return f"{scheme}://{self._address.hostname or 'localhost'}:{self._address.port or port}"
