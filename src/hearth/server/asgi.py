"""The node's ASGI application: calls take the short way, everything else the framework's."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


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
