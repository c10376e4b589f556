"""Back-pressure between a client and its requests, both ways."""

from __future__ import annotations

import asyncio

from hearth.server.http.departures import Departures


class Flow:
    """Stops reading a client whose requests are not taken, and holds up answers that a client does not take.

    A client that is not read is watched: if it leaves, its connection is aborted.

    Attributes:
        is_full: Answers wait.
        is_paused: The client is not read.
    """

    __slots__ = ("_departures", "_transport", "_watched", "_writable", "is_full", "is_paused")

    def __init__(self, transport: asyncio.Transport, departures: Departures) -> None:
        self.is_full = False
        self.is_paused = False
        self._transport = transport
        self._departures = departures
        self._watched: int | None = None
        self._writable: asyncio.Event | None = None

    def pause(self) -> None:
        """Read the client no more. Idempotent."""
        if not self.is_paused and not self._transport.is_closing():
            self.is_paused = True
            self._transport.pause_reading()
            self._watched = self._transport.get_extra_info("socket").fileno()
            self._departures.watch(self._watched, self._transport.abort)

    def resume(self) -> None:
        """Read the client again. Idempotent."""
        if self.is_paused:
            self.is_paused = False
            self.forget()
            self._transport.resume_reading()

    def forget(self) -> None:
        """Stop watching. Idempotent."""
        if self._watched is not None:
            self._departures.forget(self._watched)
            self._watched = None

    def hold(self) -> None:
        """Let answers wait: the client is slow."""
        self.is_full = True
        if self._writable is not None:
            self._writable.clear()

    def let_go(self) -> None:
        """Let answers continue. Idempotent."""
        self.is_full = False
        if self._writable is not None:
            self._writable.set()

    async def writable(self) -> None:
        """Wait until answers continue."""
        if not self.is_full:
            return
        if self._writable is None:
            self._writable = asyncio.Event()
        await self._writable.wait()
