"""The span of a request: the outermost layer, so that it covers every answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.telemetry.tracing import Span, Tracing

_SPAN = "hearth.span"


class Traced:
    """Times each request, and continues the trace in its headers."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._tracing = tracing
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._tracing.serving(scope["path"], scope["headers"]) as span:
            scope[_SPAN] = span
            await self._app(scope, receive, send)


def label(scope: Scope, app: str, path: str = "") -> None:
    """Label the span of a request with its app and route. Only those that exist: each pair is a series of its own."""
    span: Span | None = scope.get(_SPAN)
    if span is not None:
        span.label(app, path)
