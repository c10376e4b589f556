"""The ASGI application of a node: calls take the short way, everything else the way of the framework."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.server.http.shared import CALLS


class Front:
    """Sends function calls one way and the rest the other."""

    def __init__(self, invoke: ASGIApp, api: ASGIApp) -> None:
        self._invoke = invoke
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith(CALLS):
            await self._invoke(scope, receive, send)
        else:
            await self._api(scope, receive, send)
