"""The node's ASGI application: calls take the short way, everything else the framework's."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.models.errors import ServerBusy
from hearth.server import errors


class Front:
    """Sends /r/ one way and the rest the other."""

    def __init__(self, invoke: ASGIApp, api: ASGIApp) -> None:
        self._invoke = invoke
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith("/r/"):
            await self._invoke(scope, receive, send)
        else:
            await self._api(scope, receive, send)


class Gate:
    """Lets requests through while there is room for what they leave behind; else 503, to be tried elsewhere."""

    def __init__(self, app: ASGIApp, has_room: Callable[[], bool]) -> None:
        self._app = app
        self._has_room = has_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._app if self._has_room() else errors.response(ServerBusy())
        await app(scope, receive, send)
