"""An HTTP client of an API node: kept connections, retries, and the meaning of errors (nodes specification 2).

aiohttp, because it is there for the Docker Engine anyway and costs a third of httpx's time per request.
"""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import yarl

from hearth.aio.clock import Clock, pause
from hearth.models.errors import ApiError, ApiNodeAway, AppsNotFound, RoutesNotFound, StartUpError
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.message import InvalidMessage
from hearth.telemetry.logs import get_logger
from hearth.telemetry.redaction import HIDDEN
from hearth.telemetry.tracing import Tracing

T = TypeVar("T")

ATTEMPTS: Final = 5
_FIRST_BACK_OFF_S: Final = 0.025
_MAX_DOUBLINGS: Final = 7
#: Seconds for all attempts of a request together. The client of a call waits for it.
LIMIT_S: Final = 10.0
_CONNECTIONS: Final = 512
_CONNECTIONS_PER_HOST: Final = 128
#: Shorter than API nodes keep an idle connection, so that no request meets a connection that they close.
_IDLE_S: Final = 4.0
#: Seconds without a byte after which a download has broken off.
_SILENT_S: Final = 30.0
_SHOWN: Final = 200
#: Bytes of a request body that are sent in one turn of the event loop.
_PIECE_BYTES: Final = 1 << 20

_log = get_logger(__name__)


class RemoteRefusal(ApiError):
    """A refusal by the API node, with its status and its message.

    Args:
        retry_after: Seconds after which the API node asks for another attempt; empty if it says nothing.
    """

    def __init__(self, code: int, message: str, retry_after: str = "") -> None:
        super().__init__(message)
        self._code = code
        self._retry_after = retry_after

    @property
    def code(self) -> int:
        """The status of the answer."""
        return self._code

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": self._retry_after} if self._retry_after else {}


class _ErrorBody(msgspec.Struct):
    message: str


class _Error(msgspec.Struct):
    """An error of API v1, which has a wrapper, or of version 2, which has none."""

    error: _ErrorBody | None = None
    message: str | None = None


def parse_api_url(text: str) -> str:
    """Return the base of all addresses for ``[http://]host[:port]``, whose path is ignored, or ``unix:/path``.

    Raises:
        StartUpError: The text names no host.
    """
    if text.startswith("unix:/"):
        return text
    with_scheme = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(with_scheme)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise StartUpError(f"FN_RUNNER_API_URL={_shown(text)}: no host specified for client")
    if parts.scheme not in ("http", "https"):
        raise StartUpError(f"FN_RUNNER_API_URL={_shown(text)}: begins with http:// or https://")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/v1/"


def _shown(text: str) -> str:
    """Return the setting without what may be a password. It is not an address, so its parts are unknown."""
    before, at, rest = text.rpartition("@")
    scheme, mark, _ = before.partition("://")
    return f"{scheme}{mark}{HIDDEN}@{rest}" if at and mark else f"{HIDDEN}@{rest}" if at else text


class ApiClient:
    """A client of one API node. Use as an async context manager.

    Args:
        base: From :func:`parse_api_url`; ``unix:/path`` for a Unix socket.
        tracing: Times requests, and tells the API node of the present span.
        token: Sent with every request, unless it is empty.
        tls: For an API node with TLS; ``None`` for the authorities of the system.
        connect_s: Seconds to open a connection. After twice as long without a sign of the other machine, even of its
            kernel, a connection is closed.
        limit_s: Seconds for all attempts of a request together, unless the request says otherwise.
    """

    def __init__(
        self,
        base: str,
        clock: Clock,
        tracing: Tracing,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        connect_s: float = 5.0,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._socket_path = base.removeprefix("unix:") if base.startswith("unix:") else ""
        self._base = "http://localhost/v1/" if self._socket_path else base
        self._root = self._base.removesuffix("/v1/")
        self.span = tracing.span
        self._inject = tracing.inject
        self._clock = clock
        self._tls = tls
        self._connect_s = connect_s
        self._limit_s = limit_s
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._session: aiohttp.ClientSession
        self._is_away = False

    def __repr__(self) -> str:
        return f"<ApiClient {self._base}>"

    async def __aenter__(self) -> ApiClient:
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not self._socket_path,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._session.close()

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket_path:
            return aiohttp.UnixConnector(
                self._socket_path,
                limit=_CONNECTIONS,
                limit_per_host=_CONNECTIONS_PER_HOST,
                keepalive_timeout=_IDLE_S,
            )
        return aiohttp.TCPConnector(
            limit=_CONNECTIONS,
            limit_per_host=_CONNECTIONS_PER_HOST,
            keepalive_timeout=_IDLE_S,
            socket_factory=self._socket,
            ssl=self._tls or True,
        )

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Return a socket that notices when packets vanish. TCP alone waits for minutes when a network is cut."""
        made = socket.socket(*address[:3])
        limit_s = max(1, round(self._connect_s))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limit_s)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limit_s)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * limit_s)
        return made

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        body: bytes | None = None,
        *,
        attempts: int = ATTEMPTS,
        limit_s: float | None = None,
    ) -> T:
        """Send a request, more than once if it fails, and return the answer.

        Args:
            method: HTTP method.
            path: Path below the base, or of the whole node if it begins with a slash; encoded.
            read: Decodes the answer; raises :class:`~hearth.models.message.InvalidMessage` if it is not valid.
            body: Request body.
            attempts: Maximum number of attempts.
            limit_s: Seconds for all attempts together, including the pauses.

        Raises:
            ApiError: The API node refused the request.
            ApiNodeAway: The API node does not answer, or the answer is not that of an API node.
        """
        until = self._clock.monotonic() + (self._limit_s if limit_s is None else limit_s)
        for attempt in range(1, attempts + 1):
            try:
                status, retry_after, data = await self._send(
                    method, path, body, attempt, until - self._clock.monotonic()
                )
                if status < 300:
                    found = read(data)
                    self._is_back()
                    return found
                failure = f"status {status}: {_message(data)[1]}"
            except (aiohttp.ClientError, OSError, TimeoutError, InvalidMessage) as exc:
                failure = f"{type(exc).__name__}: {exc}".rstrip(": ")
            else:
                if 400 <= status < 500:
                    self._is_back()
                    raise _refusal(status, retry_after, data)
                if status < 400:  # the address of another server: a retry cannot help
                    break
            pause_s = _back_off_s(attempt - 1)
            if attempt == attempts or self._clock.monotonic() + pause_s >= until:
                break
            self._log_error("error from API server, retrying", path=path, error=failure)
            await pause(self._clock, pause_s)
        self._log_error("error from API server", api=self._base, path=path, error=failure)
        self._is_away = True
        raise ApiNodeAway

    async def download(self, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yield the body of an answer piece by piece, from a byte on; however long it takes, but never without a sign.

        Raises:
            ApiError: The API node refused the request.
            aiohttp.ClientError: The connection broke.
        """
        headers = {**self._headers, **({"Range": f"bytes={offset}-"} if offset else {})}
        async with self._session.request(
            "GET",
            yarl.URL(self._base + path, encoded=True),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(sock_connect=self._connect_s, sock_read=_SILENT_S),
        ) as answer:
            if answer.status not in (200, 206) or (offset and answer.status != 206):
                raise _refusal(answer.status, answer.headers.get("Retry-After", ""), await answer.read())
            async for data in answer.content.iter_chunked(_PIECE_BYTES):
                yield data

    def _log_error(self, event: str, **fields: str) -> None:
        """Log an error at the start of an outage only: requests go on many times per second."""
        (_log.debug if self._is_away else _log.error)(event, **fields)

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("API server answers again", api=self._base)

    async def _send(
        self, method: str, path: str, body: bytes | None, attempt: int, total_s: float
    ) -> tuple[int, str, bytes]:
        headers = dict(self._headers)
        if attempt > 1:
            headers["Hearth-Attempt"] = str(attempt)
        with self.span("hybrid_client_http_do"):
            self._inject(headers)
            async with self._session.request(
                method,
                yarl.URL((self._root if path.startswith("/") else self._base) + path, encoded=True),
                data=_streamed(body, headers) if body and (method == "PUT" or len(body) > _PIECE_BYTES) else body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=self._connect_s),
            ) as answer:
                return answer.status, answer.headers.get("Retry-After", ""), await answer.read()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


def _streamed(body: bytes, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """Return the body in pieces, which also keeps aiohttp from repeating a PUT whose connection broke."""
    headers["Content-Length"] = str(len(body))
    return _pieces(body)


def _back_off_s(doublings: int) -> float:
    """Return 25 ms, doubled each time, plus jitter up to as much: clients that failed together retry apart."""
    return _FIRST_BACK_OFF_S * 2.0 ** min(doublings, _MAX_DOUBLINGS) * (1 + random.random())


def _message(data: bytes) -> tuple[bool, str]:
    """Return whether the body is an error of Hearth, and its message."""
    try:
        found = msgspec.json.decode(data, type=_Error)
    except (msgspec.MsgspecError, ValueError):
        found = _Error()
    message = found.message if found.error is None else found.error.message
    if message is None:
        return False, data[:_SHOWN].decode("utf-8", "replace").strip()
    return True, message


def _refusal(status: int, retry_after: str, data: bytes) -> ApiError:
    is_ours, message = _message(data)
    for kind in (AppsNotFound, RoutesNotFound, FnNotFound, TriggerNotFound):
        if is_ours and (status, message) == (kind.status, kind.message):
            return kind()
    return RemoteRefusal(status, message, retry_after)
