"""Start as many containers as are useful: one per waiting call, fewer where processors have no time left (ADR 9)."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from hearth.agent.scaling.base import Decision, Snapshot, decision
from hearth.agent.scaling.useful_concurrency import UsefulConcurrency

#: Containers of one function that may wait for memory or a start permit, per start permit. A burst may be over before
#: they start, and memory is granted in order of arrival: more of them delay other functions, fewer delay a burst.
#: 200 calls of 20 ms at once, with 2 permits and starts of 100 ms, get 14 containers and are over after 0.7 s with any
#: limit; 7 starts are withdrawn with 4, 31 with 16, 186 without a limit.
_RESERVING_PER_START: Final = 4
#: Seconds for which a burst on idle processors stays within the concurrency that was useful in the last load. Shorter:
#: a burst of short calls starts a container for each. Longer: a function that now waits gets its containers later.
#: 60 calls of 5 ms at once on two processors, after a load that computed: no start and 0.17 s, without this 46 starts
#: and 1.31 s. 60 calls that wait for 1 s: all answered after 2.36 s, without this after 1.35 s.
_CALM_S: Final = 0.15


@dataclasses.dataclass(frozen=True, slots=True)
class AdaptivePolicy:
    """Limits starts by what gets ready at once, and by the concurrency that proved useful.

    Attributes:
        start_delay_s: How long calls wait for a busy container before another one starts.
    """

    start_delay_s: float = 0.0

    def decide(self, now: Snapshot) -> Decision:
        """Return what to do now."""
        room, learned = _room(now)
        return decision(
            now,
            useful=now.wanted if room is None else min(now.wanted, room),
            reserving_limit=_RESERVING_PER_START * now.max_starts,
            start_delay_s=self.start_delay_s,
            learned=learned,
        )


def _room(now: Snapshot) -> tuple[int | None, UsefulConcurrency]:
    """Return how many containers may be on their way (None: any number), and what was learned.

    At most as many get ready at once as are ready, so their number can double each time.
    """
    learned = now.learned
    if not now.cpu_busy and (learned.limit is None or now.now - now.waiting_since > _CALM_S):
        return None, learned
    making = now.starting + now.getting_ready
    ready = now.serving - now.getting_ready
    if now.cpu_busy:
        learned = learned.after(now.waited_s, now.turnover, serving=ready, starting=making)
    room = max(now.max_starts, ready)
    if learned.limit is not None:
        room = min(room, max(learned.limit - ready, 0 if ready or making else 1))
    room = max(0, room - now.getting_ready)
    return room + math.ceil(now.urgency * max(0, now.waiting - room)), learned
