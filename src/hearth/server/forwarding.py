"""Requests that one worker of a node hands to another, over a Unix socket that only the node's user may enter.

All but function calls goes to the worker that has the API. The worker that got a request passes on who sent it; that is
believed only with the secret of the workers.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote

import aiohttp
import msgspec
import yarl
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.models.errors import ApiNodeAway, PathNotFound
from hearth.server import errors
from hearth.server.door import is_open_only, open_only
from hearth.server.http.shared import CALLS
from hearth.telemetry.logs import get_logger

_SECRET: Final = b"hearth-worker"
_ORIGIN: Final = b"hearth-origin"
#: RFC 9110, 7.6.1, and what was answered here already.
_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"expect", _SECRET, _ORIGIN),
    }
)
#: Characters of addresses that stay as they are: all but blanks, controls, ``#`` and ``?``.
_KEPT: Final = "!\"$%&'()*+,/:;<=>@[\\]^`{|}"
_CONNECT_S: Final = 5.0
#: Seconds for a short question between workers. Somebody waits for the answer.
_ASK_S: Final = 2.0
_CHANGED: Final = "/workers/changed"
_REVOKED: Final = "/workers/revoked"

_log = get_logger(__name__)


class _Origin(msgspec.Struct):
    """The way on which a request came in."""

    client: tuple[str, int] | None
    server: tuple[str, int] | None
    scheme: str
    open_only: bool


class Worker:
    """Another worker of this node, as an ASGI application. An async context manager.

    Args:
        path: Its socket.
        secret: That of the workers.
    """

    def __init__(self, path: Path, secret: str) -> None:
        self._path = path
        self._secret = secret
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Worker:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._path), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        )
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it answer a request."""
        if scope["type"] != "http":
            return
        if not scope["raw_path"].startswith(b"/"):  # "OPTIONS *"
            await errors.response(PathNotFound.of(scope["path"]), scope["path"])(scope, receive, send)
            return
        path, query = _sendable(scope["raw_path"]), _sendable(scope["query_string"])
        url = yarl.URL(f"http://localhost{path}{'?' if query else ''}{query}", encoded=True)
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        started = False
        try:
            async with self._session.request(
                scope["method"],
                url,
                headers=self._headers(scope),
                data=_body(receive) if has_body else None,
                allow_redirects=False,
            ) as answer:
                started = True
                headers = [(name, value) for name, value in answer.raw_headers if name.lower() not in _HOP_BY_HOP]
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                async for piece in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            if started:
                raise  # the answer stays incomplete, and the server closes the connection
            _log.warning("the worker with the API does not answer", error=str(exc) or type(exc).__name__)
            await errors.response(ApiNodeAway(), scope["path"])(scope, receive, send)

    async def get(self, path: str, token: str) -> bytes | None:
        """Return the answer to a request of this node itself; ``None`` if there is none in time."""
        return await self._ask("GET", path, {"Authorization": f"Bearer {token}"})

    async def changed(self, app_name: str, path: str | None) -> None:
        """Tell it that a route has changed, or an app of which anything may have changed."""
        query = {"app": app_name} if path is None else {"app": app_name, "route": path}
        await self._ask("POST", str(yarl.URL(_CHANGED).with_query(query)), {})

    async def revoked(self, token_id: str) -> None:
        """Tell it that a token was revoked."""
        await self._ask("POST", str(yarl.URL(_REVOKED).with_query({"token": token_id})), {})

    async def _ask(self, method: str, target: str, headers: dict[str, str]) -> bytes | None:
        shown = {**headers, _SECRET.decode(): self._secret}
        try:
            async with self._session.request(
                method,
                yarl.URL(f"http://localhost{target}", encoded=True),
                headers=shown,
                timeout=aiohttp.ClientTimeout(total=_ASK_S),
            ) as answer:
                body = await answer.read()
                return body if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            _log.warning("a worker does not answer", socket=str(self._path), error=str(exc) or type(exc).__name__)
            return None

    def _headers(self, scope: Scope) -> list[tuple[str, str]]:
        kept = [(name.decode("latin-1"), _text(value)) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        origin = _Origin(scope.get("client"), scope.get("server"), scope["scheme"], is_open_only(scope))
        added = [(_SECRET.decode(), self._secret), (_ORIGIN.decode(), msgspec.json.encode(origin).decode())]
        return [*kept, *added]


def all_but_calls(app: ASGIApp, owner: ASGIApp) -> ASGIApp:
    """Return an application that answers function calls here, and hands everything else to the owner of the API."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        there = scope["type"] == "http" and not scope["path"].startswith(CALLS)
        await (owner if there else app)(scope, receive, send)

    return answer


def from_workers(
    app: ASGIApp,
    secret: str,
    changed: Callable[[str, str | None], Awaitable[None]] | None = None,
    revoked: Callable[[str], None] | None = None,
) -> ASGIApp:
    """Return an application for the requests of other workers.

    Requests of theirs as runners show the secret as their token, and come from themselves.

    Args:
        app: Answers them.
        secret: That of the workers, which is their token as runners.
        changed: Takes note of a change that another worker has made.
        revoked: Forgets a token that was revoked through another worker, by its id.
    """
    shown = secret.encode()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = {name: value for name, value in scope["headers"] if name in (_SECRET, _ORIGIN, b"authorization")}
        if not hmac.compare_digest(found.get(_SECRET, b""), shown):
            is_runner = hmac.compare_digest(found.get(b"authorization", b""), b"Bearer " + shown)
            refused = errors.response(PathNotFound.of(scope["path"]), scope["path"])
            await (app if is_runner else refused)(scope, receive, send)
        elif scope["path"] == _CHANGED and changed is not None:
            names = parse_qs(scope["query_string"].decode())
            await changed(names["app"][0], names.get("route", [None])[0])
            await Response()(scope, receive, send)
        elif scope["path"] == _REVOKED and revoked is not None:
            revoked(parse_qs(scope["query_string"].decode())["token"][0])
            await Response()(scope, receive, send)
        else:
            inner, scope = _as_sent(app, scope, found.get(_ORIGIN))
            await inner(scope, receive, send)

    return answer


def _as_sent(app: ASGIApp, scope: Scope, origin: bytes | None) -> tuple[ASGIApp, Scope]:
    """Return the application and the scope that the request has where it came in."""
    headers = [pair for pair in scope["headers"] if pair[0] not in (_SECRET, _ORIGIN)]
    if origin is None:
        return app, {**scope, "headers": headers}
    at = msgspec.json.decode(origin, type=_Origin)
    scope = {**scope, "headers": headers, "client": at.client, "server": at.server, "scheme": at.scheme}
    return open_only(app) if at.open_only else app, scope


def _sendable(raw: bytes) -> str:
    """Return a part of an address with the same meaning, and nothing that another part begins with."""
    return quote(raw, safe=_KEPT)


def _text(value: bytes) -> str:
    """Return a header for aiohttp, which sends UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client left")
        if piece := message.get("body", b""):
            yield piece
        more = message.get("more_body", False)
