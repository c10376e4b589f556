"""Send the records of calls to their destinations: signed, to public addresses, without redirects.

A destination that names a route is called as an anonymous client would call it, so that who may deploy to one app gets
no way into another one.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import yarl
from starlette.types import Message, Receive, Scope, Send

from hearth.access.base import SecretSource
from hearth.aio.clock import Clock
from hearth.models.call import Call
from hearth.models.destination import DEPTH, KEY_NAMES, TIMEOUT_S, Networks, is_allowed, is_url, validate_destination
from hearth.models.errors import HearthError, InternalError, SecretGone

SIGNATURE: Final = "Hearth-Signature"
_AT_ONCE: Final = 64
_CONNECT_S: Final = 10.0

#: Calls the function of an app and a path over ASGI, see :class:`~hearth.server.invoke.InvokeFront`.
CallRoute = Callable[[str, str, Scope, Receive, Send], Awaitable[None]]


class CallbackFailed(InternalError):
    """A record has not reached its destination."""


def sign(body: bytes, keys: list[bytes], time_s: int) -> str:
    """Return the signature of a body at a time: one digest for each key."""
    digests = [hmac.new(key, b"%d.%b" % (time_s, body), hashlib.sha256).hexdigest() for key in keys]
    return ",".join([f"t={time_s}", *[f"v1={digest}" for digest in digests]])


class Callbacks:
    """Sends records. Made within the event loop, and closed by its owner.

    Args:
        secrets: Have the keys of apps.
        call_route: Calls routes.
        allowed: Networks to which records may be sent, although they are not public.
        timeout_s: Seconds for one attempt.
        tls: For receivers with TLS; ``None`` for the authorities of the system.
    """

    def __init__(
        self,
        secrets: SecretSource,
        call_route: CallRoute,
        clock: Clock,
        allowed: Networks,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._secrets = secrets
        self._call_route = call_route
        self._clock = clock
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._permits = asyncio.Semaphore(_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                force_close=True, use_dns_cache=False, socket_factory=self._socket, ssl=tls or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy would choose the address
        )

    async def close(self) -> None:
        """Close connections."""
        await self._session.close()

    async def send(self, call: Call) -> int:
        """Send a record once, and return the status of the answer, of which nothing else is read.

        Raises:
            HearthError: The destination was not reached, or has not answered with a status from 200 to 299.
        """
        validate_destination("destination", call.url)
        keys = await self._keys(call)
        headers = {"Content-Type": "application/json", "Hearth-Call-Id": call.id, DEPTH: call.headers[DEPTH][0]}
        if keys:
            headers[SIGNATURE] = sign(call.payload, keys, self._clock.now_ms() // 1000)
        elif is_url(call.url):
            raise CallbackFailed(f"app {call.app_name} has no secret {KEY_NAMES[0]}, with which its records are signed")
        async with self._permits:
            status = await (self._post if is_url(call.url) else self._call)(call, headers)
        if not 200 <= status < 300:
            raise CallbackFailed(f"the destination answered {status}")
        return status

    async def _keys(self, call: Call) -> list[bytes]:
        found = []
        for name in KEY_NAMES:
            try:
                values = await self._secrets.values(call.app_name, call.app_id, [name])
            except SecretGone:
                continue
            found.append(values.values[name].encode())
        return found

    async def _post(self, call: Call, headers: Mapping[str, str]) -> int:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S)
        try:
            async with self._session.post(
                yarl.URL(call.url), data=call.payload, headers=headers, allow_redirects=False, timeout=timeout
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            raise CallbackFailed(f"{type(exc).__name__}: {exc}".rstrip(": ")) from exc

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Return a socket for an address that a record may be sent to. It is the one connected, whatever names say."""
        host = str(address[4][0])
        if not is_allowed(ipaddress.ip_address(host.partition("%")[0]), self._allowed):
            raise PermissionError(
                errno.EACCES, f"records are not sent to {host}: it is no public address (FN_CALLBACK_ALLOW)"
            )
        return socket.socket(*address[:3])

    async def _call(self, call: Call, headers: Mapping[str, str]) -> int:
        app_name, _, path = call.url.partition("/")
        given = {**headers, "Content-Length": str(len(call.payload)), "Host": "localhost"}
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": f"/r/{app_name}/{path}",
            "raw_path": f"/r/{app_name}/{path}".encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": None,
        }
        statuses: list[int] = []
        parts = [{"type": "http.request", "body": call.payload, "more_body": False}]

        async def receive() -> Message:
            return parts.pop() if parts else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        try:
            await self._call_route(app_name, f"/{path}", scope, receive, send)
        except HearthError as exc:
            raise CallbackFailed(str(exc)) from exc
        if not statuses:
            raise CallbackFailed("the destination has not answered")
        return statuses[0]
