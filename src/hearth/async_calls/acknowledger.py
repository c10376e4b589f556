"""Acknowledges the messages of calls that have ended."""

from __future__ import annotations

import asyncio
from typing import Final

from hearth.access.base import AcceptedCalls
from hearth.aio.clock import Clock, pause
from hearth.models.errors import HearthError
from hearth.telemetry.logs import get_logger

#: Seconds that a message waits for others. Each acknowledgement is a transaction, so there are at most 20 per second.
ACKNOWLEDGE_AFTER_S: Final = 0.05
_MAX_AT_ONCE: Final = 500

_log = get_logger(__name__)


class Acknowledger:
    """Acknowledges many messages at a time. Nobody waits for it; only the end of a lease is a limit.

    A message that is never acknowledged would come back and occupy a container to find nothing to do.

    Args:
        after_s: Seconds that a message waits for others.
    """

    def __init__(self, accepted: AcceptedCalls, clock: Clock, after_s: float) -> None:
        self._accepted = accepted
        self._clock = clock
        self._after_s = after_s
        self._leases: list[str] = []
        self._any = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Acknowledger waiting={len(self._leases)}>"

    def add(self, lease: str) -> None:
        """Acknowledge the message with this lease soon: the end of its call is stored."""
        self._leases.append(lease)
        self._any.set()

    async def step(self) -> None:
        """Wait for messages and acknowledge them; while the queue is away, try again before their leases end."""
        await self._any.wait()
        await pause(self._clock, self._after_s)
        if not await self.flush():
            await pause(self._clock, self._accepted.visibility_s / 3)

    async def flush(self) -> bool:
        """Acknowledge all messages; false if the queue is away. Messages that it did not confirm stay."""
        while leases := self._leases[:_MAX_AT_ONCE]:
            try:
                await self._accepted.acknowledge(leases)
            except HearthError as exc:
                _log.warning("messages of ended calls not acknowledged yet", calls=len(self._leases), error=str(exc))
                return False
            del self._leases[: len(leases)]
        self._any.clear()
        return True
