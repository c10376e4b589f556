"""Decides when one more hot container of a function is worth it, and starts it (agent specification 5)."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from hearth.agent.call import Draining
from hearth.agent.concurrency import LOOK_S, UsefulConcurrency, WaitingTime
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.hot import HotContainer
from hearth.agent.life import ContainerCounts, ContainerState
from hearth.agent.slots import Slot, SlotQueue
from hearth.drivers.base import ImageNotFound, ImageRefused, StartFailed
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import Relation, span

#: While a call waits the launcher looks again at least this often, seconds.
_LOOK_AGAIN_S: Final = LOOK_S
_FIRST_BACK_OFF_S: Final = 0.025
_MAX_BACK_OFF_S: Final = 3.2
#: For this long after a failure that no retry can mend, new calls hear of it at once instead of waiting.
_FAIL_FAST_S: Final = 1.0
#: So many containers of a function may wait for memory or their turn, for each that may be started at once: the others
#: are asked for when these have come. A burst of calls may be over before, and memory is granted in order of arrival.
_AHEAD: Final = 4
#: What was found of a function's containers holds on machines that have time, too, until its calls have waited for so
#: long: what a burst does to the processors does not show at once.
_CALM_S: Final = 0.15
#: A function without any activity for this long is forgotten (or twice its idle timeout, if that is longer).
_FORGET_S: Final = 3600.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What the decision looks at.

    Attributes:
        room: Where processors have no time left: how many more containers are of use, those in the making included;
            None if as many as wanted.
    """

    waiting_calls: int
    idle_containers: int
    starting_containers: int
    reserving_containers: int
    room: int | None = None

    @property
    def effective_waiters(self) -> int:
        """Calls that no container there is will take soon, and that one more container is of use for."""
        waiters = max(0, self.waiting_calls - self.idle_containers)
        return waiters if self.room is None else min(waiters, self.room)


def containers_wanted(now: Snapshot) -> int:
    """How many more containers should be started: as many as waiting calls that no container is on its way to."""
    effective_starters = now.starting_containers + now.reserving_containers
    return max(0, now.effective_waiters - effective_starters)


def containers_spare(now: Snapshot) -> int:
    """How many containers that still wait, for memory or to be started, are wanted by nobody any more."""
    starters = now.starting_containers + now.reserving_containers
    return min(now.reserving_containers, max(0, starters - now.effective_waiters))


def back_off_s(failures: int) -> float:
    """Seconds to leave between starts after so many failures in a row, before jitter."""
    return min(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S * 2.0 ** (failures - 1)) if failures else 0.0


def is_permanent(error: Exception) -> bool:
    """Whether the image is at fault, so that another start would fail in the same way."""
    return isinstance(error, ImageNotFound | ImageRefused) or (isinstance(error, StartFailed) and error.image_fault)


#: Starts a task that somebody owns.
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Relief(Protocol):
    """Who makes room when memory is short."""

    def __call__(self) -> None:
        """Let idle containers give way to requests that wait for memory."""


class HotLauncher:
    """The slots of one function, and the containers behind them.

    Args:
        spawn: Starts a container's task, and owns it.
        relieve: Called when a container turned idle: somebody else may wait for its memory.
    """

    def __init__(self, function: Function, host: Host, spawn: Spawn, relieve: Relief) -> None:
        self.function = function
        self.queue = SlotQueue()
        self.containers: dict[HotContainer, asyncio.Task[None]] = {}
        self._host = host
        self._spawn = spawn
        self._relieve = relieve
        self._counts = ContainerCounts()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_soon = False
        self._failures = 0
        self._not_before = 0.0
        self._last_fault: tuple[float, Exception] | None = None
        self._quiet_since = host.clock.monotonic()
        self._waiting = WaitingTime()
        self._useful = UsefulConcurrency()
        self._new: list[HotContainer] = []
        self._closed = False
        self._obsolete = False
        route = function.route
        self._span = span("agent_hot_launcher", route.app_name, route.path, relation=Relation.FOLLOWS).begin()

    def __repr__(self) -> str:
        return f"<HotLauncher {self.function!r} {self.queue!r} {self._counts.snapshot()}>"

    async def acquire(self) -> Slot:
        """A slot: a free one, or the next that is.

        Raises:
            HearthError: A start failed on behalf of this call, or the function cannot start at all.
        """
        if (slot := self.queue.acquire_nowait()) is not None:
            return slot
        if self._closed:
            raise Draining  # a call whose container went away before it had it: nobody starts another one
        self._fail_fast()
        self._look_soon()
        try:
            return await self.queue.acquire()
        finally:
            if self._counts[ContainerState.WAIT] and self._starters > self.queue.waiting:
                self._look_soon()  # what was to be made for this call may not be needed any more

    def close(self, error: Exception) -> None:
        """Take no more: waiting calls fail with ``error``, idle containers end, busy ones end after their call."""
        if not self._closed:
            self._span.end()
        self._closed = True
        self.queue.fail_all(error)
        for hot, task in list(self.containers.items()):
            if hot.state is ContainerState.WAIT or hot.state is ContainerState.START:
                task.cancel()
            else:
                hot.retire("shutdown")
        if self._timer is not None:
            self._timer.cancel()

    def drain(self) -> None:
        """The function has changed, or is no more: idle containers end now, busy ones when nobody waits for them."""
        self._obsolete = True
        for hot in list(self.containers):
            if hot.state is ContainerState.IDLE:
                hot.retire("function changed")

    async def retire_stale(self) -> None:
        """End containers whose image was built anew under the same name: idle ones now, busy ones after their call.

        Those that are being made look at it themselves, once they are.
        """
        for hot in self.containers:
            if hot.state is ContainerState.START:
                hot.suspect()
        for hot in [hot for hot in self.containers if hot.state in (ContainerState.IDLE, ContainerState.BUSY)]:
            if await self._host.driver.is_stale(hot.container):
                hot.retire("image built anew")

    def revive(self) -> None:
        """The function is the current one again."""
        self._obsolete = False

    def is_forgettable(self, now: float) -> bool:
        """Whether nothing has happened here for so long that the function may be forgotten."""
        if self.containers or self.queue.waiting:
            self._quiet_since = now
            return False
        return now - self._quiet_since > max(_FORGET_S, 2 * self.function.route.idle_timeout)

    # -- what containers tell ------------------------------------------------------------------------------

    def container_started(self, hot: HotContainer) -> None:
        """It takes calls from now on; the program in it may still be getting ready."""
        self._new.append(hot)
        self._look_soon()

    def container_idle(self, hot: HotContainer) -> None:
        """Its slot is free and nobody took it."""
        self._failures = 0
        self._waiting.note(hot.idle_since, waiting=False)
        if self._obsolete:
            hot.retire("function changed")
        self._relieve()

    def start_failed(self, hot: HotContainer, error: Exception) -> None:
        """Tell the call it was meant for; all that wait, where no other start can end better."""
        route = self.function.route
        _log.warning(
            "container did not start", app_name=route.app_name, path=route.path, image=route.image, error=str(error)
        )
        self._failures += 1
        now = self._host.clock.monotonic()
        # Jitter in [0.5, 1): many functions that failed together do not come back together.
        self._not_before = now + back_off_s(self._failures) * (0.5 + random.random() / 2)
        if not is_permanent(error):
            self.queue.fail_one(error)
            return
        self._last_fault = (now, error)
        if not (self._counts[ContainerState.IDLE] or self._counts[ContainerState.BUSY]):
            self.queue.fail_all(error)
            self._withdraw(len(self.containers))
        else:
            self.queue.fail_one(error)

    def container_done(self, hot: HotContainer) -> None:
        """It is gone."""
        self.containers.pop(hot, None)
        self._quiet_since = self._host.clock.monotonic()
        self._look_soon()

    # -- the decision ------------------------------------------------------------------------------

    @property
    def _starters(self) -> int:
        return self._counts[ContainerState.START] + self._counts[ContainerState.WAIT]

    def _look_soon(self) -> None:
        """Decide in the next tick, when the call that asks is counted as waiting: once for all that ask in this one."""
        if not self._closed and not self._looks_soon:
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looks_soon = False
        self._evaluate()

    def _look_again(self) -> None:
        self._timer = None
        self._evaluate()

    def _evaluate(self) -> None:
        if self._closed:
            return
        now = self._host.clock.monotonic()
        self._waiting.note(now, waiting=self.queue.waiting > 0)
        snapshot = self._snapshot()
        if now >= self._not_before:
            most = _AHEAD * self._host.starts.places - snapshot.reserving_containers
            for _ in range(min(most, containers_wanted(snapshot))):
                self._start_one()
        if spare := containers_spare(snapshot):
            self._withdraw(spare)
        if self.queue.waiting:
            self._arm(now)

    def _arm(self, now: float) -> None:
        """One timer, not one for each call that comes to wait: it fires early at worst, and then looks again."""
        again = now + _LOOK_AGAIN_S
        if now < self._not_before < again:
            again = self._not_before
        if self._timer is not None:
            if self._timer.when() <= again:
                return
            self._timer.cancel()
        self._timer = self._host.clock.call_at(again, self._look_again)

    def _snapshot(self) -> Snapshot:
        counts, queue = self._counts, self.queue
        return Snapshot(
            waiting_calls=queue.waiting,
            idle_containers=queue.idle,
            starting_containers=counts[ContainerState.START],
            reserving_containers=counts[ContainerState.WAIT],
            room=self._room(),
        )

    def _room(self) -> int | None:
        """How many more containers there is use for; at most as many get ready at once as are ready."""
        counts, now, busy = self._counts, self._host.clock.monotonic(), self._host.are_busy()
        if not busy and (self._useful.found is None or self._waiting.lasted_s(now) > _CALM_S):
            return None
        self._new = [hot for hot in self._new if hot.is_getting_ready(now)]
        making = counts[ContainerState.START] + len(self._new)
        ready = counts[ContainerState.IDLE] + counts[ContainerState.BUSY] - len(self._new)
        limit = self._useful.found
        if busy:
            limit = self._useful.limit(self._waiting.total_s, self.queue.turnover, serving=ready, starting=making)
        room = max(self._host.starts.places, ready)
        if limit is not None:
            room = min(room, max(limit - ready, 0 if ready or making else 1))
        return max(0, room - len(self._new))

    def _start_one(self) -> None:
        hot = HotContainer(self.function, self._host, self.queue, self, self._observe)
        task = self.containers[hot] = self._spawn(hot.run())
        task.add_done_callback(lambda _: hot.gone())

    def _withdraw(self, spare: int) -> None:
        """Give up waits for memory that no call needs any more, newest first."""
        for hot, task in reversed(list(self.containers.items())):
            if spare <= 0:
                return
            if hot.state is ContainerState.WAIT and not task.cancelling():
                task.cancel()
                spare -= 1

    def _observe(self, left: ContainerState | None, entered: ContainerState) -> None:
        self._counts.observe(left, entered)
        self._host.observe(left, entered)

    def _fail_fast(self) -> None:
        if self._last_fault is None:
            return
        when, error = self._last_fault
        if self.containers or self._host.clock.monotonic() - when > _FAIL_FAST_S:
            self._last_fault = None
            return
        raise error.with_traceback(None)
