"""How many containers are in the making at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from hearth.clock import Clock

#: A start that takes longer waits for something (a registry, a health check), not for the machine's processors.
_PATIENCE_S: Final = 1.0


class StartGate:
    """Lets a few starts through at a time, in order of arrival, so that a burst of calls is no storm of starts.

    While a start waits here its function may find that it needs one container less. A start that takes long gives its
    place to the next one: a function that hangs in its start keeps nobody else from starting.

    Args:
        places: Starts that may be under way at once, those that take long not counted.
    """

    def __init__(self, places: int, clock: Clock, *, patience_s: float = _PATIENCE_S) -> None:
        self.places = places
        self._free = asyncio.Semaphore(places)
        self._clock = clock
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"<StartGate {self._free!r}>"

    @contextlib.asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it during the start, but not for long."""
        await self._free.acquire()
        place = _Place(self._free)
        timer = self._clock.call_at(self._clock.monotonic() + self._patience_s, place.give)
        try:
            yield
        finally:
            timer.cancel()
            place.give()


class _Place:
    """One place, given back once."""

    __slots__ = ("_free",)

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free: asyncio.Semaphore | None = free

    def give(self) -> None:
        if self._free is not None:
            self._free.release()
            self._free = None
