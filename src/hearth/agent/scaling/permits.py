"""Start permits: how many containers of a node start at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from hearth.aio.clock import Clock

#: Seconds after which a start returns its permit. A start that takes longer waits for something (a registry, a health
#: check), not for the processors. Shorter: more slow starts at once on a busy machine. Longer: a function that hangs
#: while it starts delays others (test_starts_of_another_function_that_hang_fail_no_call).
_PATIENCE_S: Final = 1.0


class StartPermits:
    """Let a few starts through at a time, in order of arrival, so that a burst of calls is no storm of starts.

    While a start waits for its permit, its function may find that it needs one container less.

    Attributes:
        count: Starts that may be under way at once, not counting those that have returned their permit.

    Args:
        changed: Called when a start is over that was announced.
    """

    def __init__(
        self,
        count: int,
        clock: Clock,
        *,
        patience_s: float = _PATIENCE_S,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.count = count
        self._announced: set[object] = set()
        self._changed = changed
        self._free = asyncio.Semaphore(count)
        self._clock = clock
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"<StartPermits {self._free!r}>"

    @property
    def spare(self) -> int:
        """Return how many starts may begin that nobody waits for: they leave half of the permits to calls."""
        return max(0, max(1, self.count // 2) - len(self._announced))

    def announce(self, start: object) -> None:
        """Note that somebody is about to ask for a permit. :meth:`over` follows."""
        self._announced.add(start)

    def over(self, start: object) -> None:
        """Note that a start has ended, or has returned its permit. Idempotent."""
        if start in self._announced:
            self._announced.discard(start)
            self._changed()

    @contextlib.asynccontextmanager
    async def hold(self, hurry_at: float, start: object = None) -> AsyncIterator[None]:
        """Wait for a permit and hold it during the start, but not for long.

        Args:
            start: What was announced.
            hurry_at: Loop time from which on the start goes on without a permit: it may be late, but not too late.
        """
        try:
            async with asyncio.timeout_at(hurry_at):
                await self._free.acquire()
            permit = _Permit(self._free)
        except TimeoutError:
            permit = _Permit(None)

        def give_back() -> None:
            permit.release()
            self.over(start)

        timer = self._clock.call_at(self._clock.monotonic() + self._patience_s, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()


class _Permit:
    """One permit, released once; or none."""

    __slots__ = ("_free",)

    def __init__(self, free: asyncio.Semaphore | None) -> None:
        self._free = free

    def release(self) -> None:
        if self._free is not None:
            self._free.release()
            self._free = None
