"""A request as the handlers of the API see it."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect, Request

from hearth.models.errors import InvalidJSON, PathMalformed
from hearth.models.principal import Principal
from hearth.server.door import principal_of


@dataclasses.dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request with the names in its path."""

    http: Request
    app: str = ""
    route: str = ""
    call: str = ""
    token: str = ""
    secret: str = ""
    registry: str = ""
    schedule: str = ""
    node: str = ""

    @property
    def principal(self) -> Principal:
        """Return the sender of the request."""
        return principal_of(self.http.scope)

    def names(self) -> dict[str, str]:
        """Return the names in its path, as fields of log lines."""
        named = {
            **{"app": self.app, "route": self.route, "call": self.call, "call_id": self.call},
            "token_id": self.token,
            "secret": self.secret,
            "registry": self.registry,
            "schedule": self.schedule,
            "node": self.node,
        }
        return {key: value for key, value in named.items() if value}

    def query(self, name: str) -> str:
        """Return the first value of a query parameter; empty if there is none.

        Raises:
            PathMalformed: The value contains NUL. No stored name does, and not every database can compare it.
        """
        for pair in self.http.scope["query_string"].replace(b"+", b" ").split(b"&"):
            key, _, value = pair.partition(b"=")
            if unquote_to_bytes(key) == name.encode():
                text = unquote_to_bytes(value).decode("utf-8", "replace")
                if "\0" in text:
                    raise PathMalformed
                return text
        return ""

    def accepts(self) -> list[str]:
        """Return the lines of the Accept header, in order."""
        return self.http.headers.getlist("accept")

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            InvalidJSON: The client disconnected before the end.
            BodyTooLarge: The body exceeds the server's limit.
        """
        try:
            return await self.http.body()
        except ClientDisconnect:
            raise InvalidJSON from None
