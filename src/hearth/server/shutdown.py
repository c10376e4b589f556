"""Stopping a node by a request (API specification 3): only where the code that embeds it asks for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.server.errors import JSON_TYPE

_PATH: Final = "/shutdown"


class ShutdownEndpoint:
    """``GET /shutdown``, behind the door and before every middleware.

    Attributes:
        stop: Called once the request is answered.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] = lambda: None

    def before(self, app: ASGIApp) -> ASGIApp:
        """Return an application that has this endpoint, too."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] != _PATH or scope["method"] != "GET":
                await app(scope, receive, send)
                return
            response = Response(b'"shutting down"', headers={"Content-Type": JSON_TYPE})
            await response(scope, receive, send)
            self.stop()

        return answer
