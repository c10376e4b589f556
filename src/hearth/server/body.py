"""The client's side of a call: its body, and whether it is still there."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from starlette.types import Receive, Scope

from hearth.agent.call import ClientGone, RequestBody
from hearth.expiry import Expiries

#: Seconds that a call must take to be worth a task that watches its client.
WATCH_AFTER_S: Final = 0.05


class AsgiBody:
    """A :class:`~hearth.agent.call.RequestBody` over ASGI."""

    __slots__ = ("_ended", "_receive", "length")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self.length: int | None = 0
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for name, value in headers:
            if name == b"content-length":
                self.length = int(value)
            elif name == b"transfer-encoding":
                self.length = None
        self._ended = self.length == 0

    @property
    def ended(self) -> bool:
        """Every byte has been read."""
        return self._ended

    async def read(self) -> bytes:
        """The next piece; ``b""`` at the end."""
        while not self._ended:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            self._ended = not message.get("more_body", False)
            if data := message.get("body", b""):
                return bytes(data)
        return b""


class ClientWatch:
    """Cancels the task that entered it when its client leaves.

    Args:
        patience: How long a call must take to be worth a task that watches its client.
    """

    __slots__ = ("_body", "_gone", "_key", "_owner", "_patience", "_receive", "_task")

    def __init__(self, body: RequestBody, receive: Receive, patience: Expiries) -> None:
        self._body = body
        self._receive = receive
        self._patience = patience
        self._owner: asyncio.Task[object] | None = None
        self._key = -1
        self._task: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> ClientWatch:
        self._owner = asyncio.current_task()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.discard(self._key)
        if self._task is not None:
            self._task.cancel()

    def settle(self) -> None:
        """The owner was cancelled: say so if it was for the client's sake.

        Raises:
            ClientGone: It was; the cancellation is taken back.
        """
        if self._gone and self._owner is not None:
            self._owner.uncancel()
            raise ClientGone

    def _arm(self) -> None:
        self._key = self._patience.add(self._look)

    def _look(self) -> None:
        if self._body.ended:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        else:
            self._arm()  # the body's reader sees the client leave; two must not read at once

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._owner is not None:
            self._gone = True
            self._owner.cancel()
