"""Speaks HTTP to an API node: connections that are kept, tries, and what its errors mean (nodes specification 2).

aiohttp, because it is there for the Docker Engine anyway and costs a third of httpx's time per request.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import yarl

from hearth.clock import Clock, pause
from hearth.models.errors import ApiError, ApiNodeAway, AppsNotFound, RoutesNotFound, StartUpError
from hearth.models.message import InvalidMessage
from hearth.telemetry import tracing
from hearth.telemetry.logs import get_logger
from hearth.telemetry.redaction import HIDDEN
from hearth.telemetry.tracing import span

T = TypeVar("T")

ATTEMPTS: Final = 5
_FIRST_BACK_OFF_S: Final = 0.025
_MAX_DOUBLINGS: Final = 7
_TOTAL_S: Final = 60.0
_CONNECTIONS: Final = 512
_CONNECTIONS_PER_HOST: Final = 128
#: Shorter than what API nodes keep an idle connection for, so that none is used that they are about to close.
_IDLE_S: Final = 4.0
_SHOWN: Final = 200

_log = get_logger(__name__)


class RemoteRefusal(ApiError):
    """What the API node said no to, with its status and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self._code = code

    @property
    def code(self) -> int:
        """As the API node gave it."""
        return self._code


class _ErrorBody(msgspec.Struct):
    message: str


class _Error(msgspec.Struct):
    error: _ErrorBody


def parse_api_url(text: str) -> str:
    """The base of all addresses: ``[http://]host[:port]``; a path is ignored.

    Raises:
        StartUpError: It names no host.
    """
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
    """The setting without what may be a password: it is no address, so nobody knows where one ends."""
    before, at, rest = text.rpartition("@")
    scheme, mark, _ = before.partition("://")
    return f"{scheme}{mark}{HIDDEN}@{rest}" if at and mark else f"{HIDDEN}@{rest}" if at else text


class ApiNode:
    """A client of one API node. Use as an async context manager.

    Args:
        base: From :func:`parse_api_url`.
        token: Shown with every request, if there is one.
        connect_s: Seconds that making a connection may take. One on which twice as long nothing arrives, not even what
            the other machine's kernel sends by itself, is given up.
    """

    def __init__(self, base: str, clock: Clock, *, token: str = "", connect_s: float = 5.0) -> None:
        self._base = base
        self._clock = clock
        self._connect_s = connect_s
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._session: aiohttp.ClientSession
        self._is_away = False

    def __repr__(self) -> str:
        return f"<ApiNode {self._base}>"

    async def __aenter__(self) -> ApiNode:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                limit_per_host=_CONNECTIONS_PER_HOST,
                keepalive_timeout=_IDLE_S,
                socket_factory=self._socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._session.close()

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """One that notices when packets vanish: a network that is cut says nothing, and TCP alone waits for minutes."""
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
        total_s: float = _TOTAL_S,
    ) -> T:
        """The answer to a request, which may be sent more than once.

        Args:
            method: Of HTTP.
            path: Below the base, encoded.
            read: Makes the answer of its bytes; raises :class:`~hearth.models.message.InvalidMessage` if it is none.
            body: What is sent.
            attempts: How often it is sent at most.
            total_s: Seconds for each of them.

        Raises:
            ApiError: The API node refused.
            ApiNodeAway: It is not there, or what answers is none.
        """
        for attempt in range(1, attempts + 1):
            try:
                status, data = await self._send(method, path, body, attempt, total_s)
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
                    raise _refusal(status, data)
                if status < 400:  # somebody else's address: no use in asking again
                    break
            if attempt < attempts:
                self._tell("error from API server, retrying", path=path, error=failure)
                await pause(self._clock, _back_off_s(attempt - 1))
        self._tell("error from API server", api=self._base, path=path, error=failure)
        self._is_away = True
        raise ApiNodeAway

    def _tell(self, event: str, **fields: str) -> None:
        """Of an outage the begin and the end are told: who is gone for minutes is asked many times a second."""
        (_log.debug if self._is_away else _log.error)(event, **fields)

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("API server answers again", api=self._base)

    async def _send(
        self, method: str, path: str, body: bytes | None, attempt: int, total_s: float
    ) -> tuple[int, bytes]:
        headers = dict(self._headers)
        if attempt > 1:
            headers["Hearth-Attempt"] = str(attempt)
        with span("hybrid_client_http_do"):
            tracing.inject(headers)
            async with self._session.request(
                method,
                yarl.URL(self._base + path, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=self._connect_s),
            ) as answer:
                return answer.status, await answer.read()


def _back_off_s(doublings: int) -> float:
    """25 ms, doubled each time, and up to as much again: those who failed together do not come back together."""
    return _FIRST_BACK_OFF_S * 2.0 ** min(doublings, _MAX_DOUBLINGS) * (1 + random.random())


def _message(data: bytes) -> tuple[bool, str]:
    """Whether the body is an error of ours, and what it says."""
    try:
        return True, msgspec.json.decode(data, type=_Error).error.message
    except (msgspec.MsgspecError, ValueError):
        return False, data[:_SHOWN].decode("utf-8", "replace").strip()


def _refusal(status: int, data: bytes) -> ApiError:
    is_ours, message = _message(data)
    for kind in (AppsNotFound, RoutesNotFound):
        if is_ours and (status, message) == (kind.status, kind.message):
            return kind()
    return RemoteRefusal(status, message)
