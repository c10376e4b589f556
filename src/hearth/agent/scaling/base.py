"""The interface of scaling policies: a snapshot of one function goes in, a decision comes out.

Every policy keeps these promises (agent specification 5):

* It starts at most one container for each waiting call that no other container will serve, and for each ``concurrency``
  of them where a container serves several.
* It starts as many containers as the function keeps ready (``least``) where there is room for them that no call needs,
  and never more than the function may have (``most``).
* It may delay a call, but it never starves one. If no container serves or starts, a waiting call gets a start at once.
  Bounds on starts loosen with the age of the oldest waiting call (:mod:`hearth.agent.scaling.patience`), and end long
  before the call fails.
* After failed starts, it waits until ``not_before``.
* It has no state and no I/O. What it learns from a function travels through ``learned``.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import msgspec

from hearth.agent.scaling.patience import look_again_s, urgency
from hearth.agent.scaling.useful_concurrency import UsefulConcurrency

#: While a call waits the launcher looks again at least this often, seconds (agent specification 5). A shorter time
#: reacts faster to what no event reports (processors that become free), and costs a look per function.
LOOK_S: Final = 0.2


#: The same while no call waits and a container is missing that is to be ready: others may be idle in the meantime.
REFILL_LOOK_S: Final = 1.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one function's calls and containers.

    Attributes:
        now: Loop time, like all times here.
        timeout_s: Timeout of the function; a call waits for half of it at most.
        max_starts: Containers of the node that may start at once.
        concurrency: Calls that one container serves at once.
        waiting: Calls that wait for a slot.
        oldest_since: When the call that is served next began to wait; infinity if none waits.
        waiting_since: Since when calls have waited without a break; infinity if none waits.
        waited_s: Seconds during which calls have waited, in the life of the function.
        turnover: Waiting calls that containers took after they had ended another one, in the life of the function.
        idle: Containers with a free slot.
        busy: Other containers that have started: with a call, or about to be removed.
        announced: Busy containers that offer their slot within moments.
        getting_ready: Idle or busy containers that started a moment ago and have not answered yet.
        starting: Containers that the driver is starting.
        reserving: Containers that wait for memory or for a start permit.
        fits: Further containers for which memory and CPU are free.
        cpu_busy: True while the processors have no time left.
        not_before: No start before this time, because starts failed.
        least: Containers that are to be ready, whether calls wait or not.
        most: Containers that there may be; ``None`` for any number.
        leaving: Containers of those that have started that take no further call. Counted only where ``least`` is set.
        spare: Containers that may start now although no call waits for them.
        refill_at: None of those before this time, because containers have ended before their first call.
        learned: What the last decision returned.
    """

    now: float
    timeout_s: float
    max_starts: int
    concurrency: int = 1
    waiting: int = 0
    oldest_since: float = math.inf
    waiting_since: float = math.inf
    waited_s: float = 0.0
    turnover: int = 0
    idle: int = 0
    busy: int = 0
    announced: int = 0
    getting_ready: int = 0
    starting: int = 0
    reserving: int = 0
    fits: int = 0
    cpu_busy: bool = False
    not_before: float = 0.0
    least: int = 0
    most: int | None = None
    leaving: int = 0
    spare: int = 0
    refill_at: float = 0.0
    learned: UsefulConcurrency = UsefulConcurrency()

    @property
    def unserved(self) -> int:
        """Return the number of waiting calls that no idle or announced container will take."""
        return max(0, self.waiting - self.idle - self.announced)

    @property
    def wanted(self) -> int:
        """Return the number of containers that would serve those calls at once."""
        return -(-self.unserved // self.concurrency)

    @property
    def starters(self) -> int:
        """Return the number of containers on their way."""
        return self.starting + self.reserving

    @property
    def serving(self) -> int:
        """Return the number of containers that have started."""
        return self.idle + self.busy

    @property
    def lacking(self) -> int:
        """Return the number of containers that are not ready and ought to be, whether they are on their way or not."""
        return max(0, self.least - (self.serving - self.leaving))

    @property
    def refill(self) -> int:
        """Return how many of those may be on their way."""
        return min(self.lacking, self.starters + (self.spare if self.now >= self.refill_at else 0))

    @property
    def urgency(self) -> float:
        """Return how far bounds on starts give way: 0 not at all, 1 completely."""
        return urgency(self.now - self.oldest_since, self.timeout_s)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The starts and withdrawals that the launcher carries out.

    Attributes:
        starts: Containers to start.
        withdrawals: Containers in ``reserving`` to give up.
        look_again_at: When to decide again if no event comes first; None if no call waits and none of the containers
            is missing that are to be ready.
        learned: For the next snapshot.
    """

    starts: int
    withdrawals: int
    look_again_at: float | None
    learned: UsefulConcurrency


class ScalingPolicy(Protocol):
    """Decides how many containers of a function start, and how many starts are withdrawn."""

    def decide(self, now: Snapshot) -> Decision:
        """Return what to do now. Pure: equal snapshots give equal decisions."""


def decision(
    now: Snapshot, *, useful: int, reserving_limit: int, start_delay_s: float, learned: UsefulConcurrency
) -> Decision:
    """Return the decision for a number of useful containers.

    Args:
        now: The state of the function.
        useful: Containers that may be on their way together.
        reserving_limit: Containers that may wait for memory or a start permit; ends when the oldest call is urgent.
        start_delay_s: How long calls wait for a busy container before another one starts.
        learned: For the next snapshot.
    """
    useful = max(useful, now.refill)
    if now.most is not None:
        useful = min(useful, max(0, now.most - now.serving))
    urgent = now.urgency >= 1
    starts = max(0, useful - now.starters)
    if not urgent:
        starts = min(starts, max(0, reserving_limit - now.reserving))
    start_at = max(now.not_before, _delayed_until(now, start_delay_s))
    return Decision(
        starts=starts if now.now >= start_at else 0,
        withdrawals=min(now.reserving, max(0, now.starters - useful)),
        look_again_at=_look_again_at(now, start_at),
        learned=learned,
    )


def _delayed_until(now: Snapshot, start_delay_s: float) -> float:
    """Return when the start delay ends. It holds only while a container serves, and never for an urgent call."""
    if not start_delay_s or not now.serving or not now.waiting or now.urgency > 0:
        return 0.0
    return now.oldest_since + start_delay_s


def _look_again_at(now: Snapshot, start_at: float) -> float | None:
    if not now.waiting:
        if now.lacking <= now.starters:
            return None
        refill_at = max(start_at, now.refill_at)
        return refill_at if now.now < refill_at else now.now + REFILL_LOOK_S
    again = now.now + look_again_s(now.timeout_s, LOOK_S)
    return start_at if now.now < start_at < again else again
