"""What extensions put around the handling of requests (operations specification 8.4).

A middleware is ASGI's: a function that is given the next application and returns the one to ask instead. Any ASGI
middleware works, and answers stream through it. :func:`middleware` makes one of a function ``(request, call_next)``.
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
    """What the middlewares of one request share.

    Attributes:
        app_name: The app that the URL names, for API middleware; the app of the function to call.
        path: The path of the function to call.
        function_called: A function was called instead: whatever comes next is skipped.
    """

    invoke: Invoke
    app_name: str = ""
    path: str = "/"
    function_called: bool = False

    async def call_function(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the function at ``app_name`` and ``path`` instead of what the URL names."""
        self.function_called = True
        await self.invoke(self.app_name, self.path, scope, receive, send)


def context(request: HTTPConnection | Scope) -> Context:
    """The context of a request; within a middleware only."""
    scope = request.scope if isinstance(request, HTTPConnection) else request
    found: Context = scope[_KEY]
    return found


class IncomingRequest(Request):
    """A request whose body a middleware may read: what comes next can read it again."""

    consumed: bytes | None = None

    async def body(self) -> bytes:
        """All of it."""
        self.consumed = await super().body()
        return self.consumed


class Next:
    """What a middleware's request would meet next."""

    def __init__(self, app: ASGIApp, send: Send) -> None:
        self._app = app
        self._send = send

    async def __call__(self, request: Request, *, body: bytes | None = None) -> None:
        """Have it answered. ``body`` replaces the request's own."""
        scope, receive = _prepared(request, body)
        await self._app(scope, receive, self._send)

    async def call_function(
        self, request: Request, app_name: str, path: str = "/", *, body: bytes | None = None
    ) -> None:
        """Have a function answer it, whatever its URL is."""
        chosen = context(request)
        chosen.app_name, chosen.path = app_name, path
        scope, receive = _prepared(request, body)
        await chosen.call_function(scope, receive, self._send)


def middleware(function: Callable[[IncomingRequest, Next], Awaitable[Response | None]]) -> Middleware:
    """A middleware of a function. It awaits ``call_next(request)``, or returns the answer itself."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            response = await function(IncomingRequest(scope, receive), Next(app, send))
            if response is not None:
                await response(scope, receive, send)

        return handle

    return wrap


def chained(middlewares: Sequence[Middleware], app: ASGIApp) -> ASGIApp:
    """The application with middlewares around it; the first is outermost."""
    for wrap in reversed(middlewares):
        app = wrap(_unless_called(app))
    return app


class RootChain:
    """An application that middlewares surround: what they raise is answered, whatever they do."""

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
            if not started:  # else it stays unfinished: the server closes the connection
                await _answer(exc)(scope, receive, send)


class ApiChain:
    """An API whose middlewares surround all that is under /v1, whether it exists or not."""

    def __init__(self, app: ASGIApp, middlewares: Sequence[Middleware]) -> None:
        self._app = app
        self._chain = chained(middlewares, app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parts = scope["path"].split("/")
        if parts[1:2] != ["v1"]:
            await self._app(scope, receive, send)
            return
        context(scope).app_name = parts[3] if parts[2:3] == ["apps"] and len(parts) > 3 else ""
        await self._chain(scope, receive, send)


def _answer(exc: Exception) -> Response:
    return errors.response(exc if isinstance(exc, ApiError) else ApiError())


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
    """A body that is here, then what the client does next."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
