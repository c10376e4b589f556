"""Makes the calls of schedules. Any number of nodes may do so over one database; each firing is one call.

A node claims a firing in one transaction: it stores the row of the firing, with the id of its call, and moves the
schedule to its next firing time. Then it enqueues the call, and settles the row::

    CLAIMED -> ACCEPTED   the call is in the queue
            -> SKIPPED    the last call had not ended
            -> FAILED     there can be no such call

A node that dies in between leaves a claimed row. Another one takes it over after a minute and enqueues the call under
the same id: of two messages with one id only one starts.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock
from hearth.models.call import FINAL, Call
from hearth.models.errors import CallNotFound, HearthError, StoreUnavailable
from hearth.models.schedule import SKIP, Firing, FiringState, Schedule
from hearth.schedules.plan import next_from, plan
from hearth.stores.schedules.base import Claim, ScheduleStore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

#: Seconds between two looks at the earliest firing time: another node may have stored an earlier one.
LOOK_S: Final = 5.0
#: Seconds after which a claimed firing that nobody has settled is taken over, and between two looks for such.
TAKE_OVER_S: Final = 60.0
#: Schedules that are dealt with at once.
AT_ONCE: Final = 64
#: Seconds by which clocks of nodes may differ before a schedule counts as planned by a clock that was set back.
_SKEW: Final = dt.timedelta(seconds=5)
_MAX_ERROR: Final = 1000

_log = get_logger(__name__)

#: Makes the call of a schedule for a firing time: with this id, at this time.
MakeCall = Callable[[Schedule, str, dt.datetime, dt.datetime], Awaitable[Call]]


class Records(Protocol):
    """The records of calls."""

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """Return a record. Raises ``CallNotFound``."""


class Enqueue(Protocol):
    """The queue of async calls."""

    async def enqueue(self, call: Call) -> None:
        """Accept a call."""


class Scheduler(BackgroundService):
    """Fires schedules. An async context manager: it does so while it is entered.

    Args:
        store: The schedules.
        records: Tell whether the last call of a schedule has ended.
        accepted: Takes the calls.
        make_call: Makes the call of a schedule as its function is now.
        next_id: Makes the ids of calls.
    """

    def __init__(
        self,
        store: ScheduleStore,
        records: Records,
        accepted: Enqueue,
        make_call: MakeCall,
        clock: Clock,
        next_id: Callable[[], str],
        telemetry: Telemetry,
    ) -> None:
        super().__init__()
        self._store = store
        self._records = records
        self._accepted = accepted
        self._make_call = make_call
        self._clock = clock
        self._next_id = next_id
        self._span = telemetry.tracing.span
        metrics = telemetry.metrics
        self._made = metrics.counter("hearth_schedule_calls")
        self._skipped = metrics.counter("hearth_schedule_skipped")
        self._missed = metrics.counter("hearth_schedule_missed")
        self._failed = metrics.counter("hearth_schedule_failed")
        self._lateness = metrics.histogram("hearth_schedule_lateness_seconds")
        self._woken = asyncio.Event()
        self._stopping = False
        self._look_for_stale_at = float("-inf")
        self._ahead_s = float("inf")  # by which the wall clock is ahead of the other one: infinite until it is known

    def __repr__(self) -> str:
        return f"<Scheduler stopping={self._stopping}>"

    def stop(self) -> None:
        """Begin no further firing. Idempotent."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Look at the earliest firing time now: a schedule was changed here."""
        self._woken.set()

    async def run_now(self, schedule: Schedule) -> str:
        """Call the function of a schedule now; return the id of the call.

        Raises:
            ApiError: There can be no such call.
        """
        now = self._clock.now()
        call = await self._make_call(schedule, self._next_id(), now, now)
        await self._accepted.enqueue(call)
        return call.id

    async def look(self) -> float:
        """Deal with all that is due; return the seconds until there is something to do.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        now = self._clock.now()
        if self._was_set_back(now):
            await self._plan_again(now)
        before: list[Schedule] = []
        while (earliest := await self._store.next_due()) is not None:
            now = self._clock.now()
            if earliest > now or self._stopping:
                break
            due = await self._store.due_schedules(now, AT_ONCE)
            if due and due == before:  # their rows cannot be read: they must not keep others from firing
                raise StoreUnavailable(f"schedules do not move on: {', '.join(schedule.name for schedule in due)}")
            await self._fire(due, now)
            before = due
        if self._clock.monotonic() >= self._look_for_stale_at:
            await self._take_over(now)
            self._look_for_stale_at = self._clock.monotonic() + TAKE_OVER_S
        return LOOK_S if earliest is None else min(LOOK_S, max(0.0, (earliest - now).total_seconds()))

    async def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                wait_s = await self.look()
            except HearthError as exc:
                _log.warning("schedules not looked at, trying again", error=str(exc))
                wait_s = LOOK_S
            except Exception as exc:  # the boundary of this task: the next look may succeed
                _log.error("schedules not looked at, trying again", exc_info=exc)
                wait_s = LOOK_S
            timer = self._clock.call_at(self._clock.monotonic() + wait_s, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()

    def _was_set_back(self, now: dt.datetime) -> bool:
        """Return whether the wall clock was set back since the last look, or may have been before the first one."""
        ahead_s = now.timestamp() - self._clock.monotonic()
        before, self._ahead_s = self._ahead_s, ahead_s
        return ahead_s < before - _SKEW.total_seconds()

    async def _plan_again(self, now: dt.datetime) -> None:
        before: list[Schedule] = []
        while (ahead := await self._store.schedules_ahead(now + _SKEW, AT_ONCE)) and ahead != before:
            before = ahead
            claims = [Claim(schedule, (), next_from(schedule, now), now) for schedule in ahead]
            await self._store.claim_firings(claims)

    async def _fire(self, due: list[Schedule], now: dt.datetime) -> None:
        """Claim the firings of some schedules, then make their calls."""
        claims = [await self._decide(schedule, now) for schedule in due]
        claimed = await self._store.claim_firings(claims)
        work = [
            (claim.seen, firing)
            for claim, firings in zip(claims, claimed, strict=True)
            for firing in firings
            if self._is_to_call(claim.seen, firing)
        ]
        await self._settle(work, now)

    async def _decide(self, schedule: Schedule, now: dt.datetime) -> Claim:
        decided = plan(schedule, now)
        if decided.is_missed:
            self._missed.add(1, schedule.app_name)
            _log.warning("firing times missed", **_fields(schedule), if_missed=schedule.definition.if_missed)
        may_overlap = schedule.definition.overlap != SKIP
        firings = []
        is_busy = bool(decided.fire) and not may_overlap and await self._is_busy(schedule, now)
        for due in decided.fire:
            state = FiringState.SKIPPED if is_busy else FiringState.CLAIMED
            is_busy = not may_overlap
            firings.append(
                Firing(
                    schedule_id=schedule.id,
                    due=due,
                    app_name=schedule.app_name,
                    call_id=self._next_id(),
                    state=state,
                    claimed_at=now,
                )
            )
        return Claim(schedule, tuple(firings), decided.next_at, now)

    async def _is_busy(self, schedule: Schedule, now: dt.datetime) -> bool:
        """Return whether the last call has not ended. One that is being enqueued may have no record yet."""
        if not schedule.last_call:
            return False
        try:
            call = await self._records.get_call(schedule.app_name, schedule.last_call)
        except CallNotFound:
            return now - schedule.last_due < dt.timedelta(seconds=2 * TAKE_OVER_S)
        return call.status not in FINAL

    def _is_to_call(self, schedule: Schedule, firing: Firing) -> bool:
        if firing.state is FiringState.CLAIMED:
            return True
        self._skipped.add(1, schedule.app_name)
        _log.info("firing skipped, the last call has not ended", **_fields(schedule), call_id=schedule.last_call)
        return False

    async def _settle(self, work: list[tuple[Schedule, Firing]], now: dt.datetime) -> None:
        """Enqueue the calls of claimed firings at once, and store what became of each."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call(schedule, firing, now)) for schedule, firing in work]
        await self._store.settle_firings([settled for task in tasks if (settled := task.result()) is not None])

    async def _call(self, schedule: Schedule, firing: Firing, now: dt.datetime) -> Firing | None:
        """Enqueue the call of a firing; ``None`` if that has failed and is to be tried again."""
        try:
            with self._span("schedules_fire", schedule.app_name):
                call = await self._make_call(schedule, firing.call_id, firing.due, now)
                await self._accepted.enqueue(call)
        except HearthError as exc:
            if isinstance(exc, StoreUnavailable):
                _log.warning("scheduled call not enqueued, trying again", error=str(exc), **_fields(schedule))
                return None
            self._failed.add(1, schedule.app_name)
            _log.error("scheduled call not made", error=str(exc), **_fields(schedule))
            return msgspec.structs.replace(firing, state=FiringState.FAILED, error=str(exc)[:_MAX_ERROR])
        self._made.add(1, schedule.app_name)
        self._lateness.observe(max(0.0, (now - firing.due).total_seconds()), schedule.app_name)
        return msgspec.structs.replace(firing, state=FiringState.ACCEPTED)

    async def _take_over(self, now: dt.datetime) -> None:
        """Finish the firings that other nodes, or an earlier life of this one, have claimed and not settled."""
        before = now - dt.timedelta(seconds=TAKE_OVER_S)
        while not self._stopping and (stale := await self._store.stale_firings(before, AT_ONCE)):
            work = []
            for firing in stale:
                if (schedule := await self._store.take_over(firing, now)) is None:
                    continue
                if await self._is_recorded(firing):
                    await self._store.settle_firings([msgspec.structs.replace(firing, state=FiringState.ACCEPTED)])
                else:
                    work.append((schedule, firing))
            await self._settle(work, now)

    async def _is_recorded(self, firing: Firing) -> bool:
        """Return whether the call of a firing has a record: its message is stored before that."""
        try:
            await self._records.get_call(firing.app_name, firing.call_id)
        except CallNotFound:
            return False
        return True


def _fields(schedule: Schedule) -> dict[str, str]:
    return {"app_name": schedule.app_name, "schedule": schedule.name}
