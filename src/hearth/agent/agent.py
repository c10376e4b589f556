"""From a request to a finished call (agent specification 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from hearth.access.base import DataAccess, EndedCall
from hearth.agent import eviction
from hearth.agent.call import (
    ActiveCall,
    ClientGone,
    LogSink,
    NotStarted,
    RequestBody,
    ResponseSink,
    StoredBody,
    deadline_text,
)
from hearth.agent.cold import ColdContainer, run_cold
from hearth.agent.exchange import ContainerGone, Exchange
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.launcher import HotLauncher
from hearth.agent.life import ContainerCounts, ContainerState
from hearth.agent.log import DEFAULT_LIMIT_BYTES, CallLog, LineLog
from hearth.agent.recorder import Recorder
from hearth.agent.resources import NOTHING, Amount, NeverFits, ResourceTracker
from hearth.agent.stats import CallStats
from hearth.clock import Clock
from hearth.drivers.base import Driver, ImageError, ImageNotFound, ImageRefused, StartFailed
from hearth.models.app import App
from hearth.models.call import ERROR, SUCCESS, TIMEOUT, Call
from hearth.models.errors import (
    DEFAULT_MAX_MEMORY_MIB,
    CallTimeout,
    ContainerStartFailed,
    ImagePullFailed,
    ServerBusy,
)
from hearth.models.route import HeaderMap, Route

#: How often functions that nobody calls any more are looked for, seconds.
_SWEEP_S: Final = 60.0


class Agent:
    """Runs calls in containers. An async context manager: leaving it drains and removes everything.

    Args:
        driver: Opened already; closed by whoever opened it.
        access: Definitions and records.
        total: Memory and CPU that containers may use together.
        next_id: Makes ids of calls and containers.
        max_starts: Containers that may be in the making at once.
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
        max_memory_mib: int = DEFAULT_MAX_MEMORY_MIB,
        log_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self.stats = CallStats()
        self.containers = ContainerCounts()
        self.resources = ResourceTracker(total, self._relieve, self._room_changed)
        self.on_room: Callable[[], None] = lambda: None
        self._access = access
        self._clock = clock
        self._next_id = next_id
        self._max_memory_mib = max_memory_mib
        self._log_limit_bytes = log_limit_bytes
        self._host = Host(
            driver=driver,
            resources=self.resources,
            clock=clock,
            starts=asyncio.Semaphore(max_starts),
            next_id=next_id,
            observe=self.containers.observe,
        )
        self._recorder = Recorder(access)
        self._functions: dict[tuple[str, str], Function] = {}
        self._hot: dict[bytes, HotLauncher] = {}
        self._cold: set[ColdContainer] = set()
        self._closing = False
        self._in_flight = 0
        self._drained = asyncio.Event()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._group = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Agent in_flight={self._in_flight} {self.containers!r} {self.resources!r}>"

    async def __aenter__(self) -> Agent:
        await self._group.__aenter__()
        self._sweep_timer = self._clock.call_at(self._clock.monotonic() + _SWEEP_S, self._sweep)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.drain()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        await self._drained.wait()
        await self._recorder.close()
        await self._group.__aexit__(None, None, None)

    def drain(self) -> None:
        """Take no new call: what waits is told to come back later, what runs runs on. Idempotent."""
        if self._closing:
            return
        self._closing = True
        for launcher in self._hot.values():
            launcher.close(ServerBusy())
        for cold in list(self._cold):
            cold.fail(ServerBusy())
        if not self._in_flight:
            self._drained.set()

    # -- a call ------------------------------------------------------------------------------

    def function(self, app: App, route: Route) -> Function:
        """A route made ready to be called; made once per version of the route.

        Raises:
            ApiError: The stored route is not valid.
        """
        key = (app.name, route.path)
        known = self._functions.get(key)
        if known is None or known.app is not app or known.route is not route:
            known = self._functions[key] = Function(app, route, self._max_memory_mib)
        return known

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
        return self._active(record, function, body, sink, self._log_of(record))

    def accepted_call(self, function: Function, record: Call) -> ActiveCall:
        """An accepted async call; its deadlines are fixed now: the time in the queue does not count."""
        log = self._log_of(record)
        sink = LogSink(log, function.protocol, self._log_limit_bytes)
        return self._active(record, function, StoredBody(record.payload), sink, log)

    def accepted_function(self, record: Call) -> Function:
        """What an accepted call runs.

        Raises:
            ApiError: Its fields are not valid.
        """
        return Function.of_call(record, self._max_memory_mib)

    async def record_failure(self, record: Call, error: Exception) -> bool:
        """Store that an accepted call can never run. Whether it was stored."""
        return await self._recorder.record(self._ended(record, b"", error))

    def _log_of(self, record: Call) -> CallLog:
        lines = LineLog(
            {
                "user_log": True,
                "app_name": record.app_name,
                "path": record.path,
                "image": record.image,
                "call_id": record.id,
            }
        )
        return CallLog(lines, self._log_limit_bytes)

    def _active(
        self, record: Call, function: Function, body: RequestBody, sink: ResponseSink, log: CallLog
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
            exec_deadline=begun + timeout,
            deadline_text=deadline_text(self._clock.now(), timeout),
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
        self._in_flight += 1
        try:
            await self._submit(call)
        finally:
            self._in_flight -= 1
            if self._closing and not self._in_flight:
                self._drained.set()

    async def _submit(self, call: ActiveCall) -> None:
        path = call.record.path
        self.stats.queued(path)
        error: Exception | None = None
        try:
            async with asyncio.timeout_at(call.exec_deadline):
                await (self._execute_hot(call) if call.function.protocol.hot else self._execute_cold(call))
        except asyncio.CancelledError:
            self._count(call, ClientGone())
            if call.started:
                self._recorder.add(self._ended(call.record, call.log.take(), ClientGone()))
            raise
        except Exception as exc:  # every call ends exactly once, whatever went wrong
            error = self._explain(call, exc)
        self._count(call, error)
        if call.started or not isinstance(error, ServerBusy | ClientGone | NotStarted):
            call.stored = await self._recorder.record(self._ended(call.record, call.log.take(), error))
        if error is not None:
            raise error

    async def _execute_hot(self, call: ActiveCall) -> None:
        launcher = self._launcher(call.function)
        while True:
            slot = launcher.queue.acquire_nowait()
            if slot is None:
                async with asyncio.timeout_at(call.slot_deadline):
                    slot = await launcher.acquire()
            exchange = Exchange(call, slot.container, fresh=slot.fresh)
            try:
                await self._take_over(call)
                self._start(call)
                slot.begin(call.log)
                await exchange.run()
                return
            except ContainerGone:
                call.wait_again()
                self.stats.waits_again(call.record.path)
            finally:
                slot.release(clean=exchange.clean)

    async def _execute_cold(self, call: ActiveCall) -> None:
        cold = ColdContainer(call, self._host)
        self._cold.add(cold)
        task = self._group.create_task(cold.run())
        try:
            async with asyncio.timeout_at(call.slot_deadline):
                container = await cold.acquire()
            await self._take_over(call)
            cold.begin()
            self._start(call)
            await run_cold(call, container)
        finally:
            self._cold.discard(cold)
            cold.release()
            if cold.waits:
                task.cancel()  # its call gave up: nobody wants what is being made

    @staticmethod
    async def _take_over(call: ActiveCall) -> None:
        if call.take_over is not None:
            take_over, call.take_over = call.take_over, None  # also if it needs a second container
            await take_over()

    def _start(self, call: ActiveCall) -> None:
        call.start(self._clock.now(), self._clock.monotonic())
        self.stats.started(call.record.path)

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

    def _count(self, call: ActiveCall, error: Exception | None) -> None:
        if not call.started:
            call.waited_s = self._clock.monotonic() - call.begun
        self.stats.ended(
            call.record.path,
            started=call.started,
            failed=error is not None,
            busy=isinstance(error, ServerBusy | NotStarted) and not call.started,
        )

    def _ended(self, record: Call, log: bytes, error: Exception | None) -> EndedCall:
        record.completed_at = self._clock.now()
        if error is None:
            record.status = SUCCESS
        elif isinstance(error, CallTimeout):
            record.status = TIMEOUT
        else:
            record.status = ERROR
            record.error = str(error) or type(error).__name__
        return EndedCall(record, log)

    # -- containers ------------------------------------------------------------------------------

    def _launcher(self, function: Function) -> HotLauncher:
        launcher = self._hot.get(function.key)
        if launcher is None:
            launcher = self._hot[function.key] = HotLauncher(function, self._host, self._group, self._relieve)
        return launcher

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
        lack, key = shortage
        containers = [hot for launcher in self._hot.values() for hot in launcher.containers]
        idle = [hot for hot in containers if hot.state is ContainerState.IDLE and not hot.is_leaving]
        for hot in eviction.choose(idle, [hot for hot in containers if hot.is_leaving], lack, key):
            hot.evict()

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, launcher in self._hot.items() if launcher.is_forgettable(now)]:
            del self._hot[key]
        live = {launcher.function.key for launcher in self._hot.values()}
        for name in [name for name, function in self._functions.items() if function.key not in live]:
            del self._functions[name]
        self._sweep_timer = self._clock.call_at(now + _SWEEP_S, self._sweep)
