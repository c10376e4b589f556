"""The client's side of a call: its body, and whether it is still there."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from starlette.types import Receive, Scope

from hearth.agent.call import ClientGone, RequestBody
from hearth.clock import Clock

#: Only a call that takes longer than this is worth a task that watches its client.
_WATCH_AFTER_S: Final = 0.05


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
    """Cancels the task that entered it when its client leaves. Costs one timer, unless the call takes long."""

    def __init__(self, body: RequestBody, receive: Receive, clock: Clock) -> None:
        self._body = body
        self._receive = receive
        self._clock = clock
        self._owner: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> ClientWatch:
        self._owner = asyncio.current_task()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
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
        self._timer = self._clock.call_at(self._clock.monotonic() + _WATCH_AFTER_S, self._look)

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
