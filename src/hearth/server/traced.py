"""The span of a request: outermost, so that nothing that answers is left out."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.telemetry import tracing

_SPAN = "hearth.span"


class Traced:
    """Times each request, and goes on with the trace that its headers tell of."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have one request answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with tracing.serving(scope["path"], scope["headers"]) as span:
            scope[_SPAN] = span
            await self._app(scope, receive, send)


def label(scope: Scope, app: str, path: str = "") -> None:
    """The request concerns this app and route, which exist: what does not must not become a label."""
    span: tracing.span | None = scope.get(_SPAN)
    if span is not None:
        span.label(app, path)
