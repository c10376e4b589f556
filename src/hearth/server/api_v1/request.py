"""What a handler of the API sees of a request."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect, Request

from hearth.models.errors import BodyTooLarge, InvalidJSON


@dataclasses.dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request with the names that stood in its path."""

    http: Request
    app: str = ""
    route: str = ""
    call: str = ""

    def names(self) -> dict[str, str]:
        """Whom it concerns, as the log names them."""
        named = {"app": self.app, "route": self.route, "call": self.call, "call_id": self.call}
        return {key: value for key, value in named.items() if value}

    def query(self, name: str) -> str:
        """The first value of a query parameter; empty if there is none."""
        for pair in self.http.scope["query_string"].replace(b"+", b" ").split(b"&"):
            key, _, value = pair.partition(b"=")
            if unquote_to_bytes(key) == name.encode():
                return unquote_to_bytes(value).decode("utf-8", "replace")
        return ""

    def accepts(self) -> list[str]:
        """The lines of the Accept header, in order."""
        return self.http.headers.getlist("accept")

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            InvalidJSON: The client left before its end, or it was cut at the server's limit.
        """
        try:
            return await self.http.body()
        except (ClientDisconnect, BodyTooLarge):
            raise InvalidJSON from None
