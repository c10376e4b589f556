"""Which web pages may read this node's answers (operations specification 7)."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.models.errors import StartUpError
from hearth.telemetry.logs import get_logger

_ANY: Final = "*"
_ALLOW_ORIGIN: Final = b"access-control-allow-origin"
_PREFLIGHT: Final = [
    (b"Access-Control-Allow-Methods", b"GET,POST,PUT,PATCH,DELETE,HEAD"),
    (b"Access-Control-Allow-Headers", b"Origin,Content-Length,Content-Type,Authorization"),
    (b"Access-Control-Max-Age", b"43200"),
    (b"Vary", b"Origin"),
    (b"Vary", b"Access-Control-Request-Method"),
    (b"Vary", b"Access-Control-Request-Headers"),
    (b"Content-Length", b"0"),
]

_log = get_logger(__name__)


def parse_origins(text: str) -> frozenset[str]:
    """Return the origins of a comma list; empty for none.

    Raises:
        StartUpError: One has no scheme, and is not ``*``.
    """
    origins = frozenset("".join(text.split()).lower().split(",")) - {""}
    for origin in sorted(origins - {_ANY}):
        if not origin.startswith(("http://", "https://")):
            raise StartUpError(f"FN_API_CORS: bad origin: origins must include http:// or https://: {origin}, or be *")
    return origins


def allow_origins(app: ASGIApp, origins: frozenset[str]) -> ASGIApp:
    """Return the application for pages of these origins too; the very same one if there are none."""
    if not origins:
        return app
    _log.info(f"CORS enabled for domains: [{' '.join(sorted(origins))}]")
    return Cors(app, origins)


class Cors:
    """Tells browsers which pages may read answers, and refuses the others.

    Args:
        origins: In lower case; ``*`` admits all.
    """

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        if not origin:
            await self._app(scope, receive, send)
        elif not self._admits(origin):
            await _answer(send, 403, [(b"Vary", b"Origin"), (b"Content-Length", b"0")])
        elif scope["method"] == "OPTIONS":
            await _answer(send, 200, [(b"Access-Control-Allow-Origin", self._shown(origin)), *_PREFLIGHT])
        else:
            await self._app(scope, receive, self._marked(send, self._shown(origin)))

    def _admits(self, origin: bytes) -> bool:
        return _ANY in self._origins or origin.decode("latin-1").lower() in self._origins

    def _shown(self, origin: bytes) -> bytes:
        return _ANY.encode() if _ANY in self._origins else origin

    @staticmethod
    def _marked(send: Send, origin: bytes) -> Send:
        ours = [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Expose-Headers", b"Fn_call_id, Fn-Call-Id"),
            (b"Vary", b"Origin"),
        ]

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A function that says the same would make it twice, which browsers refuse.
                given = [pair for pair in message.get("headers", ()) if pair[0].lower() != _ALLOW_ORIGIN]
                message = {**message, "headers": [*given, *ours]}
            await send(message)

        return marked


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
