"""The time for which calls of a function have waited: time without waiting calls does not count."""

from __future__ import annotations

import math


class WaitingTime:
    """Seconds during which at least one call waited, in the life of a function.

    Attributes:
        total_s: All of them, up to the last :meth:`note`.
        since: Since when calls have waited without a break, loop time; infinity if none waits.
    """

    def __init__(self) -> None:
        self.total_s = 0.0
        self.since = math.inf
        self._counted_to = math.inf

    def note(self, now: float, *, waiting: bool) -> None:
        """Note whether calls wait from now on."""
        if self._counted_to < math.inf:
            self.total_s += now - self._counted_to
        elif waiting:
            self.since = now
        if not waiting:
            self.since = math.inf
        self._counted_to = now if waiting else math.inf
