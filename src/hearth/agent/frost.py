"""Freezes a container that has no call, and thaws it before its next one (``FN_FREEZE_IDLE_MSECS``).

::

    WARM (runs) -> FREEZING -> FROZEN (its processes do not run) -> WARM

Its slot stays offered all the while: a call that takes it waits until the container is thawed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

from hearth.aio.clock import Clock
from hearth.drivers.base import Container, DriverError
from hearth.telemetry.logs import get_logger
from hearth.telemetry.series import Series

#: The longest that freezing and thawing may take, seconds; Fn's limit.
_LIMIT_S: Final = 5.0

_log = get_logger(__name__)


class FrostState(enum.Enum):
    """The states of a container, as seen from here."""

    WARM = "warm"
    FREEZING = "freezing"
    FROZEN = "frozen"


_NEXT: Final = {
    FrostState.WARM: FrostState.FREEZING,
    FrostState.FREEZING: FrostState.FROZEN,
    FrostState.FROZEN: FrostState.WARM,
}


class Frost:
    """The frost of one container.

    Args:
        container: Started.
        idle_s: Seconds without a call after which it is frozen.
        idle_since: Returns since when it has had no call; ``None`` if it has one, or is leaving.
        frozen: The number of frozen containers of its function.
        fields: What identifies it in a log line.
    """

    def __init__(
        self,
        container: Container,
        clock: Clock,
        *,
        idle_s: float,
        idle_since: Callable[[], float | None],
        frozen: Series,
        fields: Mapping[str, Any],
    ) -> None:
        self._container = container
        self._clock = clock
        self._idle_s = idle_s
        self._idle_since = idle_since
        self._frozen = frozen
        self._fields = fields
        self._state = FrostState.WARM
        self._changing = asyncio.Lock()
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._counted = 0

    def __repr__(self) -> str:
        return f"<Frost {self._state.value}>"

    @property
    def is_warm(self) -> bool:
        """True if the container runs, and is not about to be frozen."""
        return self._state is FrostState.WARM

    def note_idle(self, since: float) -> None:
        """Note that the container has no call any more: one timer per container, not per call."""
        if self._timer is None:
            self._timer = self._clock.call_at(since + self._idle_s, self._look)

    async def run(self) -> None:
        """Freeze the container whenever it was idle for long enough; until it is cancelled, or cannot be frozen."""
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                if self._is_idle() and not await self._freeze():
                    return
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._count(0)

    async def thaw(self) -> None:
        """Let the container run again.

        Raises:
            DriverError: It does not, or not in time.
        """
        async with self._changing:
            if self._state is FrostState.FROZEN:
                try:
                    async with asyncio.timeout(_LIMIT_S):
                        await self._container.thaw()
                except TimeoutError as exc:
                    raise DriverError(f"not thawed within {_LIMIT_S:g} s") from exc
                self._enter(FrostState.WARM)
                self._count(0)

    async def _freeze(self) -> bool:
        async with self._changing:
            self._enter(FrostState.FREEZING)
            self._container.channel.rest()
            try:
                async with asyncio.timeout(_LIMIT_S):
                    await self._container.freeze()
            except (DriverError, TimeoutError) as exc:
                # It may be frozen all the same: the next call thaws it, or gives it up.
                _log.warning("container not frozen", error=str(exc), **self._fields)
                self._enter(FrostState.FROZEN)
                return False
            self._enter(FrostState.FROZEN)
            self._count(1)
            return True

    def _look(self) -> None:
        self._timer = None
        since = self._idle_since()
        if since is None or self._state is not FrostState.WARM:
            return  # the end of its call is noted
        if self._clock.monotonic() - since >= self._idle_s - 0.001:
            self._due.set()
        else:
            self.note_idle(since)

    def _is_idle(self) -> bool:
        return self._state is FrostState.WARM and self._idle_since() is not None

    def _count(self, number: int) -> None:
        self._frozen.value += number - self._counted
        self._counted = number

    def _enter(self, state: FrostState) -> None:
        """Change the state; the only assignment to it."""
        if _NEXT[self._state] is not state:
            raise RuntimeError(f"{self._state.value} -> {state.value}")
        self._state = state
