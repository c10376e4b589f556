"""The number of accepted calls that a node takes ahead of their containers (nodes specification 4)."""

from __future__ import annotations

from typing import Final

from hearth.aio.clock import Clock

#: Seconds of work that may wait here, at the rate of starts since the last look into the queue; and the limit in calls.
_AHEAD_S: Final = 0.25
_MAX_AHEAD: Final = 256


class Prefetch:
    """Limits the calls that wait on a node for a container.

    While all containers are busy, no call is taken. Calls that were taken before must keep the containers busy until
    the next ones arrive: many if they are short, few if they are long, which other nodes may then take.

    Args:
        least: The lowest limit.
    """

    def __init__(self, clock: Clock, least: int) -> None:
        self.limit = least
        self._clock = clock
        self._least = least
        self._since = clock.monotonic()
        self._started = 0

    def started(self) -> None:
        """Count a start."""
        self._started += 1

    def taken(self) -> None:
        """Set the limit from the starts since calls were taken last."""
        now = self._clock.monotonic()
        if (seconds := now - self._since) > 0:
            self.limit = max(self._least, min(_MAX_AHEAD, int(self._started / seconds * _AHEAD_S)))
            self._started, self._since = 0, now
