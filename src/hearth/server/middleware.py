"""Middleware of extensions around the handling of requests (operations specification 8.4).

A middleware is a function that takes the next ASGI application and returns the one to call instead. Every ASGI
middleware works, and answers stream through it. :func:`middleware` makes one from a function ``(request, call_next)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.models.errors import ApiError
from hearth.server import errors
from hearth.telemetry.logs import get_logger

Middleware = Callable[[ASGIApp], ASGIApp]
#: Runs the function of an app and a path.
Invoke = Callable[[str, str, Scope, Receive, Send], Awaitable[None]]

_KEY: Final = "hearth.context"

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class Context:
    """The state that the middlewares of one request share.

    Attributes:
        app_name: The app that the URL names, for API middleware; the app of the function to call.
        path: The path of the function to call.
        function_called: A function was called instead, so the next application is skipped.
    """

    invoke: Invoke
    app_name: str = ""
    path: str = "/"
    function_called: bool = False

    async def call_function(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the function at ``app_name`` and ``path`` instead of the one in the URL."""
        self.function_called = True
        await self.invoke(self.app_name, self.path, scope, receive, send)


def context(request: HTTPConnection | Scope) -> Context:
    """Return the context of a request; only within a middleware."""
    scope = request.scope if isinstance(request, HTTPConnection) else request
    found: Context = scope[_KEY]
    return found


class IncomingRequest(Request):
    """A request whose body a middleware may read; the next application can read it again."""

    consumed: bytes | None = None

    async def body(self) -> bytes:
        """Return the whole body."""
        self.consumed = await super().body()
        return self.consumed


class Next:
    """The next application of a middleware."""

    def __init__(self, app: ASGIApp, send: Send) -> None:
        self._app = app
        self._send = send

    async def __call__(self, request: Request, *, body: bytes | None = None) -> None:
        """Let it answer the request. ``body`` replaces the body of the request."""
        scope, receive = _prepared(request, body)
        await self._app(scope, receive, self._send)

    async def call_function(
        self, request: Request, app_name: str, path: str = "/", *, body: bytes | None = None
    ) -> None:
        """Let a function answer the request instead of the one in its URL."""
        chosen = context(request)
        chosen.app_name, chosen.path = app_name, path
        scope, receive = _prepared(request, body)
        await chosen.call_function(scope, receive, self._send)


def middleware(function: Callable[[IncomingRequest, Next], Awaitable[Response | None]]) -> Middleware:
    """Make a middleware from a function that awaits ``call_next(request)``, or returns the answer itself."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            response = await function(IncomingRequest(scope, receive), Next(app, send))
            if response is not None:
                await response(scope, receive, send)

        return handle

    return wrap


def chained(middlewares: Sequence[Middleware], app: ASGIApp) -> ASGIApp:
    """Return the application with middlewares around it; the first is outermost."""
    for wrap in reversed(middlewares):
        app = wrap(_unless_called(app))
    return app


class RootChain:
    """An application with middlewares around it. It answers the errors that they raise."""

    def __init__(self, app: ASGIApp, middlewares: Sequence[Middleware], invoke: Invoke) -> None:
        self._app = chained(middlewares, app)
        self._invoke = invoke

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app({**scope, _KEY: Context(self._invoke)}, receive, watched)
        except Exception as exc:
            if not isinstance(exc, ApiError):
                _log.error("A panic occurred during middleware.", error=str(exc), exc_info=exc)
            if not started:  # otherwise the answer stays incomplete, and the server closes the connection
                await _answer(exc, scope["path"])(scope, receive, send)


class ApiChain:
    """An API with middlewares around all paths under /v1 and /v2, also those that do not exist."""

    def __init__(self, app: ASGIApp, middlewares: Sequence[Middleware]) -> None:
        self._app = app
        self._chain = chained(middlewares, app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parts = scope["path"].split("/")
        if parts[1:2] not in (["v1"], ["v2"]):
            await self._app(scope, receive, send)
            return
        names_app = parts[1:3] == ["v1", "apps"] and len(parts) > 3
        context(scope).app_name = parts[3] if names_app else ""
        await self._chain(scope, receive, send)


def _answer(exc: Exception, path: str) -> Response:
    return errors.response(exc if isinstance(exc, ApiError) else ApiError(), path)


def _unless_called(app: ASGIApp) -> ASGIApp:
    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        if not context(scope).function_called:
            await app(scope, receive, send)

    return ask


def _prepared(request: Request, body: bytes | None) -> tuple[Scope, Receive]:
    scope, receive = request.scope, request.receive
    if body is not None:
        framing = (b"content-length", b"transfer-encoding")
        headers = [pair for pair in scope["headers"] if pair[0] not in framing]
        scope = {**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
    elif isinstance(request, IncomingRequest):
        body = request.consumed
    return scope, receive if body is None else _replayed(body, receive)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a callable that gives this body, then the next messages of the client."""
    was_given = False

    async def again() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
