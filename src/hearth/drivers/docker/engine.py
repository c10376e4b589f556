"""The connection to one Docker Engine: the library's client, and separate connections for streams."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import aiodocker
import aiohttp
from aiodocker.utils import compose_auth_header

from hearth.aio.clock import Clock
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.errors import temporary
from hearth.drivers.docker.retries import ENGINE_ERRORS, retrying
from hearth.drivers.docker.tls import open_tls
from hearth.telemetry.node import Telemetry
from hearth.telemetry.tracing import Tracing

_CONNECT_S: Final = 10.0
_PLAIN_PORT: Final = 2375
_TLS_PORT: Final = 2376
#: RFC 3339, with up to nine digits of a second.
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
T = TypeVar("T")


class Engine:
    """One Engine. Made on the running loop; :meth:`close` it.

    Args:
        host: Its URL, ``unix://...`` or ``tcp://host:port``.
        clock: For the waits between tries.
        tls: What to show and to demand on a ``tcp`` connection; ``None`` leaves it plain.
        api_version: To speak, as ``1.24``; empty: what the Engine offers.
        tracing: Times what the Engine does.
    """

    def __init__(
        self,
        host: str,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        api_version: str = "",
        tracing: Tracing | None = None,
    ) -> None:
        self.host = host
        self.span = (tracing or Telemetry().tracing).span
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

    async def ping(self) -> dict[str, Any]:
        """Make sure that it answers; return what it says about its version.

        Raises:
            DriverUnavailable: It does not.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                version: dict[str, Any] = await self.docker.version()
        except (TimeoutError, *ENGINE_ERRORS) as exc:
            reason = str(exc) or f"no answer within {_CONNECT_S:g} s"
            raise DriverUnavailable(f"couldn't connect to docker daemon at {self.host}: {reason}") from exc
        return version

    async def has_our_clock(self) -> bool:
        """Return whether its times are those of this machine's clock.

        An Engine behind a unix socket may still run elsewhere: in a virtual machine with a kernel of its own, or at
        the other end of a tunnel, whose clock is not ours to the millisecond.
        """
        if self._address.scheme != "unix":
            return False
        before = self.clock.now()
        info = await self.docker.system.info()
        after = self.clock.now()
        told = parse_moment(str(info.get("SystemTime")))
        same_kernel = info.get("KernelVersion") == os.uname().release
        return same_kernel and told is not None and before <= told <= after

    async def call(
        self, name: str, call: Callable[[], Awaitable[T]], again: Callable[[Exception], bool] = temporary
    ) -> T:
        """Call until it succeeds or fails permanently; the phase around it sets the limit."""
        return await retrying(self.clock, name, call, again)

    async def ask_registry(self, name: str, registry: str, auth: dict[str, str] | None) -> tuple[int, str]:
        """Let the Engine ask a registry for the manifest of an image, whether it has the image or not.

        Args:
            name: The image, with its registry.
            registry: Its registry.
            auth: The credentials, in the form of the Engine.

        Returns:
            The status of the answer, and its message if that is an error.
        """
        headers = {} if auth is None else {"X-Registry-Auth": compose_auth_header(auth, registry)}
        url = self._url().replace("unix://", "http://") + f"/distribution/{name}/json"
        async with (
            aiohttp.ClientSession(connector=self._connector, connector_owner=False) as session,
            session.get(url, headers=headers) as answer,
        ):
            if answer.status == 200:
                return 200, ""
            return answer.status, str((await answer.json(content_type=None)).get("message", ""))

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


def parse_moment(text: str) -> dt.datetime | None:
    """Parse a time of the Engine, to the microsecond; ``None`` if it has none, which it writes as year 1."""
    found = _MOMENT.fullmatch(text)
    if found is None or text.startswith("0001-"):
        return None
    seconds, fraction, zone = found.groups()
    return dt.datetime.fromisoformat(f"{seconds}.{(fraction or '')[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")
