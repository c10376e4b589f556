"""The logs of functions on the syslog servers of their apps.

Each line is a message of RFC 5424 with the tag that Fn gives it, ``app_id=...,fn_id=...``, and with the id of the call
that it belongs to, if any. A connection serves all containers with the same address. It is made before the first of
them starts; if it breaks it is made again, and lines that come meanwhile wait. Lines that cannot be sent are counted
(``hearth_syslog_lines_dropped``); no call waits for its lines.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit

from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.models.errors import SyslogUnavailable
from hearth.models.times import format_time
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Which addresses of apps are served: none, those of networks, or Unix sockets of this machine, too.
Reach = Literal["off", "network", "any"]

#: "user-level messages", "informational" (RFC 5424, 6.2.1).
_PRIORITY: Final = 1 << 3 | 6
_PORT: Final = 514
_CONNECT_S: Final = 5.0
_FIRST_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 30.0
#: The longest part of a line that is kept until its end comes.
_LINE_BYTES: Final = 16 * 1024
#: Lines that wait for a connection, and bytes that wait in one.
_MAX_WAITING: Final = 1000
_MAX_BUFFERED: Final = 1 << 20

_log = get_logger(__name__)


class _Wire(Protocol):
    """A way to a server."""

    def send(self, message: bytes) -> bool:
        """Send a message, without waiting; return whether it was taken."""

    def close(self) -> None:
        """Close it. What it has taken is still sent."""


class _Datagrams:
    """A socket that sends each message by itself."""

    def __init__(self, own: socket.socket) -> None:
        self._socket = own

    def send(self, message: bytes) -> bool:
        try:
            self._socket.send(message)
        except OSError:  # its buffer is full, or nobody listens at the moment
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class _Stream(asyncio.Protocol):
    """A connection that carries a message on each line."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def send(self, message: bytes) -> bool:
        if self._transport is None or self._transport.get_write_buffer_size() > _MAX_BUFFERED:
            return False
        self._transport.write(message + b"\n")
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Connection:
    """The connection to one address, for as long as a container uses it.

    Attributes:
        users: Drains that are open.
    """

    def __init__(self, url: str, clock: Clock, metrics: Metrics, background: Background) -> None:
        self.users = 0
        self._url = urlsplit(url)
        self._clock = clock
        self._dropped = metrics.counter("hearth_syslog_lines_dropped").series()
        self._background = background
        self._wire: _Wire | None = None
        self._waiting: deque[bytes] = deque()

    async def connect(self) -> None:
        """Connect, unless it is connected.

        Raises:
            SyslogUnavailable: The server cannot be reached.
        """
        if self._wire is not None:
            return
        try:
            async with asyncio.timeout(_CONNECT_S):
                wire = await _open(self._url, self._lost)
        except (OSError, TimeoutError, ValueError) as exc:
            _log.warning("syslog of an app not reached", address=_shown(self._url), error=str(exc))
            raise SyslogUnavailable from exc
        if self._wire is not None:  # another container was faster
            wire.close()
            return
        self._wire = wire
        while self._waiting:
            self.send(self._waiting.popleft())

    def send(self, message: bytes) -> None:
        """Send a message, or keep it until there is a connection."""
        if self._wire is not None:
            if not self._wire.send(message):
                self._dropped.value += 1
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append(message)
        else:
            self._dropped.value += 1

    def close(self) -> None:
        """Close it."""
        self.users = 0
        self._dropped.value += len(self._waiting)
        self._waiting.clear()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _lost(self) -> None:
        if self._wire is None:  # it was closed here, or is not the one in use
            return
        self._wire = None
        if self.users:
            self._background.start(self._connect_again())

    async def _connect_again(self) -> None:
        delay_s = _FIRST_RETRY_S
        while self.users and self._wire is None:
            try:
                await self.connect()
            except SyslogUnavailable:
                await pause(self._clock, delay_s)
                delay_s = min(2 * delay_s, _MAX_RETRY_S)


class Drain:
    """Takes what one container writes, and sends it line by line."""

    __slots__ = ("_call_id", "_clock", "_close", "_connection", "_origin", "_partial", "_tag")

    def __init__(self, connection: _Connection, clock: Clock, tag: str, close: Callable[[], None]) -> None:
        self._connection = connection
        self._clock = clock
        self._tag = tag
        self._origin = f"{socket.gethostname()} {tag} {os.getpid()}"
        self._close = close
        self._call_id = ""
        self._partial = b""

    def __repr__(self) -> str:
        return f"<Drain {self._tag}>"

    def write(self, data: bytes, call_id: str = "") -> None:
        """Take some bytes of a call; without an id, of the container."""
        if call_id != self._call_id:
            self._flush()
            self._call_id = call_id
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._send(line)
        if len(self._partial) > _LINE_BYTES:
            self._flush()

    def close(self) -> None:
        """Send what is left, and let go of the connection."""
        self._flush()
        self._close()

    def _flush(self) -> None:
        if self._partial:
            self._send(self._partial)
            self._partial = b""

    def _send(self, line: bytes) -> None:
        now = format_time(self._clock.now())
        head = f"<{_PRIORITY}>1 {now} {self._origin} {self._call_id or '-'} - "
        self._connection.send(head.encode() + line.rstrip(b"\r").replace(b"\0", b" "))


class Drains:
    """The connections of a node to the syslog servers of apps.

    Args:
        reach: Which addresses are served.
    """

    def __init__(self, clock: Clock, metrics: Metrics, reach: Reach = "network") -> None:
        self._clock = clock
        self._metrics = metrics
        self._reach = reach
        self._connections: dict[str, _Connection] = {}
        self._background = Background()

    def __repr__(self) -> str:
        return f"<Drains {self._reach} connections={len(self._connections)}>"

    async def open(self, url: str, tag: str) -> Drain | None:
        """Return where a container's output goes besides its log; ``None`` if it goes nowhere.

        Args:
            url: The address of the app; empty: none.
            tag: Names the function.

        Raises:
            SyslogUnavailable: The server cannot be reached, or is none that this node serves.
        """
        if not url or self._reach == "off":
            return None
        if urlsplit(url).scheme in ("unix", "unixgram") and self._reach != "any":
            _log.warning("syslog of an app is a Unix socket, which FN_APP_SYSLOG=any allows", tag=tag)
            raise SyslogUnavailable
        connection = self._connections.get(url)
        if connection is None:
            connection = self._connections[url] = _Connection(url, self._clock, self._metrics, self._background)
        connection.users += 1
        try:
            await connection.connect()
        except BaseException:
            self._leave(url, connection)
            raise
        return Drain(connection, self._clock, tag, lambda: self._leave(url, connection))

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        await self._background.cancel()

    def _leave(self, url: str, connection: _Connection) -> None:
        connection.users -= 1
        if connection.users <= 0:
            connection.close()
            if self._connections.get(url) is connection:
                del self._connections[url]


async def _open(url: SplitResult, lost: Callable[[], None]) -> _Wire:
    """Connect to a server.

    Raises:
        OSError: It cannot be reached.
        ValueError: Its address is none.
    """
    loop = asyncio.get_running_loop()
    if url.scheme == "unixgram":
        return _datagrams(socket.AF_UNIX, unquote(url.path))
    if url.scheme == "unix":
        return (await loop.create_unix_connection(lambda: _Stream(lost), unquote(url.path)))[1]
    host, port = url.hostname or "localhost", url.port or _PORT
    if url.scheme == "udp":
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        return _datagrams(family, address)
    tls = await asyncio.to_thread(ssl.create_default_context) if url.scheme == "tcp+tls" else None
    return (await loop.create_connection(lambda: _Stream(lost), host, port, ssl=tls))[1]


def _datagrams(family: int, address: tuple[Any, ...] | str) -> _Datagrams:
    own = socket.socket(family, socket.SOCK_DGRAM)
    try:
        own.setblocking(False)
        own.connect(address)  # of a datagram: says where it goes, without waiting
    except BaseException:
        own.close()
        raise
    return _Datagrams(own)


def _shown(url: SplitResult) -> str:
    """Return an address without credentials, for log lines."""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
