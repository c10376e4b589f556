"""Runs accepted async calls (agent specification 12; nodes specification 4).

A message stays in the queue, leased to this node, until the final record of its call is stored. The lease is renewed
while the call waits or runs here. If this node dies, the lease expires. The node that gets the message next finds from
the call's record how far it came: it runs a call that was not started, ends one that was running as ``error``, since it
may have run in part, and forgets one that had ended.

Two things keep a call from being executed twice: nobody starts it after the time for which the lease is surely its own,
and the start is a compare and swap of the call's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from hearth.access.base import AcceptedCalls, AlreadyStarted, CallRecords, EndedCall
from hearth.agent.agent import Agent, CallEnd
from hearth.agent.call import ActiveCall, NotStarted
from hearth.agent.outcomes import fail
from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.async_calls.acknowledger import ACKNOWLEDGE_AFTER_S, Acknowledger
from hearth.async_calls.function_limits import FunctionLimits
from hearth.async_calls.line import Line
from hearth.async_calls.prefetch import Prefetch
from hearth.async_calls.retries import Interrupted, Retry, decide, failure_of, next_attempt
from hearth.models.call import CANCELLED, ERROR, RUNNING, SUCCESS, Call
from hearth.models.destination import CALLBACK
from hearth.models.errors import (
    ApiError,
    CallCancelled,
    CallExpired,
    HearthError,
    InternalError,
    ServerBusy,
    StoreRefused,
    StoreUnavailable,
)
from hearth.models.function import FunctionSpec
from hearth.models.message import InvalidMessage
from hearth.queues.base import Reserved
from hearth.telemetry.logs import get_logger

#: Calls that may wait for a container at the same time.
_MAX_WAITING: Final = 32
#: Calls that may wait beside the others until the quotas of their apps leave room for them.
MAX_HELD_BACK: Final = 256
#: Calls of one app among them; further ones stay in the queue.
MAX_HELD_BACK_OF_APP: Final = 64
#: Seconds between two looks into the queue while so many wait: calls of other apps may be behind those of their apps.
_LOOK_BEHIND_S: Final = 1.0
#: Apps of which calls are held here; one of them may hold the limit of calls that wait, the others one or a few each.
_MAX_APPS: Final = 64
#: Calls that are taken at once of apps that have none here, and seconds between two such looks into the queue: each
#: costs a transaction.
_NEWCOMERS: Final = 8
_LOOK_FOR_NEWCOMERS_S: Final = 0.05
#: The longest delay of a call that is given back because of a quota: until it comes again, others are reached.
_MAX_QUOTA_DELAY_S: Final = 300.0
#: Deliveries after which a call that was never started ends: it may be what kills the nodes that take it.
MAX_DELIVERIES: Final = 1000
#: Deliveries to nodes that are too small after which a call ends: about 25 minutes, 1 to 60 s apart.
MAX_MISFITS: Final = 30
#: Seconds for which a node leaves the queue to others after it took a call again that is too large for it.
_STEP_BACK_S: Final = 0.05
_TRY_AGAIN_S: Final = 1.0
#: Seconds between two looks for calls that run here and were cancelled through another node.
CANCEL_LOOK_S: Final = 1.0
#: The header with the number of the attempt, for calls with a policy of retries.
_ATTEMPT: Final = "Fn-Attempt"
_MAX_DELAY_S: Final = 60.0

_log = get_logger(__name__)


#: Sends what a callback has to its destination, once; returns the status of the answer. Raises what prevents it.
SendRecord = Callable[[Call], Awaitable[int]]


class NeverStarted(InternalError):
    """Many nodes took the call and none started it."""

    def __init__(self, deliveries: int) -> None:
        super().__init__(f"the call was taken from the queue {deliveries} times and never started")


class FitsNowhere(ApiError):
    """Every node that took the call is too small for it."""

    status = 503

    def __init__(self, call: Call, deliveries: int) -> None:
        amount = f"{call.memory} MiB" + (f" and {call.cpu_milli}m CPU" if call.cpu_milli else "")
        super().__init__(
            f"the call needs {amount}: too much for each node that took it, in {deliveries} deliveries;"
            " lower the route's memory and cpus, or add a larger node"
        )


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    """A call that this node holds.

    Attributes:
        app: The name of its app.
        deliveries: How often the queue has handed the call out, including this time.
        until: Loop time until which this node surely holds the lease.
        waiting: True until the call is started.
        in_line: True while the call waits for a container.
        over_quota: It is given back because the quotas of its app leave no room.
        not_before: Loop time before which no node should take it again.
        again_after_s: Seconds until its next attempt; ``None`` unless its attempt has failed and there is one.
        is_handed_over: Its message is that of its next attempt: this node holds it no longer.
        active: The call, once it may run here.
    """

    app: str
    attempt: int
    lease: str
    deliveries: int
    until: float
    waiting: bool = True
    in_line: bool = False
    over_quota: bool = False
    not_before: float = 0.0
    again_after_s: float | None = None
    is_handed_over: bool = False
    active: ActiveCall | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """A look into the queue.

    Attributes:
        limit: How many calls to take at most.
        without: Apps whose calls stay in the queue.
        pause_s: Seconds before it.
    """

    limit: int
    without: frozenset[str] = frozenset()
    pause_s: float = 0.0


class Consumer:
    """Takes calls from the queue while the agent has room. An async context manager, inside that of the agent.

    While calls wait here for room, calls of apps that have none here are taken all the same: otherwise an app with a
    backlog would keep the others out.

    Leaving it waits for running calls and releases those that were not started.

    Args:
        function_of: Compiles what an accepted call runs. Raises an :class:`~hearth.models.errors.ApiError` if the
            call's stored fields are not valid.
        acknowledge_after_s: Seconds that the message of an ended call waits for others.
        quiet_s: Seconds after the start for which no call ends as interrupted: the runner that ran it while this node
            was away may still deliver its end.
        max_misfits: Deliveries after which a call ends that is too large for all nodes that took it.
        node: The name of this node in the list of past attempts.
        chance: Returns a random number from 0 to 1, for the pauses between attempts.
        send: Sends the record of a call to a destination; ``None`` if this node sends none.
    """

    def __init__(
        self,
        agent: Agent,
        records: CallRecords,
        accepted: AcceptedCalls,
        clock: Clock,
        function_of: Callable[[Call], Awaitable[FunctionSpec]],
        *,
        max_waiting: int = _MAX_WAITING,
        acknowledge_after_s: float = ACKNOWLEDGE_AFTER_S,
        quiet_s: float = 0.0,
        max_misfits: int = MAX_MISFITS,
        node: str = "",
        chance: Callable[[], float] = random.random,
        send: SendRecord | None = None,
    ) -> None:
        self._agent = agent
        self._send = send
        self._span = agent.telemetry.tracing.span
        self._records = records
        self._accepted = accepted
        self._clock = clock
        self._function_of = function_of
        self._quiet_until = clock.monotonic() + quiet_s
        self._max_misfits = max_misfits
        self._node = node
        self._chance = chance
        self._acknowledger = Acknowledger(accepted, clock, acknowledge_after_s)
        self._prefetch = Prefetch(clock, max_waiting)
        self._waiting = 0
        self._held_back: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._limits = FunctionLimits()
        self._runs: dict[str, _Run] = {}
        self._line: Line[tuple[Reserved, _Run]] = Line(max_waiting)
        self._changed = agent.pool.room_changed
        self._stopping = False
        self._failure = ""
        self._loops: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()
        self._looks = Background()

    def __repr__(self) -> str:
        return f"<Consumer calls={len(self._runs)} waiting={self._waiting}>"

    async def __aenter__(self) -> Consumer:
        await self._group.__aenter__()
        self._loops = [
            self._group.create_task(self._repeat(step, failure))
            for step, failure in (
                (self._consume, "error fetching queued calls"),
                (self._renew, "error renewing the leases of queued calls"),
                (self._acknowledger.step, "error acknowledging ended calls"),
                (self._find_cancelled, "error looking for cancelled calls"),
            )
        ]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        await self._group.__aexit__(None, None, None)
        await self._looks.join()
        await self._acknowledger.flush()

    def stop(self) -> None:
        """Take no further call. Idempotent; drain the agent next, so that waiting calls end their wait."""
        self._stopping = True
        self._limits.stop()
        self._fill()
        self._loops[0].cancel()
        self._end_loops()

    async def check(self) -> None:
        """Check that accepted calls are taken.

        Raises:
            InternalError: They are not taken; the text says why.
        """
        if self._failure or any(loop.done() for loop in self._loops):
            raise InternalError(self._failure or "async calls are no longer taken")

    # -- taking ---------------------------------------------------------------------------------------------------

    async def _repeat(self, step: Callable[[], Awaitable[None]], failure: str) -> None:
        """Repeat a step. An error is logged and costs a pause; it does not end the loop."""
        while True:
            try:
                await step()
            except Exception as exc:
                text = f"{failure}: {exc}"
                if text != self._failure:  # once per outage, not each second
                    _log.error(failure, error=str(exc), exc_info=None if isinstance(exc, HearthError) else exc)
                self._failure = text
                await pause(self._clock, _TRY_AGAIN_S)

    async def _consume(self) -> None:
        if (look := self._next_look()) is None:
            with self._span("agent_wait_async_resource"):
                while (look := self._next_look()) is None:
                    self._changed.clear()
                    await self._changed.wait()
        if self._held_back.total() >= MAX_HELD_BACK:
            await pause(self._clock, _LOOK_BEHIND_S)
        with self._span("agent_async_dequeue"):
            taken = await self._dequeue(look)
        if not taken:
            return  # another look is wanted now
        if self._failure:
            self._failure = ""
            _log.info("queued calls are fetched again")
        if not look.pause_s:
            self._prefetch.taken()
        for reserved in taken:
            self._take(reserved)
        self._fill()
        if all(self._limits.is_full(one.call) for one in taken):
            await pause(self._clock, _STEP_BACK_S)  # most of them go back to the queue
        again = [one.call for one in taken if _deliveries(one) > 1]
        if not all([await self._fits(call) for call in again]):
            await pause(self._clock, _STEP_BACK_S)  # the queue serves the longest wait first: now that of another node

    def _next_look(self) -> _Look | None:
        """Return for which calls there is room; ``None`` if there is none."""
        if self._has_room():
            full = frozenset(app for app, calls in self._held_back.items() if calls >= MAX_HELD_BACK_OF_APP)
            return _Look(self._prefetch.limit - self._waiting, full if self._accepted.leaves_out else frozenset())
        if self._waiting and self._accepted.leaves_out and len(self._held) < _MAX_APPS:
            return _Look(_NEWCOMERS, frozenset(self._held), _LOOK_FOR_NEWCOMERS_S)
        return None

    async def _dequeue(self, look: _Look) -> list[Reserved]:
        """Wait for calls; none if there is room for more than this look takes."""
        if not look.without:
            return await self._accepted.dequeue(look.limit)
        taking = self._looks.start(self._dequeue_some(look))
        try:
            while not taking.done() and not self._is_narrow(look):
                await self._change_or(taking)
        except asyncio.CancelledError:
            if taking.done() and not taking.cancelled() and taking.exception() is None:
                for reserved in taking.result():  # this node stops: each is given back
                    self._take(reserved)
                self._fill()
            raise
        finally:
            taking.cancel()
        await asyncio.wait([taking])
        return [] if taking.cancelled() else taking.result()

    async def _change_or(self, taking: asyncio.Task[list[Reserved]]) -> None:
        self._changed.clear()
        changed = self._looks.start(self._changed.wait())
        try:
            await asyncio.wait([taking, changed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _dequeue_some(self, look: _Look) -> list[Reserved]:
        if look.pause_s:
            await pause(self._clock, look.pause_s)
        return await self._accepted.dequeue(look.limit, look.without)

    def _is_narrow(self, look: _Look) -> bool:
        """Return whether a look would take calls now that this one leaves, or none at all."""
        now = self._next_look()
        return now is None or not look.without <= now.without

    async def _fits(self, call: Call) -> bool:
        """Return whether a node of this size can run a call; true where that cannot be judged."""
        try:
            self._agent.check_capacity(await self._function_of(call))
        except ServerBusy:
            return False
        except Exception:  # its run reports what is wrong
            return True
        return True

    def _has_room(self) -> bool:
        # Refill when half are left, many at a time: each look into the queue is a transaction.
        return self._has_few() and self._agent.pool.has_async_room()

    def _has_few(self) -> bool:
        return self._waiting <= self._prefetch.limit // 2

    def _take(self, reserved: Reserved) -> None:
        call = reserved.call
        known = self._runs.get(call.id)
        if known is not None and known.attempt >= call.attempt:
            # its renewal was late, and it came back here
            known.lease, known.deliveries, known.until = reserved.lease, reserved.deliveries, reserved.until
            return
        # The attempt before it may still be here: its message was replaced, and the answer is on its way.
        run = self._runs[call.id] = _Run(
            call.app_name, call.attempt, reserved.lease, reserved.deliveries, reserved.until
        )
        self._waiting += 1
        self._held[run.app] += 1
        self._line.add(run.app, (reserved, run))

    def _fill(self) -> None:
        """Let calls wait for a container, up to the limit; a node that stops releases all."""
        while (next_call := self._line.next(always=self._stopping)) is not None:
            reserved, run = next_call
            run.in_line = True
            self._group.create_task(self._run(reserved, run))

    def _leave_line(self, run: _Run) -> None:
        """Let the next calls wait for a container: this one has its own, or needs none any more."""
        if run.in_line:
            run.in_line = False
            if self._line.leave(run.app):  # many at once: each time, the launcher examines all
                self._fill()

    async def _renew(self) -> None:
        await pause(self._clock, self._accepted.visibility_s / 3)
        await self._renew_leases()

    async def _renew_leases(self) -> None:
        runs = {run.lease: (call_id, run) for call_id, run in self._runs.items()}
        if not runs:
            return
        until = self._clock.monotonic() + self._accepted.visibility_s
        for (lease, (call_id, run)), held in zip(runs.items(), await self._accepted.renew(list(runs)), strict=True):
            if run.lease != lease:
                continue  # it came back to this node meanwhile
            if held:
                run.until = until
            elif self._runs.get(call_id) is run:
                run.until = 0.0
                _log.warning("lease of a queued call lost", call_id=call_id, waiting=run.waiting)

    # -- cancelled calls ------------------------------------------------------------------------------------------

    def cancel(self, call_id: str) -> None:
        """End a call that runs here, or waits for a container: its record has ended."""
        run = self._runs.get(call_id)
        if run is not None and run.active is not None:
            run.active.end_early(CallCancelled())

    async def _find_cancelled(self) -> None:
        await pause(self._clock, CANCEL_LOOK_S)
        running = [call_id for call_id, run in self._runs.items() if not run.waiting]
        if not running:
            return
        with contextlib.suppress(HearthError):  # the next look comes soon
            for call_id in await self._records.cancelled(running):
                self.cancel(call_id)

    # -- one call -------------------------------------------------------------------------------------------------

    async def _run(self, reserved: Reserved, run: _Run) -> None:
        """Run one call. If this fails, the lease expires, and the next holder continues from the record."""
        call = reserved.call
        _log.debug("call taken from the queue", call_id=call.id, app_name=call.app_name, path=call.path)
        try:
            with self._span("agent_async_run", call.app_name, call.path):
                ended = await self._ended(reserved, run)
            if ended and (call.on_success or call.on_failure):
                await self._accepted.call_back(call)  # first this, then the acknowledgement: a death repeats both
            _log.debug("call leaves the queue" if ended else "call given back to the queue", call_id=call.id)
            if ended:
                self._acknowledger.add(run.lease)
            elif not run.is_handed_over:
                await self._accepted.release(run.lease, self._delay_s(reserved, run))
        except Exception as exc:
            told = None if isinstance(exc, HearthError) else exc
            _log.error("error running async call", call_id=call.id, error=str(exc), exc_info=told)
        finally:
            if self._runs.get(call.id) is run:
                del self._runs[call.id]
            self._left(run)
            self._end_loops()

    def _end_loops(self) -> None:
        """End the loops of a node that stops once it holds no call, so that there is no lease to renew."""
        if self._stopping and not self._runs:
            for loop in self._loops:
                loop.cancel()

    def _left(self, run: _Run) -> None:
        """Count a call as no longer waiting."""
        self._leave_line(run)
        if run.waiting:
            run.waiting = False
            self._waiting -= 1
            self._let_go(run)

    def _let_go(self, run: _Run) -> None:
        """Note that a call holds none of the places here any more."""
        self._held[run.app] -= 1
        if not self._held[run.app]:
            del self._held[run.app]
            self._changed.set()
        elif self._has_few():
            self._changed.set()

    async def _ended(self, reserved: Reserved, run: _Run) -> bool:
        """Run it; return true if its end is recorded, here or by another node."""
        call = reserved.call
        if self._stopping:
            return False
        try:
            if call.format == CALLBACK and self._send is not None and not reserved.fault:
                return await self._sent(self._send, call, run)
            if call.has_expired(self._clock.now()):
                return await self._failed(call, run, CallExpired())
            try:
                spec = await self._spec(reserved)
            except ServerBusy:  # it never fits here
                if _deliveries(reserved) < self._max_misfits:
                    _log.info("queued call is too large for this node, left to others", call_id=call.id)
                    return False
                return await self._failed(call, run, FitsNowhere(call, _deliveries(reserved)))
            except StoreUnavailable as exc:  # its secrets cannot be read now
                _log.error("queued call given back, its secrets are not available", call_id=call.id, error=str(exc))
                return False
            except Exception as exc:  # the stored fields may be anything; no node of this size or release can run it
                _log.error("error getting async call", call_id=call.id, error=str(exc))
                return await self._failed(call, run, exc)
            return await self._within_limit(spec, call, run)
        except NotStarted as exc:
            return await self._not_started(call, run, exc)

    async def _spec(self, reserved: Reserved) -> FunctionSpec:
        if reserved.fault:
            raise InvalidMessage(reserved.fault)
        spec = await self._function_of(reserved.call)
        call, deliveries = reserved.call, _deliveries(reserved)
        # limits that were set for its app or its function are no reason to give up
        is_limited = call.max_concurrent or call.max_instances or self._agent.pool.function(spec).share.limits_delivery
        if deliveries > MAX_DELIVERIES and not is_limited:
            raise NeverStarted(deliveries)
        self._agent.check_capacity(spec)
        return spec

    async def _within_limit(self, spec: FunctionSpec, call: Call, run: _Run) -> bool:
        """Run a call once the limit of its function leaves room for it. Meanwhile it keeps no other call waiting."""
        if not call.max_concurrent:
            return await self._delivered(spec, call, run)
        if not self._limits.enter_nowait(call):
            if not self._limits.may_wait(call) or self._held_back.total() >= MAX_HELD_BACK:
                run.over_quota = True
                return False
            try:
                await self._hold_back(self._limits.enter(call), run)
            except ServerBusy:
                return False
        try:
            return await self._delivered(spec, call, run)
        finally:
            self._limits.leave(call)

    async def _delivered(self, spec: FunctionSpec, call: Call, run: _Run) -> bool:
        """Run a call once the quotas of its app leave room for it."""
        share = self._agent.pool.function(spec).share
        if not share.limits_delivery:
            return await self._submitted(self._agent.accepted_call(spec, call), run)
        if not share.deliver_nowait(spec.amount):
            if self._held_back.total() >= MAX_HELD_BACK:
                run.over_quota = True
                return False
            try:
                await self._hold_back(share.deliver(spec.amount), run)
            except ServerBusy:
                return False
        try:
            return await self._submitted(self._agent.accepted_call(spec, call), run)
        finally:
            share.delivered(spec.amount)

    async def _hold_back(self, wait: Awaitable[None], run: _Run) -> None:
        """Let a call wait for its quotas, and take none of the places of calls that wait for a container."""
        self._leave_line(run)
        self._waiting -= 1
        self._held_back[run.app] += 1
        if self._has_few():
            self._changed.set()
        try:
            await wait
        finally:
            self._held_back[run.app] -= 1
            if not self._held_back[run.app]:
                del self._held_back[run.app]
            self._waiting += 1
            self._changed.set()

    async def _sent(self, send: SendRecord, call: Call, run: _Run) -> bool:
        """Send the record of another call to its destination, and record how that went."""
        await self._take_over(call, run)
        call.started_at = call.not_before(self._clock.now())
        error: Exception | None = None
        try:
            call.response_status = await send(call)
        except HearthError as exc:
            error = exc
        call.completed_at = call.not_before(self._clock.now())
        call.status = SUCCESS
        if error is not None:
            fail(call, b"", error)
            if self._runs_again(call, run, error) and await self._handed_over(
                CallEnd(error, EndedCall(call, b"")), run
            ):
                return False
            _log.warning("record not sent to its destination", call_id=call.id, url=call.url, error=str(error))
        return await self._recorded(EndedCall(call, b""))

    async def _recorded(self, ended: EndedCall) -> bool:
        try:
            await self._records.finish_many([ended])
        except HearthError:
            return await self._stored_at_last(CallEnd(None, ended))
        return True

    async def _submitted(self, active: ActiveCall, run: _Run) -> bool:
        call, run.active = active.record, active
        take_over = functools.partial(self._start, call, run)
        if call.retry is None:
            end = await self._agent.run(active, take_over)
        else:
            call.headers[_ATTEMPT] = [str(call.attempt)]
            end = await self._agent.run(active, take_over, functools.partial(self._runs_again, call, run))
            if run.again_after_s is not None and await self._handed_over(end, run):
                return False
        if isinstance(end.error, NotStarted):
            return await self._not_started(call, run, end.error)
        if isinstance(end.error, ServerBusy):
            if run.waiting:
                return end.is_stored
            if not end.is_stored:  # its container ended before it received the call
                return await self._agent.record_failure(call, end.error)
        elif end.error is not None:
            _log.info("error running async call", call_id=call.id, error=str(end.error))
        return end.is_stored or await self._stored_at_last(end)

    def _runs_again(self, call: Call, run: _Run, failure: Exception | None) -> bool:
        """Decide about an attempt that has ended; return whether there is another one."""
        assert call.retry is not None
        decision = decide(failure_of(failure), call.attempt, call.retry, self._chance())
        run.again_after_s = decision.after_s if isinstance(decision, Retry) else None
        return run.again_after_s is not None

    async def _handed_over(self, end: CallEnd, run: _Run) -> bool:
        """Put the next attempt of a call into the queue; return false if the call is another node's by now."""
        if end.ended is None:
            raise InternalError("the call's end is not known")
        again = EndedCall(next_attempt(end.ended.call, self._node, run.deliveries), end.ended.log)
        after_s = run.again_after_s or 0.0
        while True:
            try:
                run.is_handed_over = await self._accepted.retry(run.lease, again, after_s)
            except StoreRefused as exc:
                _log.error("next attempt of a call refused by the queue", call_id=again.call.id, error=str(exc))
                return False
            except HearthError as exc:
                _log.error("next attempt of a call not queued yet", call_id=again.call.id, error=str(exc))
                if self._stopping:
                    raise
                await pause(self._clock, _TRY_AGAIN_S)
                continue
            if run.is_handed_over:
                _log.info("call runs again", call_id=again.call.id, attempt=again.call.attempt, after_s=after_s)
            return run.is_handed_over

    async def _stored_at_last(self, end: CallEnd) -> bool:
        """Hold the message until the end is recorded: the store was away when the call ended."""
        ended = end.ended
        if ended is None:
            raise InternalError("the call's end is not known")
        while not self._stopping:
            await pause(self._clock, _TRY_AGAIN_S)
            try:
                await self._records.finish_many([ended])
            except StoreRefused as exc:
                return await self._ended_bare(ended.call, exc)
            except HearthError as exc:
                _log.error("end of an async call not recorded yet", call_id=ended.call.id, error=str(exc))
            else:
                return True
        raise InternalError("its end was not recorded")

    async def _ended_bare(self, call: Call, why: StoreRefused) -> bool:
        """Store an end without what the store may have refused, so that the record does not stay running."""
        bare = msgspec.structs.replace(call, status=ERROR, error=f"its record could not be stored: {why}", stats=[])
        try:
            await self._records.finish_many([EndedCall(bare, b"")])
        except StoreRefused as exc:
            _log.error("end of an async call refused by its store", call_id=call.id, error=str(exc))
        return True

    async def _start(self, call: Call, run: _Run) -> None:
        """Take a call over to run it. One that expired while it waited comes back, to end."""
        if call.has_expired(self._clock.now()):
            raise NotStarted("it expired while it waited")
        await self._take_over(call, run)

    async def _take_over(self, call: Call, run: _Run) -> None:
        self._leave_line(run)  # at once: the next calls must be in line when a container becomes free
        if self._clock.monotonic() >= run.until:
            raise NotStarted("its lease ended while it waited")
        running = msgspec.structs.replace(call, started_at=call.not_before(self._clock.now()), status=RUNNING)
        try:
            await self._records.start(running)
        except HearthError as exc:
            raise NotStarted(str(exc)) from exc
        self._left(run)
        self._prefetch.started()

    async def _failed(self, call: Call, run: _Run, why: Exception) -> bool:
        """Record that a call can never run, unless it has run: its message may have come back after its end."""
        await self._take_over(call, run)
        return await self._agent.record_failure(call, why)

    async def _not_started(self, call: Call, run: _Run, why: NotStarted) -> bool:
        found = why.__cause__
        return isinstance(found, AlreadyStarted) and await self._end_started(call, run, found)

    async def _end_started(self, call: Call, run: _Run, found: AlreadyStarted) -> bool:
        """End a call that was started before and came back: while this node holds the lease, no node runs it."""
        if found.status == RUNNING:
            if self._clock.monotonic() < self._quiet_until:
                run.not_before = self._quiet_until
                return False
            if await self._accepted.renew([run.lease]) != [True]:
                return False
            call.status, call.error = ERROR, str(Interrupted())
            call.completed_at = self._clock.now()
            if call.retry is not None and self._runs_again(call, run, Interrupted()):
                await self._handed_over(CallEnd(None, EndedCall(call, b"")), run)
                return False
            call.dead = call.joins_dead_letters
            await self._records.interrupted(call)
        if found.status == CANCELLED:
            _log.info("cancelled call leaves the queue", call_id=call.id)
        else:
            _log.warning("accepted call had been started before", call_id=call.id, status=found.status)
        return True

    def _delay_s(self, reserved: Reserved, run: _Run) -> float:
        """Return the delay of a released call: longer each time it finds no room; none when the node stops."""
        if self._stopping:
            return 0.0
        if run.not_before:
            return max(0.0, run.not_before - self._clock.monotonic())
        return min(_MAX_QUOTA_DELAY_S if run.over_quota else _MAX_DELAY_S, 2.0 ** min(_deliveries(reserved) - 1, 10))


def _deliveries(reserved: Reserved) -> int:
    """Return how often the queue has handed out the present attempt of a call."""
    return max(1, reserved.deliveries - reserved.call.earlier_deliveries)
