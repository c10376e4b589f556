"""A hot container: one life, one task, many calls in sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from hearth.agent.call import ActiveCall
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.late import WINDOW_S
from hearth.agent.life import ContainerState, Observer, container_life
from hearth.agent.log import LineLog
from hearth.agent.meters import export_sample
from hearth.agent.resources import NOTHING, Amount, Reservation
from hearth.agent.sampling import watch_stats
from hearth.agent.settling import Settling
from hearth.agent.slots import Slot, SlotQueue
from hearth.drivers.base import Container, Exit, StatsSample
from hearth.protocols.base import is_surplus
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import Relation, span

#: For so long a program that has not answered yet may still be getting ready, seconds.
_READY_S: Final = 0.5
#: What is kept of the stderr of a container that has not served yet.
_OPENING_BYTES: Final = 16 * 1024

_log = get_logger(__name__)


class Owner(Protocol):
    """Who is told how a hot container fares: its launcher."""

    def container_started(self, hot: HotContainer) -> None:
        """It takes calls from now on."""

    def container_idle(self, hot: HotContainer) -> None:
        """Its slot is free and nobody took it."""

    def start_failed(self, hot: HotContainer, error: Exception) -> None:
        """It could not be made or started."""

    def container_done(self, hot: HotContainer) -> None:
        """It is gone and its resources are free."""


class HotContainer:
    """One container that serves calls one after another.

    Its task (:meth:`run`) makes and removes it; the streams belong to whoever holds its slot. Between calls its output
    is watched: anything but whitespace after the first call means that an answer was not one answer, and retires it.
    """

    def __init__(self, function: Function, host: Host, queue: SlotQueue, owner: Owner, observe: Observer) -> None:
        self.function = function
        self.served = 0
        self.idle_since = 0.0
        self._host = host
        self._queue = queue
        self._owner = owner
        self._life = container_life(host.meter(function, observe))
        self._reservation: Reservation | None = None
        self._container: Container | None = None
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._doomed: str | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stderr: Callable[[bytes], None] = lambda data: None
        self._between: LineLog | None = None
        self._opening = b""
        self._suspect = False
        self._late_until = 0.0
        self._settling = Settling(host.clock, host.lag) if host.driver.capabilities.stderr_lags else None
        self._samples: list[StatsSample] | None = None
        self._started_at = 0.0

    def __repr__(self) -> str:
        return f"<HotContainer {self._life.state.value} served={self.served}>"

    @property
    def state(self) -> ContainerState:
        """Where it stands."""
        return self._life.state

    def is_getting_ready(self, now: float) -> bool:
        """It was started a moment ago and has not answered yet: its program uses a processor to get ready."""
        is_new = self.served == 0 and now - self._started_at < _READY_S
        return is_new and self._life.state in (ContainerState.IDLE, ContainerState.BUSY)

    @property
    def key(self) -> bytes:
        """Its slot key."""
        return self.function.key

    def returns(self, *, to_sync: bool) -> Amount:
        """What its end adds to the room of sync (or async) requests."""
        return NOTHING if self._reservation is None else self._reservation.returns(to_sync=to_sync)

    @property
    def container(self) -> Container:
        """The container itself, once it was made."""
        if self._container is None:
            raise RuntimeError("the container is not started")
        return self._container

    # -- the task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live: from the wait for memory to its return. Only cancellation leaves it."""
        route = self.function.route
        try:
            with span("agent_run_hot", route.app_name, route.path, relation=Relation.FOLLOWS):
                self._reservation = await self._host.reserve(self.function)
                try:
                    await self._live()
                finally:
                    self._host.standby.gone(self)
                    self._reservation.release()
        except Exception as exc:  # the one boundary of this task: its waiters must hear of whatever went wrong
            self._owner.start_failed(self, exc)
        finally:
            self.gone()

    def gone(self) -> None:
        """Its task is over. Idempotent: a task that is cancelled before its first step never comes to its own end."""
        if self._life.state is not ContainerState.DONE:
            self._life.enter(ContainerState.DONE)
            self._owner.container_done(self)

    async def _live(self) -> None:
        container = await self._started()
        try:
            while self._suspect:
                self._suspect = False
                if await self._host.driver.is_stale(container):
                    return
            self._serve(container)
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(watch_stats(container, self._take_sample))
                reason = await self._over
                sampling.cancel()
            _log.debug("container retired", container_id=container.id, reason=reason, **self._fields())
        finally:
            self._queue.withdraw(self)
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            if self._settling is not None:
                self._settling.cancel()
            await self._host.remove(container)

    async def _started(self) -> Container:
        async with self._host.starts.passage():
            self._life.enter(ContainerState.START)
            container = await self._host.prepare(self.function, self.function.environment)
            try:
                await container.start()
            except BaseException:
                await self._host.remove(container)
                raise
        return container

    def _serve(self, container: Container) -> None:
        self._container = container
        fields = {"between_log": True, "container_id": container.id, **self._fields()}
        self._between = LineLog(lambda: fields)
        self._stderr = self._take_opening
        container.stderr.watch(self._take_stderr)
        container.on_exit(self._exited)
        self._started_at = self._host.clock.monotonic()
        self._become_idle()
        self._owner.container_started(self)

    # -- the lease ------------------------------------------------------------------------------

    def lease(self) -> Slot:
        """Idle becomes busy; the streams belong to the holder."""
        self._life.enter(ContainerState.BUSY)
        self._host.standby.busy(self)
        self.container.stdout.watch(None)
        return Slot(self)

    def attend(self, call: ActiveCall) -> None:
        """What it writes to stderr, and what it uses, belongs to this call now."""
        self._late_until = 0.0
        self._stderr = call.log.write
        self._samples = call.samples

    @property
    def opening(self) -> bytes:
        """The end of what it wrote to stderr before its first call; empty once it has served one."""
        return self._opening

    def give_back(self, *, clean: bool) -> None:
        """The lease ends: idle again, at the latest when its stderr is quiet, or retired."""
        self._samples = None
        if self._settling is not None:
            self._late_until = self._host.clock.monotonic() + WINDOW_S
        elif self._between is not None:
            self._stderr = self._between.write
        if not clean or self._doomed is not None:
            self._end(self._doom("exchange was not clean"))
        else:
            self.served += 1
            self._opening = b""
            if self._settling is None:
                self._become_idle()
            else:
                self._settling.begin(self.container.stderr.unseen, self._settled)

    def _settled(self) -> None:
        if self._doomed is None:
            self._become_idle()
        else:
            self._end(self._doomed)

    def retire(self, reason: str) -> None:
        """Take no further call; the container's task removes it, after the call that runs. Idempotent."""
        if self._life.state is ContainerState.DONE:  # its streams may end a moment after itself
            return
        self._queue.withdraw(self)
        self._doom(reason)
        if self._life.state is not ContainerState.BUSY:
            self._end(reason)

    def suspect(self) -> None:
        """It is being made, of an image that may just have been built anew: it looks before it serves."""
        self._suspect = True

    def _doom(self, reason: str) -> str:
        """It takes no further call; the first reason counts."""
        self._doomed = self._doomed or reason
        self._host.standby.leaving(self)
        return self._doomed

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    def evict(self) -> bool:
        """Retire it if it is idle; false if it is not."""
        if self._life.state is not ContainerState.IDLE or self._over.done():
            return False
        self.retire("evicted")
        return True

    @property
    def is_leaving(self) -> bool:
        """It will take no further call, and still holds its memory."""
        return self._doomed is not None and self._life.state is not ContainerState.DONE

    def _become_idle(self) -> None:
        self._life.enter(ContainerState.IDLE)
        self.idle_since = self._host.clock.monotonic()
        self.container.stdout.watch(self._take_idle_stdout)
        if self._over.done():  # what was watched retired it
            return
        if self._idle_timer is None:
            self._arm(self.idle_since)
        self._queue.offer(self)
        if self._life.state is ContainerState.IDLE:  # nobody has waited for it
            self._host.standby.idle(self)
            self._owner.container_idle(self)

    # -- what happens to it ------------------------------------------------------------------------------

    def _arm(self, since: float) -> None:
        """One timer per container, not per call: it looks how long the container has been idle when it fires."""
        self._idle_timer = self._host.clock.call_at(since + self.function.route.idle_timeout, self._look_at_idleness)

    def _look_at_idleness(self) -> None:
        now = self._host.clock.monotonic()
        if self._life.state is not ContainerState.IDLE:
            self._arm(now)
        elif now - self.idle_since >= self.function.route.idle_timeout - 0.001:
            self.retire("idle timeout")
        else:
            self._arm(self.idle_since)

    def _exited(self, ended: Exit) -> None:
        if self._life.state is ContainerState.IDLE and not self._over.done():
            _log.info(
                "container exited while idle",
                container_id=self.container.id,
                exit_code=ended.code,
                oom=ended.oom,
                **self._fields(),
            )
            self.retire("exited")

    def _take_sample(self, sample: StatsSample) -> None:
        export_sample(sample, self.function.route)
        if self._samples is not None:
            self._samples.append(sample)

    def _take_stderr(self, data: bytes) -> None:
        if not data:
            return
        if self._settling is not None:
            self._settling.heard()
        if self._late_until and self._host.clock.monotonic() > self._late_until and self._between is not None:
            self._late_until = 0.0
            self._stderr = self._between.write
        self._stderr(data)

    def _take_opening(self, data: bytes) -> None:
        if self._between is not None:
            self._between.write(data)
        self._opening = (self._opening + data)[-_OPENING_BYTES:]

    def _take_idle_stdout(self, data: bytes) -> None:
        if not data:
            self.retire("output ended")
            return
        if self._between is not None:
            self._between.write(data)
        if self.served and is_surplus(data):
            self.retire("output between calls")

    def _fields(self) -> dict[str, str]:
        route = self.function.route
        return {"app_name": route.app_name, "path": route.path, "image": route.image}
