"""The view that the front of calls has of a client: over the server's own protocol, or over ASGI."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from hearth.server.http.exchange import Arrival
from hearth.server.http.parsing import RequestHead

#: A body that is no longer than this is read whole before its call waits for a container.
WHOLE_BYTES: Final = 64 * 1024


class CallExchange(Protocol):
    """A request with its body, and the answer to it.

    Attributes:
        watcher: The task that is cancelled when the client leaves, if the server can tell.
    """

    watcher: asyncio.Task[Any] | None

    @property
    def head(self) -> RequestHead:
        """The head of the request."""

    @property
    def client(self) -> str:
        """The address of the client; empty if it has none."""

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the client said; 0 for none."""

    @property
    def ended(self) -> bool:
        """Every byte has been read."""

    @property
    def arrival(self) -> Arrival:
        """The progress of the request, as far as the server can tell."""

    def limit(self, most: int) -> None:
        """Refuse a body with more bytes than this.

        Raises:
            BodyTooLarge: The client says that it has more. If it does not say, :meth:`read` raises this.
        """

    async def read(self) -> bytes:
        """Return the next piece of the body; ``b""`` at the end.

        Raises:
            ClientGone: The client has left.
            BodyTooLarge: The body is longer than its limit.
        """

    def whole(self) -> bytes | None:
        """Return the whole body if it has arrived, and none of it was read.

        Raises:
            BodyTooLarge: The body is longer than its limit.
        """

    @property
    def started(self) -> bool:
        """The client was sent something."""

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Compose the head of the answer, of names in lower case; it is sent with what follows."""

    def send_known(self, start: bytes, data: bytes) -> bool:
        """Send a whole answer, whose head is composed up to the end of its last field.

        Returns:
            False if its head is to be given by its fields, and its body after that: nothing was sent.
        """

    async def write(self, data: bytes) -> None:
        """Send some bytes of the body, after the head."""

    async def end(self, data: bytes = b"") -> None:
        """Send the last bytes of the body; of an answer in one piece, everything."""


async def beginning(exchange: CallExchange) -> bytes:
    """Return the first piece of a body, or all of it if it is small.

    Until then its call takes no container: a client that does not send what it announced holds up nobody.
    """
    first = await exchange.read()
    if exchange.ended or exchange.length is None or exchange.length > WHOLE_BYTES:
        return first
    pieces = [first]
    while not exchange.ended:
        pieces.append(await exchange.read())
    return b"".join(pieces)


async def read_all(exchange: CallExchange) -> bytes:
    """Return the whole body."""
    pieces: list[bytes] = []
    while piece := await exchange.read():
        pieces.append(piece)
    return b"".join(pieces)
