"""Runs accepted async calls (agent specification 12; nodes specification 4).

A message stays in the queue, leased to this node, until the final record of its call is stored. The lease is renewed
while the call waits or runs here. If this node dies, the lease expires and whoever gets the message next finds from the
call's record how far it came: one that was not started is run, one that was running ends as ``error``, for it may have
run in part; one that had ended is forgotten.

Two things keep a call from being executed twice: nobody starts it after the time for which the lease is surely its own,
and the start is a compare and swap of the call's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from hearth.access.base import AlreadyStarted, DataAccess
from hearth.agent.agent import Agent
from hearth.agent.call import ActiveCall, NotStarted
from hearth.agent.pace import Pace
from hearth.agent.settler import SETTLE_AFTER_S, Settler
from hearth.clock import Clock, pause
from hearth.models.call import ERROR, RUNNING, Call
from hearth.models.errors import HearthError, InternalError, ServerBusy
from hearth.models.message import InvalidMessage
from hearth.queues.base import Reserved
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: Calls that may be waiting for a container at once.
_MAX_WAITING: Final = 32
#: A call that was handed out so often and never started ends: it may be what kills the nodes that take it.
_MAX_DELIVERIES: Final = 1000
_TRY_AGAIN_S: Final = 1.0
_MAX_DELAY_S: Final = 60.0

_log = get_logger(__name__)
_length = metrics.gauge("hearth_queue_length")
_oldest_age = metrics.gauge("hearth_queue_oldest_age_seconds")


class Interrupted(InternalError):
    """The node that ran the call died."""

    def __init__(self) -> None:
        super().__init__("the server stopped while the call was running; it may have run in part")


class NeverStarted(InternalError):
    """Node after node took the call, and none came to start it."""

    def __init__(self, deliveries: int) -> None:
        super().__init__(f"the call was taken from the queue {deliveries} times and never started")


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    """A call that is here.

    Attributes:
        until: Loop time until which the lease is surely ours.
        waiting: It has not been started.
        in_line: It waits for a container.
        not_before: Loop time before which nobody is to have it again.
    """

    lease: str
    until: float
    waiting: bool = True
    in_line: bool = False
    not_before: float = 0.0


class Consumer:
    """Takes calls from the queue while there is room for async work. An async context manager, within the agent's.

    Leaving it waits for the calls that run; what has not been started is given back.

    Args:
        settle_after_s: Seconds for which the message of an ended call waits for others.
        quiet_s: Seconds after the start for which no call is said to have been interrupted: whoever ran it while this
            node was away may be about to tell how it ended.
    """

    def __init__(
        self,
        agent: Agent,
        access: DataAccess,
        clock: Clock,
        *,
        max_waiting: int = _MAX_WAITING,
        settle_after_s: float = SETTLE_AFTER_S,
        quiet_s: float = 0.0,
    ) -> None:
        self._agent = agent
        self._access = access
        self._clock = clock
        self._quiet_until = clock.monotonic() + quiet_s
        self._max_waiting = max_waiting
        self._settler = Settler(access, clock, settle_after_s)
        self._pace = Pace(clock, max_waiting)
        self._waiting = 0
        self._in_line = 0
        self._runs: dict[str, _Run] = {}
        self._ahead: deque[tuple[Reserved, _Run]] = deque()
        self._changed = asyncio.Event()
        self._stopping = False
        self._failure = ""
        self._loops: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Consumer calls={len(self._runs)} waiting={self._waiting}>"

    async def __aenter__(self) -> Consumer:
        await self._group.__aenter__()
        self._agent.on_room = self._changed.set
        self._loops = [
            self._group.create_task(self._for_ever(step, failure))
            for step, failure in (
                (self._consume, "error fetching queued calls"),
                (self._renew, "error renewing the leases of queued calls"),
                (self._settler.step, "error settling ended calls"),
            )
        ]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        await self._group.__aexit__(None, None, None)
        await self._settler.settle()

    def stop(self) -> None:
        """Take no further call. Idempotent; the agent is to be drained next, so that waiting calls give up."""
        self._stopping = True
        self._fill()
        self._loops[0].cancel()
        self._end_loops()

    async def check(self) -> None:
        """Whether accepted calls are being taken; brings the gauges of the queue up to date.

        Raises:
            InternalError: They are not; the text says why.
        """
        if self._failure or any(loop.done() for loop in self._loops):
            raise InternalError(self._failure or "async calls are no longer taken")
        await self._measure()

    async def _measure(self) -> None:
        """Look at the queue. An age below 0 is a clock that was set, or another node's."""
        if (backlog := await self._access.backlog()) is None:
            return
        age = (self._clock.now() - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        _length.set(backlog.length)
        _oldest_age.set(max(0.0, age))

    # -- taking ---------------------------------------------------------------------------------------------------

    async def _for_ever(self, step: Callable[[], Awaitable[None]], failure: str) -> None:
        """The boundary of a loop: whatever goes wrong is told, costs a pause, and does not end it."""
        while True:
            try:
                await step()
            except Exception as exc:
                told = f"{failure}: {exc}"
                if told != self._failure:  # once, not each second of an outage
                    _log.error(failure, error=str(exc), exc_info=None if isinstance(exc, HearthError) else exc)
                self._failure = told
                await pause(self._clock, _TRY_AGAIN_S)

    async def _consume(self) -> None:
        if not self._has_room():
            with span("agent_wait_async_resource"):
                while not self._has_room():
                    self._changed.clear()
                    await self._changed.wait()
        with span("agent_async_dequeue"):
            taken = await self._access.dequeue(self._pace.limit - self._waiting)
        if self._failure:
            self._failure = ""
            _log.info("queued calls are fetched again")
        self._pace.taken()
        for reserved in taken:
            self._take(reserved)
        self._fill()

    def _has_room(self) -> bool:
        # When half have gone, many are taken at once: each look into the queue is a transaction.
        return self._has_few() and self._agent.has_async_room()

    def _has_few(self) -> bool:
        return self._waiting <= self._pace.limit // 2

    def _take(self, reserved: Reserved) -> None:
        if (run := self._runs.get(reserved.call.id)) is not None:
            run.lease, run.until = reserved.lease, reserved.until  # its renewal came too late, and it came back to us
            return
        run = self._runs[reserved.call.id] = _Run(reserved.lease, reserved.until)
        self._waiting += 1
        self._ahead.append((reserved, run))

    def _fill(self) -> None:
        """Have as many calls wait for a container as may; none is kept back from going back."""
        while self._ahead and (self._stopping or self._in_line < self._max_waiting):
            reserved, run = self._ahead.popleft()
            run.in_line = True
            self._in_line += 1
            self._group.create_task(self._run(reserved, run))

    def _leave_line(self, run: _Run) -> None:
        """It has a container, or needs none any more: the next ones may wait for theirs."""
        if run.in_line:
            run.in_line = False
            self._in_line -= 1
            if self._in_line <= self._max_waiting // 2:  # many at once: for each time the launcher looks at all
                self._fill()

    async def _renew(self) -> None:
        await pause(self._clock, self._access.visibility_s / 3)
        await self._renew_leases()
        with contextlib.suppress(HearthError):  # the gauges say what was known last
            await self._measure()

    async def _renew_leases(self) -> None:
        runs = {run.lease: (call_id, run) for call_id, run in self._runs.items()}
        if not runs:
            return
        until = self._clock.monotonic() + self._access.visibility_s
        for (lease, (call_id, run)), held in zip(runs.items(), await self._access.renew(list(runs)), strict=True):
            if run.lease != lease:
                continue  # it came back to us meanwhile
            if held:
                run.until = until
            elif self._runs.get(call_id) is run:
                run.until = 0.0
                _log.warning("lease of a queued call lost", call_id=call_id, waiting=run.waiting)

    # -- one call -------------------------------------------------------------------------------------------------

    async def _run(self, reserved: Reserved, run: _Run) -> None:
        """The boundary of a call: if this fails, the lease expires, and the record tells what is to be done."""
        call = reserved.call
        try:
            with span("agent_async_run", call.app_name, call.path):
                ended = await self._ended(reserved, run)
            if ended:
                self._settler.add(run.lease)
            else:
                await self._access.release(run.lease, self._delay_s(reserved, run))
        except Exception as exc:
            told = None if isinstance(exc, HearthError) else exc
            _log.error("error running async call", call_id=call.id, error=str(exc), exc_info=told)
        finally:
            del self._runs[call.id]
            self._left(run)
            self._end_loops()

    def _end_loops(self) -> None:
        """When the last call has ended that was here when the node stopped, no lease is to be renewed."""
        if self._stopping and not self._runs:
            for loop in self._loops:
                loop.cancel()

    def _left(self, run: _Run) -> None:
        """It waits no more."""
        self._leave_line(run)
        if run.waiting:
            run.waiting = False
            self._waiting -= 1
            if self._has_few():
                self._changed.set()

    async def _ended(self, reserved: Reserved, run: _Run) -> bool:
        """Run it; whether it is over and recorded, here or by somebody else."""
        call = reserved.call
        if self._stopping:
            return False
        try:
            try:
                active = self._active(reserved)
            except Exception as exc:  # what was stored may be anything; no node of this size or release can run it
                _log.error("error getting async call", call_id=call.id, error=str(exc))
                return await self._failed(call, run, exc)
            active.take_over = lambda: self._take_over(call, run)
            return await self._submitted(active, run)
        except NotStarted as exc:
            found = exc.__cause__
            return isinstance(found, AlreadyStarted) and await self._settle_accounts(call, run, found)

    def _active(self, reserved: Reserved) -> ActiveCall:
        if reserved.fault:
            raise InvalidMessage(reserved.fault)
        if reserved.deliveries > _MAX_DELIVERIES:
            raise NeverStarted(reserved.deliveries)
        function = self._agent.accepted_function(reserved.call)
        self._agent.check_capacity(function)
        return self._agent.accepted_call(function, reserved.call)

    async def _submitted(self, active: ActiveCall, run: _Run) -> bool:
        call = active.record
        try:
            await self._agent.submit(active)
        except NotStarted:
            raise
        except ServerBusy as exc:
            if run.waiting:
                return active.stored
            if not active.stored:  # it held a container, which was gone before it had the call
                return await self._agent.record_failure(call, exc)
        except Exception as exc:
            _log.info("error running async call", call_id=call.id, error=str(exc))
        return active.stored or await self._stored_at_last(active)

    async def _stored_at_last(self, active: ActiveCall) -> bool:
        """The store was away when the call ended: the message is held until the end is recorded."""
        if active.ended is None:
            raise InternalError("the call's end is not known")
        while not self._stopping:
            await pause(self._clock, _TRY_AGAIN_S)
            try:
                await self._access.finish_many([active.ended])
            except HearthError as exc:
                _log.error("end of an async call not recorded yet", call_id=active.record.id, error=str(exc))
            else:
                return True
        raise InternalError("its end was not recorded")

    async def _take_over(self, call: Call, run: _Run) -> None:
        self._leave_line(run)  # at once: those behind it are to stand in line, when the next container is free
        if self._clock.monotonic() >= run.until:
            raise NotStarted("its lease ended while it waited")
        running = msgspec.structs.replace(call, started_at=self._clock.now(), status=RUNNING)
        try:
            await self._access.start(running)
        except HearthError as exc:
            raise NotStarted(str(exc)) from exc
        self._left(run)
        self._pace.started()

    async def _failed(self, call: Call, run: _Run, why: Exception) -> bool:
        """Record that it can never run, unless it has run: the message may have come back after its end."""
        await self._take_over(call, run)
        return await self._agent.record_failure(call, why)

    async def _settle_accounts(self, call: Call, run: _Run, found: AlreadyStarted) -> bool:
        """Somebody started this call, and the message came back: if the lease is ours, nobody runs it any more."""
        if found.status == RUNNING:
            if self._clock.monotonic() < self._quiet_until:
                run.not_before = self._quiet_until
                return False
            if await self._access.renew([run.lease]) != [True]:
                return False
            call.status, call.error = ERROR, str(Interrupted())
            call.completed_at = self._clock.now()
            await self._access.interrupted(call)
        _log.warning("accepted call had been started before", call_id=call.id, status=found.status)
        return True

    def _delay_s(self, reserved: Reserved, run: _Run) -> float:
        """A call that found no room waits longer each time; one that shutdown gives back does not."""
        if self._stopping:
            return 0.0
        if run.not_before:
            return max(0.0, run.not_before - self._clock.monotonic())
        return min(_MAX_DELAY_S, 2.0 ** min(reserved.deliveries - 1, 10))
