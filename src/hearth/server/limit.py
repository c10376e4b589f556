"""The longest body of a request (operations specification 1)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.models.errors import BodyTooLarge
from hearth.server import errors


class BodyLimit:
    """An application that takes bodies up to a limit.

    A request that announces more is refused at once. If it announces nothing, reading its body raises
    :class:`~hearth.models.errors.BodyTooLarge` at the limit.

    Args:
        limit: Returns the limit in bytes for a path; ``None`` for no limit.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int | None]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        limit = self._limit(scope.get("path", ""))
        if limit is None:
            await self._app(scope, receive, send)
        elif (length := _announced(scope)) > limit:
            await errors.response(BodyTooLarge(length, limit), scope["path"])(scope, receive, send)
        else:
            await self._app(scope, _cut(receive, limit), send)


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
