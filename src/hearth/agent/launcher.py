"""Start and withdraw the hot containers of one function, as the scaling policy decides (agent specification 5)."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from hearth.agent.call import Draining
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.hot import HotContainer, HotSlot
from hearth.agent.scaling.base import Snapshot
from hearth.agent.scaling.demand import WaitingTime
from hearth.agent.scaling.patience import allowed_wait_s, hurry_at
from hearth.agent.scaling.useful_concurrency import UsefulConcurrency
from hearth.agent.shared import SharedContainer
from hearth.agent.slots import SlotQueue
from hearth.agent.start_failures import StartFailures, is_permanent
from hearth.agent.states import ContainerCounts, ContainerState
from hearth.drivers.base import DriverError
from hearth.telemetry.logs import get_logger, log_levels
from hearth.telemetry.tracing import Relation

#: Seconds without any activity after which a function is forgotten, or twice its idle timeout if that is longer.
_FORGET_S: Final = 3600.0
#: Seconds by which a timer of the loop may ring early.
_ROUNDING_S: Final = 0.001

_log = get_logger(__name__)

#: Starts a task that somebody owns.
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Relief(Protocol):
    """Makes room when memory is short."""

    def relieve(self) -> None:
        """Let idle containers give way to requests that wait for memory."""

    def make_room(self, function: Function) -> None:
        """Let idle containers give way to one of a function that is to be kept ready."""


class LauncherState(enum.Enum):
    """The life of a launcher: OPEN and OBSOLETE alternate, CLOSED is final."""

    OPEN = "open"
    OBSOLETE = "obsolete"  # the function has changed: containers end when no call waits for them
    CLOSED = "closed"


class HotLauncher:
    """The slots of one function, and the containers behind them.

    Attributes:
        counts: How many containers are in each state.
        attends_idle: :meth:`container_idle` is to be called. False while it would do nothing.

    Args:
        spawn: Starts a container's task, and owns it.
        relief: Makes room: called when a container is idle, as others may wait for its memory.
    """

    def __init__(self, function: Function, host: Host, spawn: Spawn, relief: Relief) -> None:
        self.function = function
        self.queue: SlotQueue[HotSlot] = SlotQueue()
        self.containers: dict[HotContainer, asyncio.Task[None]] = {}
        self._host = host
        self._concurrency = function.spec.concurrency
        self._spawn = spawn
        self._relief = relief
        self._state = LauncherState.OPEN
        self.counts = ContainerCounts()
        self.attends_idle = True
        self.failures = StartFailures()
        self._unused = StartFailures()
        self._minimum = 0
        self._waiting = WaitingTime()
        self._learned = UsefulConcurrency()
        self._getting_ready: list[HotContainer] = []
        self._timer: asyncio.TimerHandle | None = None
        self._allowed_wait_s = allowed_wait_s(function.spec.timeout_s)
        self._waits_end: asyncio.TimerHandle | None = None
        self._looks_soon = False
        self._quiet_since = host.clock.monotonic()
        self._logged: dict[str, int] = {}
        span = host.telemetry.tracing.span("agent_hot_launcher", *function.ref.labels, relation=Relation.FOLLOWS)
        self._span = span.begin()

    def __repr__(self) -> str:
        return f"<HotLauncher {self.function!r} {self.queue!r} {self.counts.snapshot()}>"

    async def acquire(self, since: float) -> HotSlot:
        """Take a free slot, or wait for the next one.

        Args:
            since: When the call began, loop time.

        Raises:
            HearthError: A start failed on behalf of this call, or the function cannot start at all.
            TimeoutError: No slot came in the time that a call may wait, if its timeout includes that.
        """
        if (hot := self.queue.acquire_nowait()) is not None:
            return hot
        if self._state is LauncherState.CLOSED:
            raise Draining  # a call whose container went away before it had it: no other one starts
        self.failures.check(self._host.clock.monotonic(), has_containers=bool(self.containers))
        self._look_soon()
        if self._waits_end is None and not self.function.times_run:
            self._waits_end = self._host.clock.call_at(since + self._allowed_wait_s, self._end_waits)
        try:
            return await self.queue.acquire(since)
        finally:
            counts = self.counts
            reserving = counts[ContainerState.WAIT]
            starting = (reserving + counts[ContainerState.START]) * self._concurrency
            if reserving and starting > len(self.queue.waiters):
                self._look_soon()  # the container for this call may not be needed any more

    def close(self, error: Exception) -> None:
        """Take no more: waiting calls fail with ``error``, idle containers end, busy ones end after their call."""
        if self._state is not LauncherState.CLOSED:
            self._span.end()
        self._state = LauncherState.CLOSED
        self.queue.fail_all(error)
        for hot, task in list(self.containers.items()):
            if hot.state is ContainerState.WAIT or hot.state is ContainerState.START:
                task.cancel()
            else:
                hot.retire("shutdown")
        for timer in (self._timer, self._waits_end):
            if timer is not None:
                timer.cancel()

    def drain(self) -> None:
        """Let idle containers end now, busy ones when no call waits for them: the function has changed, or is gone."""
        if self._state is LauncherState.OPEN:
            self._state = LauncherState.OBSOLETE
            self.attends_idle = True
        for hot in list(self.containers):
            if hot.state is ContainerState.IDLE:
                hot.retire("function changed")

    def revive(self) -> None:
        """Keep idle containers again: the function is the current one."""
        if self._state is LauncherState.OBSOLETE:
            self._state = LauncherState.OPEN

    def keep(self, minimum: int) -> None:
        """Keep so many containers ready from now on, whether calls wait or not."""
        if minimum != self._minimum:
            self._minimum = minimum
            self._look_soon()

    @property
    def lacks(self) -> int:
        """Return how many containers it has less than it keeps ready."""
        return max(0, self._minimum - self._live())

    @property
    def is_above_minimum(self) -> bool:
        """True if it has more containers than it keeps ready."""
        return not self._minimum or self._live() > self._minimum

    @property
    def kept_idle(self) -> int:
        """Return how many idle containers are kept ready: those that busy ones do not make up for."""
        if not self._minimum:
            return 0
        idle = self.counts[ContainerState.IDLE]
        return min(idle, max(0, self._minimum - self._live() + idle))

    def _live(self) -> int:
        """Return the number of containers that have started and take further calls."""
        started = self.counts[ContainerState.IDLE] + self.counts[ContainerState.BUSY]
        return started - self._leaving()

    def _leaving(self) -> int:
        return sum(hot.is_leaving for hot in self.containers)

    async def retire_stale(self) -> None:
        """End containers whose image was rebuilt under the same name: idle ones now, busy ones after their call.

        Containers that are starting check it themselves afterwards.
        """
        for hot in self.containers:
            if hot.state is ContainerState.START:
                hot.suspect()
        for hot in [hot for hot in self.containers if hot.state in (ContainerState.IDLE, ContainerState.BUSY)]:
            if await self._host.driver.is_stale(hot.container):
                hot.retire("image rebuilt")

    def is_forgettable(self, now: float) -> bool:
        """Return True if the function may be forgotten: nothing has happened here for a long time."""
        if self.containers or self.queue.waiters or self._minimum:
            self._quiet_since = now
            return False
        return now - self._quiet_since > max(_FORGET_S, 2 * self.function.spec.idle_timeout_s)

    # -- events of containers ------------------------------------------------------------------------------

    def container_started(self, hot: HotContainer) -> None:
        """Count it: it takes calls from now on, but its program may still be getting ready."""
        self._getting_ready.append(hot)
        self.function.cap.shrink()
        self._look_soon()

    def container_idle(self, hot: HotContainer) -> None:
        """Offer its memory: its slot is free and no call took it."""
        self.failures.in_a_row = 0
        if hot.served:
            self._unused.in_a_row = 0
        if self._waiting.since < math.inf:
            self._waiting.note(hot.idle_since, waiting=False)
        if self._state is LauncherState.OBSOLETE:
            hot.retire("function changed")
        # What an idle container of an async function holds is room for async calls.
        self.attends_idle = self._state is LauncherState.OBSOLETE or not self.function.spec.is_sync
        self._relief.relieve()

    def container_leaving(self, hot: HotContainer) -> None:
        """Look again: the container takes no further call, and a waiting call may need another one."""
        if self.queue.waiters or self._minimum:
            self._look_soon()

    def container_unused(self, hot: HotContainer) -> None:
        """Delay those that are kept ready: the next one may end before its first call, too."""
        self._unused.note(DriverError("ended before its first call"), self._host.clock.monotonic())
        self.attends_idle = True

    def start_failed(self, hot: HotContainer, error: Exception) -> None:
        """Fail the calls it was meant for, or all that wait if no other start can end better."""
        _log.warning("container did not start", error=str(error), **self.function.log_fields)
        self.failures.note(error, self._host.clock.monotonic())
        self.attends_idle = True
        serving = self.counts[ContainerState.IDLE] + self.counts[ContainerState.BUSY]
        if is_permanent(error) and not serving:
            self.queue.fail_all(error)
            self._withdraw(len(self.containers))
        else:
            for _ in range(self._concurrency):
                self.queue.fail_one(error)

    def container_done(self, hot: HotContainer) -> None:
        """Forget it: it is gone."""
        self.containers.pop(hot, None)
        self._quiet_since = self._host.clock.monotonic()
        self._look_soon()

    # -- the decision and its effects ------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Decide in the next tick, when the call that asks counts as waiting: once for all that ask in this one."""
        if self._state is not LauncherState.CLOSED and not self._looks_soon:
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _end_waits(self) -> None:
        """End the waits that have lasted too long: one timer for all calls. It may ring early, and is set again."""
        clock = self._host.clock
        self.queue.fail_older(clock.monotonic() - self._allowed_wait_s + _ROUNDING_S)
        self._waits_end = None
        if self.queue.waiters:
            due = self.queue.waiting_since + self._allowed_wait_s
            self._waits_end = clock.call_at(due, self._end_waits)

    def _look(self) -> None:
        self._looks_soon = False
        self.evaluate()

    def _look_again(self) -> None:
        self._timer = None
        self.evaluate()

    def evaluate(self) -> None:
        """Start and withdraw containers as the scaling policy decides from the present state."""
        if self._state is LauncherState.CLOSED:
            return
        now = self._host.clock.monotonic()
        self._waiting.note(now, waiting=bool(self.queue.waiters))
        if self.queue.waiters:
            self.attends_idle = True
            self.function.cap.relieve()
            if self._host.standby.is_short:
                self._relief.relieve()
        if log_levels.debug:
            self._log_counts()
        decision = self._host.scaling.decide(self.snapshot(now))
        self._learned = decision.learned
        for _ in range(decision.starts):
            self._start_one()
        if decision.withdrawals:
            self._withdraw(decision.withdrawals)
        if self._minimum and self.lacks > self.counts[ContainerState.WAIT] + self.counts[ContainerState.START]:
            self._relief.make_room(self.function)
        if decision.look_again_at is not None:
            self._arm(decision.look_again_at)

    def snapshot(self, now: float) -> Snapshot:
        """Return what the scaling policy decides from."""
        counts, queue, host, function = self.counts, self.queue, self._host, self.function
        if self._getting_ready:
            self._getting_ready = [hot for hot in self._getting_ready if hot.is_getting_ready(now)]
        started = counts[ContainerState.IDLE] + counts[ContainerState.BUSY]
        idle = len(queue.free) if self._concurrency == 1 else counts[ContainerState.IDLE]
        return Snapshot(
            now=now,
            timeout_s=function.spec.timeout_s,
            max_starts=host.starts.count,
            concurrency=self._concurrency,
            waiting=len(queue.waiters),
            oldest_since=queue.waiting_since,
            waiting_since=self._waiting.since,
            waited_s=self._waiting.total_s,
            turnover=queue.turnover,
            idle=idle,
            busy=started - idle,
            announced=len(queue.announced),
            getting_ready=len(self._getting_ready),
            starting=counts[ContainerState.START],
            reserving=counts[ContainerState.WAIT],
            fits=host.resources.fits(function.spec.amount, function.share, is_sync=function.spec.is_sync),
            cpu_busy=host.are_busy(),
            not_before=self.failures.not_before,
            least=self._minimum,
            most=function.cap.most,
            leaving=self._leaving() if self._minimum else 0,
            spare=self._spare() if self._minimum else 0,
            refill_at=self._unused.not_before,
            learned=self._learned,
        )

    def _spare(self) -> int:
        """Return how many containers may start that no call waits for: calls of all functions go first."""
        host, function = self._host, self.function
        spec = function.spec
        if host.resources.waiting:
            return 0
        fits = host.resources.fits(spec.amount, function.share, is_sync=spec.is_sync)
        if host.resources.borrows:
            fits = max(fits, 1)  # what is lacking is lent when it is asked for
        return min(fits, host.starts.spare)

    def _arm(self, again: float) -> None:
        """Keep one timer, not one for each call that comes to wait: it fires early at worst, and then looks again."""
        if self._timer is not None:
            if self._timer.when() <= again:
                return
            self._timer.cancel()
        self._timer = self._host.clock.call_at(again, self._look_again)

    def _start_one(self) -> None:
        kind = HotContainer if self._concurrency == 1 else SharedContainer
        hot = kind(
            self.function,
            self._host,
            self.queue,
            self,
            self.counts,
            hurry_at=hurry_at(self.queue.waiting_since, self.function.spec.timeout_s),
        )
        self._host.starts.announce(hot)
        task = self.containers[hot] = self._spawn(hot.run())
        task.add_done_callback(lambda _: hot.gone())

    def _withdraw(self, spare: int) -> None:
        """Give up starts that no call needs any more and that still wait, newest first."""
        for hot, task in reversed(list(self.containers.items())):
            if spare <= 0:
                return
            if hot.state is ContainerState.WAIT and not task.cancelling():
                task.cancel()
                spare -= 1

    def _log_counts(self) -> None:
        counts = {"waiting_calls": len(self.queue.waiters), **self.counts.snapshot()}
        if counts != self._logged:
            self._logged = counts
            ref = self.function.ref
            _log.debug("launcher state", app_name=ref.app_name, path=ref.name, **counts)
