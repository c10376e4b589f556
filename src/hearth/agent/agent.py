"""From a request to a finished call (agent specification 3)."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Final

from hearth.access.base import DataAccess, EndedCall
from hearth.agent.call import (
    ActiveCall,
    ClientGone,
    Draining,
    LogSink,
    NotStarted,
    RequestBody,
    ResponseSink,
    StoredBody,
    deadline_text,
)
from hearth.agent.cold import ColdContainer, run_cold
from hearth.agent.exchange import ContainerGone, Exchange, catch_up
from hearth.agent.function import Function
from hearth.agent.gate import StartGate
from hearth.agent.host import Host
from hearth.agent.late import LateLogs
from hearth.agent.launcher import HotLauncher
from hearth.agent.life import ContainerCounts
from hearth.agent.listeners import CallListener, tell_after, tell_before
from hearth.agent.log import DEFAULT_LIMIT_BYTES, CallLog, LineLog, last_line
from hearth.agent.meters import Outcome
from hearth.agent.recorder import Recorder
from hearth.agent.resources import NOTHING, Amount, NeverFits, ResourceTracker
from hearth.agent.sampling import thin_out
from hearth.agent.slots import Slot
from hearth.agent.stats import CallStats
from hearth.clock import Clock
from hearth.drivers.base import Driver, ImageError, ImageNotFound, ImageRefused, StartFailed
from hearth.expiry import Expiries, TimeLimit
from hearth.models.app import App
from hearth.models.call import ERROR, SUCCESS, TIMEOUT, Call
from hearth.models.errors import (
    AppsNotFound,
    CallTimeout,
    ContainerExited,
    ContainerStartFailed,
    FunctionFailed,
    HearthError,
    ImagePullFailed,
    InternalError,
    RoutesNotFound,
    ServerBusy,
)
from hearth.models.route import LIMITS, HeaderMap, Route, RouteLimits
from hearth.telemetry.logs import get_logger, is_debug
from hearth.telemetry.tracing import span

#: How often functions that nobody calls any more are looked for, seconds.
_SWEEP_S: Final = 60.0
#: Functions of accepted calls that are remembered: to make one takes longer than to look it up.
_MAX_ACCEPTED: Final = 1000
#: How long containers may take to go once running calls were broken off, seconds.
_ABANDON_S: Final = 15.0

_log = get_logger(__name__)


class Stopped(InternalError):
    """The node was stopped and did not wait for the call."""

    def __init__(self) -> None:
        super().__init__("the server was stopped before the call ended")


class Agent:
    """Runs calls in containers. An async context manager: leaving it drains and removes everything.

    Args:
        driver: Opened already; closed by whoever opened it.
        access: Definitions and records.
        total: Memory and CPU that containers may use together.
        next_id: Makes ids of calls and containers.
        max_starts: Containers that may be in the making at once; those that take long are not counted.
        are_busy: Whether the processors have no time left.
        limits: The most that a route may ask for.
        listeners: Told of each call before it runs and after it is recorded, in this order.
    """

    def __init__(
        self,
        driver: Driver,
        access: DataAccess,
        clock: Clock,
        *,
        total: Amount,
        next_id: Callable[[], str],
        max_starts: int = 8,
        are_busy: Callable[[], bool] = lambda: False,
        limits: RouteLimits = LIMITS,
        log_limit_bytes: int = DEFAULT_LIMIT_BYTES,
        listeners: Sequence[CallListener] = (),
    ) -> None:
        self.stats = CallStats()
        self.containers = ContainerCounts()
        self.resources = ResourceTracker(total, self._relieve, self._room_changed)
        self.on_room: Callable[[], None] = lambda: None
        self._access = access
        self._clock = clock
        self._next_id = next_id
        self._limits = limits
        self._log_limit_bytes = log_limit_bytes
        self._listeners = tuple(listeners)
        self._telling: set[asyncio.Task[Exception | None]] = set()
        self._host = Host(
            driver=driver,
            resources=self.resources,
            clock=clock,
            starts=StartGate(max_starts, clock),
            are_busy=are_busy,
            next_id=next_id,
            observe=self.containers.observe,
        )
        self._recorder = Recorder(access, clock=clock, running=lambda: len(self._running))
        self._late = LateLogs(self._recorder, clock, lags=driver.capabilities.stderr_lags)
        self._functions: dict[tuple[str, str], Function] = {}
        self._accepted: dict[Hashable, Function] = {}
        self._hot: dict[bytes, HotLauncher] = {}
        self._timeouts: dict[float, Expiries] = {}
        self._cold: set[ColdContainer] = set()
        self._closing = False
        self._aborted = False
        self._running: set[asyncio.Task[Any]] = set()
        self._drained = asyncio.Event()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._abandon_timer: asyncio.TimerHandle | None = None
        self._living: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Agent running={len(self._running)} {self.containers!r} {self.resources!r}>"

    async def __aenter__(self) -> Agent:
        await self._group.__aenter__()
        self._sweep_timer = self._clock.call_at(self._clock.monotonic() + _SWEEP_S, self._sweep)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.drain()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        await self._drained.wait()
        if self._telling:
            await asyncio.wait(self._telling)
        self._late.close()
        await self._recorder.close()
        await self._group.__aexit__(None, None, None)
        for limits in self._timeouts.values():
            limits.close()
        if self._abandon_timer is not None:
            self._abandon_timer.cancel()

    def drain(self) -> None:
        """Take no new call: what waits is told to come back later, what runs runs on. Idempotent."""
        if self._closing:
            return
        self._closing = True
        for launcher in self._hot.values():
            launcher.close(Draining())
        for cold in list(self._cold):
            cold.fail(Draining())
        if not self._running:
            self._drained.set()

    def abort(self) -> None:
        """Drain, and wait for no call: those that run are broken off and recorded as errors. Idempotent.

        Containers that cannot be removed soon are left to the next start of this node.
        """
        self.drain()
        if self._aborted:
            return
        self._aborted = True
        for task in self._running:
            task.cancel()
        self._abandon_timer = self._clock.call_at(self._clock.monotonic() + _ABANDON_S, self._abandon)

    def _abandon(self) -> None:
        if self._living:
            _log.error("containers left behind, the next start removes them", containers=len(self._living))
        for task in self._living:
            task.cancel()

    # -- a call ------------------------------------------------------------------------------

    def function(self, app: App, route: Route) -> Function:
        """A route made ready to be called; made once per version of the route.

        Raises:
            ApiError: The stored route is not valid.
        """
        key = (app.name, route.path)
        known = self._functions.get(key)
        if known is not None and known.app is app and known.route is route:
            return known
        function = self._functions[key] = Function(app, route, self._limits)
        if known is not None and known.key != function.key:
            self._drain_function(known)
        if (launcher := self._hot.get(function.key)) is not None:
            launcher.revive()
        return function

    async def refresh(self, app_name: str, path: str | None = None) -> None:
        """Look at the definition of a route, or of all routes of an app, again.

        Where it is no more, or shapes its containers in another way, or its image was built anew under the same name,
        idle containers end now, busy ones after their call.
        """
        if path is None:
            known = [key for key in self._functions if key[0] == app_name]
        else:
            known = [(app_name, path)] if (app_name, path) in self._functions else []
        for key in known:
            try:
                function = self.function(await self._access.get_app(app_name), await self._access.get_route(*key))
                if (launcher := self._hot.get(function.key)) is not None:
                    await launcher.retire_stale()
            except (AppsNotFound, RoutesNotFound):
                if (gone := self._functions.pop(key, None)) is not None:
                    self._drain_function(gone)
            except HearthError as exc:
                _log.warning("definition not looked at again", app_name=app_name, path=key[1], error=str(exc))

    def let_go(self, app_name: str, path: str) -> bool:
        """Forget a route that was deleted; false while something of it is still here, or has just been ended."""
        launchers = [
            one for one in self._hot.values() if (one.function.app.name, one.function.route.path) == (app_name, path)
        ]
        for launcher in launchers:
            if not launcher.containers and not launcher.queue.waiting:
                self._hot.pop(launcher.function.key).close(Draining())
            else:
                launcher.drain()
        if launchers:
            return False
        self._functions.pop((app_name, path), None)
        self._accepted.clear()
        self.stats.forget(app_name, path)
        return True

    def _drain_function(self, function: Function) -> None:
        if (launcher := self._hot.get(function.key)) is not None:
            launcher.drain()

    def check_capacity(self, function: Function) -> None:
        """Refuse what can never fit this node.

        Raises:
            ServerBusy: Without Retry-After: it is of no use to come back.
        """
        route = function.route
        if not self.resources.is_possible(route.memory, route.cpu_milli, is_sync=function.is_sync):
            raise ServerBusy(retry_after=False)

    def new_call(
        self,
        function: Function,
        call_id: str,
        *,
        method: str,
        url: str,
        headers: HeaderMap,
        body: RequestBody,
        sink: ResponseSink,
    ) -> ActiveCall:
        """A call of a function; its deadlines are fixed now."""
        record = function.record(call_id, self._clock.now(), method=method, url=url, headers=headers)
        return self._active(record, function, body, sink, self._log_of(record), record.created_at)

    def accepted_call(self, function: Function, record: Call) -> ActiveCall:
        """An accepted async call; its deadlines are fixed now: the time in the queue does not count."""
        log = self._log_of(record)
        sink = LogSink(log, function.protocol, self._log_limit_bytes)
        return self._active(record, function, StoredBody(record.payload), sink, log, self._clock.now())

    def accepted_function(self, record: Call) -> Function:
        """What an accepted call runs.

        Raises:
            ApiError: Its fields are not valid.
        """
        shape = Function.shape_of(record)
        known = self._accepted.get(shape)
        if known is None:
            known = Function.of_call(record, self._limits)
            if len(self._accepted) >= _MAX_ACCEPTED:
                self._accepted.clear()
            self._accepted[shape] = known
        return known

    async def record_failure(self, record: Call, error: Exception) -> bool:
        """Store that an accepted call can never run. Whether it was stored."""
        return await self._recorder.record(self._ended(record, b"", error))

    def _log_of(self, record: Call) -> CallLog:
        return CallLog(LineLog(lambda: _whose(record)), self._log_limit_bytes)

    def _active(
        self, record: Call, function: Function, body: RequestBody, sink: ResponseSink, log: CallLog, now: dt.datetime
    ) -> ActiveCall:
        begun, timeout = self._clock.monotonic(), function.route.timeout
        return ActiveCall(
            record=record,
            function=function,
            body=body,
            sink=sink,
            log=log,
            begun=begun,
            slot_deadline=begun + timeout / 2,
            deadline_text=deadline_text(now, timeout),
        )

    async def submit(self, call: ActiveCall) -> None:
        """Run a call to its end; when this returns its answer was delivered and its record stored.

        Raises:
            ApiError: What its client is to be told.
            InternalError: The platform failed.
            ClientGone: Nobody waits for the answer.
            NotStarted: An async call may not be run here.
        """
        if self._closing:
            raise ServerBusy
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            with call.function.spans.submit():
                await self._submit(call, task)
        finally:
            self._running.discard(task)
            if self._closing and not self._running:
                self._drained.set()

    async def _submit(self, call: ActiveCall, task: asyncio.Task[Any]) -> None:
        _trail(call, "call submitted")
        call.submit(self.stats.of(call.record.app_name, call.record.path).moved)
        error: Exception | None = None
        try:
            with TimeLimit(self._timeout_line(call.function.route.timeout), task):
                await (self._execute_hot(call) if call.function.protocol.hot else self._execute_cold(call))
        except asyncio.CancelledError:
            if not self._aborted:
                if self._end(call, ClientGone()):
                    call.ended = self._result(call, ClientGone())
                    if self._listeners:
                        self._tell(call)
                    else:
                        self._recorder.add(call.ended)
                raise
            task.uncancel()
            error = Stopped() if call.started else Draining()
        except Exception as exc:  # every call ends exactly once, whatever went wrong
            error = self._explain(call, exc)
        if self._end(call, error) or not isinstance(error, ServerBusy | ClientGone | NotStarted):
            call.ended = self._result(call, error)
            with call.function.spans.end():
                if self._listeners:
                    late = await asyncio.shield(self._tell(call))
                    error = error or (None if call.sink.started else late)
                else:
                    call.stored = await self._recorder.record(call.ended)
        _trail(call, "call ended", status=call.record.status, stored=call.stored, error=str(error) if error else None)
        if error is not None:
            raise error

    def _timeout_line(self, timeout_s: float) -> Expiries:
        limits = self._timeouts.get(timeout_s)
        if limits is None:
            limits = self._timeouts[timeout_s] = Expiries(self._clock, timeout_s)
        return limits

    async def _execute_hot(self, call: ActiveCall) -> None:
        function = call.function
        launcher = self._launcher(function)
        while True:
            slot = await self._hot_slot(call, launcher)
            _trail(call, "slot obtained", container_id=slot.container.id)
            exchange = Exchange(call, slot.container, fresh=slot.fresh)
            try:
                await self._start(call)
                await catch_up(slot.container.stderr)  # what comes by now is not this call's
                slot.begin(call)
                with function.spans.hot_exec():
                    await exchange.run()
                return
            except FunctionFailed:
                call.log.precede(slot.opening)  # of a program that fails while it starts, nobody else would tell
                raise
            except ContainerGone:
                call.wait_again()
            finally:
                slot.release(clean=exchange.clean)

    @staticmethod
    async def _hot_slot(call: ActiveCall, launcher: HotLauncher) -> Slot:
        with call.function.spans.hot_slot():
            slot = launcher.queue.acquire_nowait()
            if slot is None:
                async with asyncio.timeout_at(call.slot_deadline):
                    slot = await launcher.acquire()
            return slot

    async def _execute_cold(self, call: ActiveCall) -> None:
        app, path = call.record.app_name, call.record.path
        cold = ColdContainer(call, self._host)
        self._cold.add(cold)
        task = self._spawn(cold.run())
        try:
            with span("agent_get_slot", app, path), span("agent_launch_cold", app, path):
                async with asyncio.timeout_at(call.slot_deadline):
                    container = await cold.acquire()
            _trail(call, "container obtained", container_id=container.id)
            await self._start(call)
            with span("agent_cold_exec", app, path):
                await cold.start(container)
                await run_cold(call, container)
        finally:
            self._cold.discard(cold)
            cold.release()
            if cold.waits:
                task.cancel()  # its call gave up: nobody wants what is being made

    async def _start(self, call: ActiveCall) -> None:
        with call.function.spans.start():
            if call.take_over is not None:
                take_over, call.take_over = call.take_over, None  # also if it needs a second container
                await take_over()
            call.start(self._clock.now(), self._clock.monotonic())
            _trail(call, "call started", waited_s=round(call.waited_s, 6))
            if self._listeners:
                await self._announce(call)

    async def _announce(self, call: ActiveCall) -> None:
        if not call.announced:  # it may need a second container
            call.announced = True
            await tell_before(self._listeners, call.record)

    # -- its end ------------------------------------------------------------------------------

    def _explain(self, call: ActiveCall, exc: Exception) -> Exception:
        """The error as its client and its record are to see it."""
        if isinstance(exc, TimeoutError):
            return CallTimeout() if call.started else ServerBusy()
        if isinstance(exc, NeverFits):
            return ServerBusy(retry_after=False)
        image = call.record.image
        translated: Exception | None = None
        if isinstance(exc, ImageNotFound):
            translated = ImagePullFailed(image, exc.reason, 404)
        elif isinstance(exc, ImageRefused | ImageError):
            translated = ImagePullFailed(image, exc.reason, exc.status)
        elif isinstance(exc, StartFailed) and exc.image_fault:
            translated = ContainerStartFailed(exc.reason)
        if translated is not None:
            translated.__cause__ = exc
            return translated
        return exc

    def _end(self, call: ActiveCall, error: Exception | None) -> bool:
        """The call leaves by one door; whether it had started."""
        started = call.started
        if not started:
            call.waited_s = self._clock.monotonic() - call.begun
        call.end()
        self.stats.of(call.record.app_name, call.record.path).left(_outcome(call, error, started=started))
        return started

    def _tell(self, call: ActiveCall) -> asyncio.Task[Exception | None]:
        """Record the end of a call, then tell the listeners: also if its client leaves meanwhile."""
        task = self._group.create_task(self._record_and_tell(call))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return task

    async def _record_and_tell(self, call: ActiveCall) -> Exception | None:
        assert call.ended is not None
        call.stored = await self._recorder.record(call.ended)
        return await tell_after(self._listeners, call.record)

    def _result(self, call: ActiveCall, error: Exception | None) -> EndedCall:
        if call.samples:
            call.record.stats = thin_out(call.samples)
        return self._ended(call.record, self._late.take(call.record, call.log), error)

    def _ended(self, record: Call, log: bytes, error: Exception | None) -> EndedCall:
        record.completed_at = self._clock.now()
        if error is None:
            record.status = SUCCESS
        elif isinstance(error, CallTimeout):
            record.status = TIMEOUT
        else:
            record.status = ERROR
            record.error = _text(error, log)
        return EndedCall(record, log)

    # -- containers ------------------------------------------------------------------------------

    def _launcher(self, function: Function) -> HotLauncher:
        launcher = self._hot.get(function.key)
        if launcher is None:
            launcher = self._hot[function.key] = HotLauncher(function, self._host, self._spawn, self._relieve)
        return launcher

    def _spawn(self, life: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(life)
        self._living.add(task)
        task.add_done_callback(self._living.discard)
        return task

    def has_async_room(self) -> bool:
        """Whether another async call may be taken on."""
        idle = NOTHING
        for launcher in self._hot.values():
            if not launcher.function.is_sync and launcher.queue.idle:
                route = launcher.function.route
                idle += Amount(route.memory * launcher.queue.idle, route.cpu_milli * launcher.queue.idle)
        return self.resources.async_is_below_mark(idle)

    def _room_changed(self) -> None:
        self.on_room()

    def _relieve(self) -> None:
        """Let idle containers give way to the request that is next for memory and CPU."""
        self.on_room()
        if not self.resources.waiting:
            return
        shortage = self.resources.shortage()
        if shortage is None:
            return
        for hot in self._host.standby.choose(shortage):
            hot.evict()

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, launcher in self._hot.items() if launcher.is_forgettable(now)]:
            self._hot.pop(key).close(Draining())
        live = {launcher.function.key for launcher in self._hot.values()}
        for name in [name for name, function in self._functions.items() if function.key not in live]:
            del self._functions[name]
        self._sweep_timer = self._clock.call_at(now + _SWEEP_S, self._sweep)


def _trail(call: ActiveCall, event: str, **fields: Any) -> None:
    """One step of a call, for whoever looks for its id in the log at debug."""
    if is_debug():
        record = call.record
        told = {name: value for name, value in fields.items() if value is not None}
        _log.debug(event, id=record.id, call_id=record.id, app=record.app_name, route=record.path, **told)


def _whose(record: Call) -> dict[str, Any]:
    """What each line of a call's output carries."""
    return {
        "user_log": True,
        "app_name": record.app_name,
        "path": record.path,
        "image": record.image,
        "call_id": record.id,
    }


def _text(error: Exception, log: bytes) -> str:
    """What the record says of an error; of a program that ended also its last words, and where the others are."""
    text = str(error) or type(error).__name__
    if isinstance(error, ContainerExited) and (words := last_line(log)):
        return f"{text}: {words}; see the call's log"
    return text


def _outcome(call: ActiveCall, error: Exception | None, *, started: bool) -> Outcome:
    """By which door a call leaves."""
    if error is None:
        return Outcome.COMPLETE
    if started:
        return Outcome.TIMED_OUT if isinstance(error, CallTimeout) else Outcome.FAILED
    if isinstance(error, NotStarted) or (isinstance(error, Draining) and call.take_over is not None):
        return Outcome.NOT_RUN
    return Outcome.BUSY if isinstance(error, ServerBusy) and not isinstance(error, Draining) else Outcome.FAILED
