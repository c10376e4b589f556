"""Keeps a container from its next call while its stderr may still bring something of the last one.

Where a driver delivers stderr and the answer on two ways (``stderr_lags``), a line that was written before the answer
may come after it, and nothing in it tells whose it is. So a container that writes to stderr is offered again only once
its stderr has been quiet for a moment. The moment is some times what lines were late by lately, and at least what our
own timers were: a busy machine makes it longer. The answer does not wait for it, and a function that writes nothing
does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hearth.clock import Clock

#: Bounds of the moment, and how many times the longest delay it is, seconds.
_MIN_QUIET_S: Final = 0.005
_MAX_QUIET_S: Final = 0.05
_MARGIN: Final = 4
#: A container that writes without a pause is not waited for.
_LIMIT_S: Final = 0.2
#: How much of the longest delay is remembered at the next call that waits.
_FADE: Final = 0.998
#: Calls after its last line in which a container is still taken for one that writes.
_WARY_CALLS: Final = 100
#: Seconds to the next look where something waits in the kernel.
_AGAIN_S: Final = 0.001


class Lag:
    """How late things come on this node lately."""

    def __init__(self) -> None:
        self._longest_s = 0.0

    def __repr__(self) -> str:
        return f"<Lag quiet={self.quiet_s:g}s>"

    @property
    def quiet_s(self) -> float:
        """How long stderr has to be quiet."""
        return min(max(_MIN_QUIET_S, _MARGIN * self._longest_s), _MAX_QUIET_S)

    def note(self, late_s: float) -> None:
        """A line came so late, or may; 0 for none."""
        self._longest_s = max(late_s, self._longest_s * _FADE)


class Settling:
    """The moments after the calls of one container."""

    def __init__(self, clock: Clock, lag: Lag) -> None:
        self._clock = clock
        self._lag = lag
        self._wary = 1  # of the first call nobody knows whether it writes
        self._answered_at = 0.0
        self._heard_at = 0.0
        self._unseen: Callable[[], bool] = lambda: False
        self._settled: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Settling wary={self._wary}{' waits' if self._timer else ''}>"

    def heard(self) -> None:
        """The container wrote to stderr."""
        self._wary = _WARY_CALLS
        self._heard_at = self._clock.monotonic()

    def begin(self, unseen: Callable[[], bool], settled: Callable[[], None]) -> None:
        """An answer has ended.

        Args:
            unseen: Whether stderr waits in the kernel.
            settled: Called once nothing more is expected; at once if the container does not write.
        """
        if not self._wary:
            settled()
            return
        self._wary -= 1
        self._answered_at = self._clock.monotonic()
        self._unseen, self._settled = unseen, settled
        self._look(self._answered_at)

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, looked_for_at: float) -> None:
        now, limit = self._clock.monotonic(), self._answered_at + _LIMIT_S
        self._lag.note(max(0.0, (now - looked_for_at) / _MARGIN, self._heard_at - self._answered_at))
        due = min(max(self._answered_at, self._heard_at) + self._lag.quiet_s, limit)
        if due <= now < limit and self._unseen():
            due = now + _AGAIN_S
        if now < due:
            self._timer = self._clock.call_at(due, self._look, due)
        else:
            self._timer = None
            self._settled()
