"""How many accepted calls a node takes from the queue ahead of their containers (nodes specification 4)."""

from __future__ import annotations

from typing import Final

from hearth.clock import Clock

#: So many seconds' worth of calls may wait here, as fast as they were started since the last look into the queue; and
#: no more than so many calls.
_AHEAD_S: Final = 0.25
_MAX_AHEAD: Final = 256


class Pace:
    """Bounds the calls that wait on a node for a container.

    While all containers are busy nothing is taken, so that what was taken before has to keep them busy until some are
    idle and the next calls are here: short calls have to be many. Long ones are left to other nodes.

    Args:
        least: Calls that may wait in any case.
    """

    def __init__(self, clock: Clock, least: int) -> None:
        self.limit = least
        self._clock = clock
        self._least = least
        self._since = clock.monotonic()
        self._started = 0

    def started(self) -> None:
        """A call was started."""
        self._started += 1

    def taken(self) -> None:
        """Calls were taken: begin to count anew."""
        now = self._clock.monotonic()
        if (seconds := now - self._since) > 0:
            self.limit = max(self._least, min(_MAX_AHEAD, int(self._started / seconds * _AHEAD_S)))
            self._started, self._since = 0, now
