"""Start one container for each waiting call, as fast as memory and start permits allow."""

from __future__ import annotations

import dataclasses

from hearth.agent.scaling.base import Decision, Snapshot, decision


@dataclasses.dataclass(frozen=True, slots=True)
class SimplePolicy:
    """Starts n containers for n waiting calls, whatever the processors do.

    Until the oldest call is urgent, no more containers wait for a start permit than there are permits, nor for memory
    than fit. One always waits: that makes idle containers of other functions give way.

    Attributes:
        start_delay_s: How long calls wait for a busy container before another one starts.
    """

    start_delay_s: float = 0.0

    def decide(self, now: Snapshot) -> Decision:
        """Return what to do now."""
        return decision(
            now,
            useful=now.wanted,
            reserving_limit=max(1, min(now.max_starts, now.fits + now.reserving)),
            start_delay_s=self.start_delay_s,
            learned=now.learned,
        )
