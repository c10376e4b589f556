"""Forgets the messages of calls that have ended."""

from __future__ import annotations

import asyncio
from typing import Final

from hearth.access.base import DataAccess
from hearth.clock import Clock, pause
from hearth.models.errors import HearthError
from hearth.telemetry.logs import get_logger

#: So long messages wait for others, to be settled with them: 20 times a second at most, for each is a transaction.
SETTLE_AFTER_S: Final = 0.05
_MAX_AT_ONCE: Final = 500

_log = get_logger(__name__)


class Settler:
    """Settles many messages at a time: nobody waits for that, and only the end of a lease makes haste.

    A message that is never settled would come back, and take a container's turn to find that there is nothing to do.

    Args:
        after_s: Seconds for which a message waits for others.
    """

    def __init__(self, access: DataAccess, clock: Clock, after_s: float) -> None:
        self._access = access
        self._clock = clock
        self._after_s = after_s
        self._leases: list[str] = []
        self._any = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Settler waiting={len(self._leases)}>"

    def add(self, lease: str) -> None:
        """The end of the call that this lease is for is stored."""
        self._leases.append(lease)
        self._any.set()

    async def step(self) -> None:
        """Wait for messages, and settle them; while the queue is away, try again before their leases end."""
        await self._any.wait()
        await pause(self._clock, self._after_s)
        if not await self.settle():
            await pause(self._clock, self._access.visibility_s / 3)

    async def settle(self) -> bool:
        """Settle what is here; false if the queue is away. What it did not confirm stays."""
        while leases := self._leases[:_MAX_AT_ONCE]:
            try:
                await self._access.settle(leases)
            except HearthError as exc:
                _log.warning("messages of ended calls not settled yet", calls=len(self._leases), error=str(exc))
                return False
            del self._leases[: len(leases)]
        self._any.clear()
        return True
