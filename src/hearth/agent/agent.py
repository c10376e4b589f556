"""The walk of a call: from a request, through a slot of a container, to its end (agent specification 3)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from hearth.access.base import NO_LOGIN_SOURCE, CallRecords, EndedCall, LoginSource
from hearth.access.pins import NoteImage, ignore_image
from hearth.agent.accepted import LogSink, StoredBody
from hearth.agent.call import (
    DEFAULT_LIMIT_BYTES,
    ActiveCall,
    CallLog,
    ClientGone,
    Draining,
    FunctionAnswered,
    NotStarted,
    log_step,
)
from hearth.agent.cold import run_cold
from hearth.agent.hot import HotSlot
from hearth.agent.lending import WHOLE, Lender, Part
from hearth.agent.listeners import CallListener, Listeners
from hearth.agent.meters import Outcome
from hearth.agent.outcomes import SERVER_ERROR, Stopped, explain, fail, outcome_of, response_status, status_of
from hearth.agent.pool import Pool
from hearth.agent.recorder import Recorder
from hearth.agent.results import answer_result, error_result
from hearth.agent.sampling import thin_out
from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.patience import allowed_wait_s
from hearth.agent.states import AgentLife, AgentState, CallState
from hearth.agent.stats import CallStats
from hearth.agent.stderr import LateLogs
from hearth.aio.clock import Clock
from hearth.aio.deadlines import Expiries
from hearth.contracts.base import ContainerGone, Exchange, RequestBody, ResponseSink
from hearth.contracts.formats import USUAL, Terms
from hearth.drivers.base import Driver, DriverError
from hearth.models.call import SUCCESS, Call, HeaderMap
from hearth.models.call_result import RESULT_LIMITS, CallResult, ResultLimits
from hearth.models.errors import FunctionFailed, QuotaExceeded, ServerBusy
from hearth.models.function import Amount, FunctionSpec
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.models.times import ZERO
from hearth.telemetry.app_syslog import Reach
from hearth.telemetry.logs import get_logger, log_levels
from hearth.telemetry.node import Telemetry
from hearth.telemetry.tracing import during

_ADAPTIVE: Final = AdaptivePolicy()
#: Ten minutes for an image, and five seconds for a socket, as in Fn.
_START_LIMIT_S: Final = 605.0
_UNCOUNTED: Final = contextlib.nullcontext()
_but: Final = msgspec.structs.replace

_log = get_logger(__name__)

#: Called when a call has ended, with its error or ``None``; returns true if it is to run again, and so has no end yet.
RunsAgain = Callable[[Exception | None], bool]
#: Called when a call has its container and runs next; what it raises keeps the call from running.
TakeOver = Callable[[], Awaitable[None]]


class CallEnd(msgspec.Struct, frozen=True, eq=False):
    """The end of a call.

    Attributes:
        error: The error for its client; ``None`` if it has been answered well.
        ended: Its final record and log; ``None`` for a call of which no record is kept.
        is_stored: They are in the store. Those of a call that runs again are for its next attempt, and are not stored.
    """

    error: Exception | None
    ended: EndedCall | None = None
    is_stored: bool = False


class Agent:
    """Runs calls in containers. An async context manager: leaving it drains and removes everything.

    Args:
        driver: Open; the caller closes it.
        records: Stores the ends of calls.
        total: Memory and CPU that containers may use together.
        next_id: Makes ids of containers.
        max_starts: Containers that may start at once; those that take long are not counted.
        scaling: Decides when a function gets another hot container.
        are_busy: Returns True while the processors have no time left.
        terms: What the operator says about formats.
        freeze_idle_s: Seconds without a call after which a container is frozen; ``None``: never.
        start_limit_s: Seconds in which a container has its image and takes calls. Calls of fns, whose timeout begins
            with their run, wait for this long and for their timeout.
        logins: The logins of apps at registries, for their images.
        note_image: Called with each container that is made, and its function.
        syslog: Which syslog servers of apps are served.
        quotas: The quotas of apps that have none of their own.
        part: That of this worker in the containers that functions keep ready, and may have.
        lender: Lends parts of ``total``, which workers share; ``None``: all of it is here.
        result_limits: What is kept of the results of async calls.
        listeners: Hear of each call before it runs and after it is recorded, in this order.
        telemetry: The metrics and spans of the node.

    Attributes:
        pool: The functions and containers of the node.
        stats: The counts of calls.
        has_listeners: Extensions hear of each call, and see all of it.
        loop: The loop of the agent, once it is open. Looking it up takes a system call.
    """

    def __init__(
        self,
        driver: Driver,
        records: CallRecords,
        clock: Clock,
        *,
        total: Amount,
        next_id: Callable[[], str],
        max_starts: int = 8,
        scaling: ScalingPolicy = _ADAPTIVE,
        are_busy: Callable[[], bool] = lambda: False,
        quotas: Quotas = NO_QUOTAS,
        lender: Lender | None = None,
        part: Part = WHOLE,
        log_limit_bytes: int = DEFAULT_LIMIT_BYTES,
        terms: Terms = USUAL,
        freeze_idle_s: float | None = None,
        start_limit_s: float = _START_LIMIT_S,
        logins: LoginSource = NO_LOGIN_SOURCE,
        note_image: NoteImage = ignore_image,
        syslog: Reach = "network",
        result_limits: ResultLimits = RESULT_LIMITS,
        listeners: Sequence[CallListener] = (),
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry or Telemetry()
        self.stats = CallStats(self.telemetry.metrics)
        self.pool = Pool(
            driver,
            clock,
            self.stats,
            self.telemetry,
            total=total,
            next_id=next_id,
            max_starts=max_starts,
            scaling=scaling,
            are_busy=are_busy,
            terms=terms,
            freeze_idle_s=freeze_idle_s,
            logins=logins,
            note_image=note_image,
            syslog=syslog,
            quotas=quotas,
            lender=lender,
            part=part,
        )
        self._clock = clock
        self._log_limit_bytes = log_limit_bytes
        self._start_limit_s = start_limit_s
        self._result_limits = result_limits
        self._running: dict[asyncio.Task[Any], ActiveCall] = {}
        self._recorder = Recorder(records, self.telemetry.metrics, clock=clock, running=self._running.__len__)
        store_late = functools.partial(self._recorder.record, is_awaited=False)
        self._late = LateLogs(store_late, clock, lags=driver.capabilities.stderr_lags)
        self.has_listeners = bool(listeners)
        self._listeners = Listeners(listeners, self._recorder.record) if listeners else None
        self._limits: dict[float, Expiries] = {}
        self._life = AgentLife()
        self._drained = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Agent {self._life.state.value} running={len(self._running)} {self.pool!r}>"

    async def __aenter__(self) -> Agent:
        self.loop = asyncio.get_running_loop()
        await self.pool.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.drain()
        await self._drained.wait()
        if self._listeners is not None:
            await self._listeners.join()
        self._late.close()
        await self._recorder.close()
        await self.pool.__aexit__(None, None, None)
        self._life.enter(AgentState.CLOSED)
        for limits in self._limits.values():
            limits.close()

    def running_calls(self) -> list[Call]:
        """Return the records of the calls that run or wait here."""
        return [call.record for call in self._running.values()]

    def drain(self) -> None:
        """Take no new call: calls that wait are answered busy, calls that run finish. Idempotent."""
        if self._life.state is not AgentState.OPEN:
            return
        self._life.enter(AgentState.DRAINING)
        self.pool.drain()
        if not self._running:
            self._drained.set()

    def abort(self) -> None:
        """Drain, but cancel the calls that run and record them as errors. Idempotent.

        A call that has ended and waits for its record gets its answer.
        Containers that cannot be removed soon are left to the next start of this node.
        """
        self.drain()
        if self._life.state is not AgentState.DRAINING:
            return
        self._life.enter(AgentState.ABORTING)
        for task, call in self._running.items():
            if call.state is not CallState.DONE or self._listeners is not None:
                task.cancel()
        self.pool.abandon_later()

    # -- before a call ------------------------------------------------------------------------------

    def check_capacity(self, spec: FunctionSpec) -> None:
        """Check that this node can run the function at all.

        Raises:
            ServerBusy: It is too large. Without Retry-After, because another attempt cannot succeed.
        """
        if not self.pool.resources.is_possible(spec.amount, is_sync=spec.is_sync):
            raise ServerBusy(retry_after=False)

    def new_call(
        self,
        spec: FunctionSpec,
        call_id: str,
        *,
        method: str,
        url: str,
        headers: HeaderMap,
        body: RequestBody,
        sink: ResponseSink,
    ) -> ActiveCall:
        """Return a new call of a function; its deadlines are fixed now."""
        function = self.pool.functions.get(spec.hot_key) or self.pool.function(spec)
        now = self._clock.now()
        record = _but(function.record, id=call_id, created_at=now, method=method, url=url, headers=headers, stats=[])
        return ActiveCall(
            record=record,
            function=function,
            body=body,
            sink=sink,
            log=CallLog(
                lambda: {"user_log": True, **function.log_fields, "call_id": call_id}, self._log_limit_bytes, call_id
            ),
            since=self._clock.monotonic(),
            since_at=now,
            recorded_at=now,
        )

    def accepted_call(self, spec: FunctionSpec, record: Call) -> ActiveCall:
        """Return an accepted async call; its deadlines are fixed now: the time in the queue does not count."""
        function = self.pool.accepted(spec)
        now = self._clock.now()
        fields = {"user_log": True, **function.log_fields, "call_id": record.id}
        log = CallLog(lambda: fields, self._log_limit_bytes, record.id)
        return ActiveCall(
            record=record,
            function=function,
            body=StoredBody(record.payload),
            sink=LogSink(log, function.contract, self._log_limit_bytes, self._result_limits.max_bytes),
            log=log,
            since=self._clock.monotonic(),
            since_at=now,
            recorded_at=record.not_before(now),
            is_plain=spec.ref.is_fn,
            is_queued=True,
        )

    # -- the walk ------------------------------------------------------------------------------

    async def submit(self, call: ActiveCall) -> None:
        """Run a call to its end: its answer was delivered and its record stored.

        Raises:
            ApiError: The error that the client gets.
            InternalError: The platform failed.
            ClientGone: Nobody waits for the answer.
        """
        error = (await self.run(call)).error
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, which must not hold it

    async def run(
        self, call: ActiveCall, take_over: TakeOver | None = None, runs_again: RunsAgain | None = None
    ) -> CallEnd:
        """Run a call to its end, whatever that is. If the caller is cancelled, the end is stored in the background.

        Args:
            call: A new one.
            take_over: Called once the call has a container and before it runs. If it raises :class:`NotStarted`, no
                record is kept.
            runs_again: Called when the call has run. If it returns true, the end is neither stored nor passed to the
                listeners.
        """
        if self._life.state is not AgentState.OPEN:
            return CallEnd(ServerBusy())
        function, task = call.function, call.task or asyncio.current_task(self.loop)
        assert task is not None
        cancelling = task.cancelling()
        limits = self._limits.get(function.spec.timeout_s) or self._new_limits(function.spec.timeout_s)
        error: Exception | None = None
        self._running[task] = call
        try:
            started = function.spans.submit.begin()
            try:
                if log_levels.debug:
                    log_step(call, "call submitted", type=call.record.type, trigger_id=call.record.trigger_id or None)
                call.submit()
                call.task = task
                if not function.times_run:
                    call.limit = limits.add(call.end_late)
                try:
                    try:
                        if function.contract.hot:
                            await self._run_hot(call, take_over, limits)
                        else:
                            await self._run_cold(call, take_over)
                    finally:
                        limits.discard(call.limit)
                        if call.ending is not None and task.uncancel() > cancelling:
                            call.ending = None  # the caller was cancelled as well
                except asyncio.CancelledError:
                    if call.ending is not None:
                        error = explain(call, call.ending)
                    elif self._is_aborting():
                        task.uncancel()
                        error = Stopped() if call.started else Draining()
                    else:
                        self._abandon(call)
                        raise
                except Exception as exc:  # every call ends exactly once, whatever went wrong
                    error = explain(call, exc)
                return await self._end(call, error, runs_again)
            finally:
                function.spans.submit.end(started)
        finally:
            del self._running[task]
            if not self._running and self._life.state is not AgentState.OPEN:
                self._drained.set()
            del error  # it holds this frame, which must not hold it
            call.task = None
            del task  # once cancelled it holds its error, which holds this frame

    async def _run_hot(self, call: ActiveCall, take_over: TakeOver | None, limits: Expiries) -> None:
        """Run a call on a hot container, on another one if that is gone before it has read a byte.

        Args:
            call: The call.
            take_over: Called once it has a container.
            limits: The limits of calls with its timeout.
        """
        function, spans = call.function, call.function.spans
        is_new = True
        while True:
            launcher = self.pool.launchers.get(function.key) or self.pool.launcher(function)
            started = spans.hot_slot.begin()
            try:
                if launcher.queue.free:
                    hot = launcher.queue.free.pop()
                    hot.lease()
                else:
                    with _line_of(call):
                        if is_new and not function.times_run:
                            hot = await launcher.acquire(call.since)
                        else:  # the launcher does not limit its wait, or too late: it is older than those before it
                            async with asyncio.timeout_at(call.since + self._wait_limit_s(call)):
                                hot = await launcher.acquire(call.since)
            finally:
                spans.hot_slot.end(started)
            if hot.frost is not None and not hot.frost.is_warm and not await _thaw(hot):
                continue
            stderr = hot.stderr
            exchange: Exchange | None = None
            try:
                if log_levels.debug:
                    log_step(call, "slot obtained", container_id=hot.container.id)
                if is_new and take_over is not None:
                    await take_over()
                started = spans.start.begin()
                try:
                    call.start(self._clock.monotonic())
                    if function.times_run:
                        call.limit = limits.add(call.end_late)
                    if log_levels.debug:
                        log_step(call, "call started", waited_s=round(call.waited_s, 6))
                    if is_new and self._listeners is not None:
                        await self._listeners.before(call.record)
                finally:
                    spans.start.end(started)
                is_new = False
                if stderr.unseen():
                    await stderr.catch_up()  # what has come by now is not this call's
                exchange = hot.attend(call)
                started = spans.hot_exec.begin()
                try:
                    await exchange.run()
                    if stderr.unseen():
                        await stderr.catch_up()
                finally:
                    spans.hot_exec.end(started)
                return
            except FunctionFailed:
                await stderr.catch_up()
                call.log.precede(stderr.opening)  # the only trace of a program that fails while it starts
                raise
            except ContainerGone:
                if function.times_run:
                    limits.discard(call.limit)
                call.wait_again()
            finally:
                if exchange is None:
                    hot.give_back(clean=hot.container.exited is None, used=False)
                else:
                    call.answered = exchange.status
                    is_clean = exchange.is_clean()
                    if exchange.surplus:
                        self.pool.suspect(function)
                    hot.give_back(clean=is_clean, used=exchange.touched)

    async def _run_cold(self, call: ActiveCall, take_over: TakeOver | None) -> None:
        """Run a call on a container of its own. The container is removed in the background."""
        function = call.function
        cold, task = self.pool.new_cold(call)
        try:
            with during(function.spans.cold_slot), _line_of(call):
                async with asyncio.timeout_at(call.since + self._wait_limit_s(call)):
                    container = await cold.acquire()
            if log_levels.debug:
                log_step(call, "container obtained", container_id=container.id)
            if take_over is not None:
                await take_over()
            with during(function.spans.start):
                call.start(self._clock.monotonic())
                if log_levels.debug:
                    log_step(call, "call started", waited_s=round(call.waited_s, 6))
                if self._listeners is not None:
                    await self._listeners.before(call.record)
            with during(function.spans.cold_exec):
                await cold.start(container)
                await run_cold(call, cold, container)
        finally:
            self.pool.discard_cold(cold)
            cold.release()
            if cold.waits:
                task.cancel()  # its start still waits, and is given up

    def _wait_limit_s(self, call: ActiveCall) -> float:
        """Return how long a call waits for a container. An accepted one goes back to the queue soon."""
        function = call.function
        timeout_s = function.spec.timeout_s
        return (
            self._start_limit_s + timeout_s if function.times_run and not call.is_queued else allowed_wait_s(timeout_s)
        )

    def _is_aborting(self) -> bool:
        return self._life.state is AgentState.ABORTING

    def _new_limits(self, timeout_s: float) -> Expiries:
        limits = self._limits[timeout_s] = Expiries(self._clock, timeout_s)
        return limits

    # -- its end ------------------------------------------------------------------------------

    async def _end(self, call: ActiveCall, error: Exception | None, runs_again: RunsAgain | None = None) -> CallEnd:
        """End a call: count it, store its record, tell the listeners.

        A call that found no room, or that another node has, leaves no record.
        """
        failure = error
        if error is None and call.answered >= SERVER_ERROR:
            failure = FunctionAnswered(call.answered)
        again = runs_again is not None and call.state is CallState.EXEC and runs_again(failure)
        ended, is_stored = self._ended(call, failure, is_last=not again), False
        if ended is not None and not again:
            spans = call.function.spans.end
            started = spans.begin()
            try:
                if self._listeners is None:
                    is_stored = await self._recorder.record(ended)
                else:
                    is_stored, late = await asyncio.shield(self._listeners.after(ended))
                    error = error or (None if call.sink.started else late)
            finally:
                spans.end(started)
        if log_levels.debug:
            text = str(failure) if failure else None
            log_step(call, "call ended", status=call.record.status, stored=is_stored, error=text)
        return CallEnd(error, ended, is_stored)

    def _ended(self, call: ActiveCall, failure: Exception | None, *, is_last: bool = True) -> EndedCall | None:
        """Count the end of a call. Return its final record and log; ``None`` if it leaves no record.

        What comes late of the log of an attempt that is not the last one is dropped.
        """
        started, now, record = call.state is CallState.EXEC, self._clock.monotonic(), call.record
        if failure is None:
            call.end(now, Outcome.COMPLETE, call.answered)
        else:
            status = response_status(call, failure, started=started)
            call.end(now, outcome_of(call, failure, started=started), status)
            if not started and isinstance(failure, ServerBusy | ClientGone | NotStarted):
                return None
            if not started and isinstance(failure, QuotaExceeded) and not call.is_queued:
                return None
        log = self._late.take(record, call.log) if self._late.lags and is_last else call.log.take()
        record.completed_at = call.recorded_at + dt.timedelta(0, now - call.since)
        if failure is None:
            record.status = SUCCESS
        else:
            fail(record, log, failure)
        if isinstance(call.sink, LogSink):
            record.result = self._result(call, call.sink, failure)
        if call.samples:
            record.stats = thin_out(call.samples)
        return EndedCall(record, log)

    def _result(self, call: ActiveCall, sink: LogSink, failure: Exception | None) -> CallResult:
        """Return the result of an accepted call."""
        waited_s = -1.0 if call.record.started_at == ZERO else call.waited_s
        if failure is None or isinstance(failure, FunctionAnswered):
            return answer_result(call.record, sink.given, sink.body, self._result_limits, waited_s)
        return error_result(call.record, failure, self._result_limits, waited_s)

    def _abandon(self, call: ActiveCall) -> None:
        """End a call whose client has left, without waiting. One that had not started leaves no record."""
        ended = self._ended(call, ClientGone())
        if ended is not None:
            if self._listeners is None:
                self._recorder.record(ended, is_awaited=False)
            else:
                self._listeners.after(ended)

    async def record_failure(self, record: Call, error: Exception) -> bool:
        """Store that an accepted call can never run. Return True if it was stored."""
        record.response_status = status_of(error)
        record.completed_at = record.not_before(self._clock.now())
        fail(record, b"", error)
        record.result = error_result(record, error, self._result_limits)
        return await self._recorder.record(EndedCall(record, b""))


def _line_of(call: ActiveCall) -> contextlib.AbstractContextManager[None]:
    """Return what counts a call that waits for a container. Accepted ones are not counted: few wait at a time."""
    return _UNCOUNTED if call.is_queued else call.function.share.line


async def _thaw(hot: HotSlot) -> bool:
    """Let a leased container run again; false if it does not, and was given up."""
    is_warm = False
    try:
        assert hot.frost is not None
        await hot.frost.thaw()
        is_warm = True
    except DriverError as exc:
        _log.warning("container not thawed", container_id=hot.container.id, error=str(exc))
    finally:
        if not is_warm:
            hot.give_back(clean=False, used=False)
    return is_warm
