"""The longest body of a request (operations specification 1)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.models.errors import BodyTooLarge
from hearth.server import errors


class BodyLimit:
    """An application that takes bodies up to a limit.

    A request that announces more is refused at once. One that does not say how much it brings is cut: its reader gets
    a :class:`~hearth.models.errors.BodyTooLarge` where the limit is passed.

    Args:
        limit: Bytes that a body may have; ``None`` for any.
        exempt: The beginning of paths that have no limit; empty: none has.
    """

    def __init__(self, app: ASGIApp, limit: int | None, exempt: str = "") -> None:
        self._app = app
        self._limit = limit
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._limit is None or (self._exempt and scope.get("path", "").startswith(self._exempt)):
            await self._app(scope, receive, send)
        elif (length := _announced(scope)) > self._limit:
            await errors.response(BodyTooLarge(length, self._limit))(scope, receive, send)
        else:
            await self._app(scope, _cut(receive, self._limit), send)


def _announced(scope: Scope) -> int:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _cut(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise BodyTooLarge(size, limit)
        return message

    return counted
