"""A hot container: one life, one task, many calls in sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from hearth.agent.call import ActiveCall, LineLog
from hearth.agent.frost import Frost
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.probation import PROBATION_ANSWERS
from hearth.agent.quiet import QuietWait
from hearth.agent.resources import Returned
from hearth.agent.sampling import watch_stats
from hearth.agent.scaling.patience import late_at
from hearth.agent.slots import Leasable, SlotQueue
from hearth.agent.states import ContainerCounts, ContainerLife, ContainerState, Stage
from hearth.agent.stderr import ContainerStderr
from hearth.contracts.base import Exchange
from hearth.contracts.stdio.codec import is_surplus
from hearth.drivers.base import Answers, Container, Exit, NotReady, StatsSample
from hearth.telemetry.app_syslog import Drain
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import Relation

#: How long a program that has not answered yet may still be getting ready, seconds.
_READY_S: Final = 0.5
#: How a container is retired: at once, or after what it still has to do. In the other states it is leaving already.
_RETIRES: Final = {
    Stage.START: Stage.REMOVE,
    Stage.IDLE: Stage.REMOVE,
    Stage.BUSY: Stage.LAST,
    Stage.SETTLE: Stage.LAST,
}

_log = get_logger(__name__)


class HotSlot(Leasable, Protocol):
    """The right to run one call on a hot container, as the walk of a call uses it."""

    @property
    def container(self) -> Container:
        """Return the container."""

    @property
    def stderr(self) -> ContainerStderr:
        """Return what it writes to stderr."""

    @property
    def frost(self) -> Frost | None:
        """Return what freezes it between calls; ``None`` if nothing does."""

    def attend(self, call: ActiveCall) -> Exchange:
        """Let the call that holds the slot have what the container writes and uses. Return its exchange."""


class Owner(Protocol):
    """The launcher of a hot container, which it calls when something happens to it.

    Attributes:
        attends_idle: It is to be called when the container's slot is free.
    """

    attends_idle: bool

    def container_started(self, hot: HotContainer) -> None:
        """Note that it takes calls from now on."""

    def container_idle(self, hot: HotContainer) -> None:
        """Note that its slot is free and nobody took it."""

    def container_leaving(self, hot: HotContainer) -> None:
        """Look again: the container takes no further call."""

    def start_failed(self, hot: HotContainer, error: Exception) -> None:
        """Note that it could not be made or started."""

    def container_done(self, hot: HotContainer) -> None:
        """Note that it is gone and its resources are free."""

    def container_unused(self, hot: HotContainer) -> None:
        """Note that it has ended by itself before its first call."""

    @property
    def kept_idle(self) -> int:
        """Return how many idle containers are kept ready."""

    @property
    def is_above_minimum(self) -> bool:
        """True if a container may end that is idle for too long."""


class HotContainer:
    """One container that serves calls one after another.

    Its task (:meth:`run`) makes and removes it; the channel belongs to the holder of its slot. Between calls its output
    is watched: anything but whitespace after the first call means that an answer was not one answer, and retires it.

    Args:
        owner: Called when something happens to it.
        counts: The counts of its launcher.
        hurry_at: Loop time from which on its start waits for no other start.

    Attributes:
        key: Its slot key.
        share: The share of its app.
        is_sync: True if it serves sync calls.
        returned: What its end adds to the room of others, once it holds memory.
        served: Exchanges that have ended well on it.
        container: The container itself, once it has started.
        stderr: What it writes to stderr, once it has started.
        frost: Freezes it between calls; ``None`` if nothing does, or it has not started.
    """

    container: Container
    returned: Returned
    stderr: ContainerStderr
    _answers: Answers
    _quiet: QuietWait

    def __init__(
        self,
        function: Function,
        host: Host,
        queue: SlotQueue[HotSlot],
        owner: Owner,
        counts: ContainerCounts,
        *,
        hurry_at: float,
    ) -> None:
        self.function = function
        self.key = function.key
        self.share = function.share
        self.is_sync = function.spec.is_sync
        self.served = 0
        self._hurry_at = hurry_at
        self._host = host
        self._queue = queue
        self._owner = owner
        self._life = ContainerLife(host.clock, counts, function.containers)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._samples: list[StatsSample] | None = None
        self._started_at = 0.0
        self._drain: Drain | None = None
        self.frost: Frost | None = None

    def __repr__(self) -> str:
        return f"<HotContainer {self._life.stage.value} served={self.served}>"

    @property
    def state(self) -> ContainerState:
        """Return how it counts."""
        return self._life.state

    @property
    def idle_since(self) -> float:
        """Return the loop time at which it turned idle."""
        return self._life.since

    @property
    def is_leaving(self) -> bool:
        """True if it takes no further call and still holds its memory."""
        return self._life.stage is Stage.LAST or self._life.stage is Stage.REMOVE

    @property
    def waiting_since(self) -> float:
        """Since when the call waits that is next for its function; infinity if none does."""
        return self._queue.waiting_since

    @property
    def late_at(self) -> float:
        """Return the loop time from which that call has waited for long."""
        return late_at(self.waiting_since, self.function.spec.timeout_s)

    @property
    def kept_idle(self) -> int:
        """Return how many idle containers of its function are kept ready."""
        return self._owner.kept_idle

    def is_getting_ready(self, now: float) -> bool:
        """Return whether its program may still be starting: it uses a processor and has not answered yet."""
        is_new = self.served == 0 and now - self._started_at < _READY_S
        return is_new and self.state in (ContainerState.IDLE, ContainerState.BUSY)

    # -- the task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live: from the wait for memory to its return. Only cancellation leaves it."""
        try:
            span = self._host.telemetry.tracing.span
            async with self.function.cap.hold(self):
                with span("agent_run_hot", *self.function.ref.labels, relation=Relation.FOLLOWS):
                    await self._hold_memory()
        except Exception as exc:  # the one boundary of this task: its waiters must get the error
            self._owner.start_failed(self, exc)
        finally:
            self.gone()

    async def _hold_memory(self) -> None:
        reservation = await self._host.reserve(self.function, lambda: self.late_at)
        self.returned = reservation.returned
        try:
            self._drain = await self._host.open_drain(self.function)
            await self._live()
        finally:
            self._host.standby.gone(self)
            reservation.release()
            if self._drain is not None:
                self._drain.close()

    def gone(self) -> None:
        """Note that its task has ended. Idempotent: a task cancelled before its first step never runs its end."""
        if self._life.stage is not Stage.DONE:
            self._host.starts.over(self)
            self._life.enter(Stage.DONE)
            self._owner.container_done(self)

    async def _live(self) -> None:
        container = await self._started()
        try:
            while self._life.stage is Stage.CHECK:
                self._life.enter(Stage.START)
                if await self._host.driver.is_stale(container):
                    return
            self._serve(container)
            try:
                async with asyncio.TaskGroup() as group:
                    sampling = group.create_task(watch_stats(container, self._take_sample))
                    freezing = None if self.frost is None else group.create_task(self.frost.run())
                    await self._over
                    sampling.cancel()
                    if freezing is not None:
                        freezing.cancel()
            finally:
                self._stop_serving()
        finally:
            await self._host.remove(container)

    async def _started(self) -> Container:
        async with self._host.starts.hold(self._hurry_at, self):
            self._life.enter(Stage.START)
            container = await self._host.prepare(self.function, self._environment())
            try:
                await container.start()
                self._read_output(container)
                await self._ready(container)
            except BaseException:
                await self._host.remove(container)
                raise
        _log.debug("container started", container_id=container.id, **self.function.log_fields)
        return container

    def _environment(self) -> Mapping[str, str]:
        return self.function.spec.environment

    def _read_output(self, container: Container) -> None:
        """Read what it writes from its very start: a program that nobody reads does not get ready."""
        fields = {"between_log": True, "container_id": container.id, **self.function.log_fields}
        self.container = container
        self.stderr = self._stderr_of(container, LineLog(lambda: fields))

    def _stderr_of(self, container: Container, between: LineLog) -> ContainerStderr:
        host = self._host
        lags = host.driver.capabilities.stderr_lags
        return ContainerStderr(container.stderr, host.clock, between, lags=lags, drain=self._drain)

    async def _ready(self, container: Container) -> None:
        """Wait until it takes calls."""
        try:
            await container.channel.ready(container)
        except NotReady as exc:
            await self.stderr.catch_up()
            exc.opening = self.stderr.opening
            raise

    def _serve(self, container: Container) -> None:
        """Offer it to calls, and watch its answers."""
        host = self._host
        self._answers = container.channel.answers
        self._quiet = QuietWait(host.clock, host.lag, self._answers, self.stderr)
        self._started_at = host.clock.monotonic()
        if host.freeze_idle_s is not None:
            self.frost = Frost(
                container,
                host.clock,
                idle_s=host.freeze_idle_s,
                idle_since=self._idle_since,
                frozen=self.function.containers.frozen,
                fields={"container_id": container.id, **self.function.log_fields},
            )
        container.on_exit(self._exited)
        self._answers.watch(self._take_idle_answer)
        self._offer()
        self._owner.container_started(self)

    def _stop_serving(self) -> None:
        self._withdraw()
        self._quiet.cancel()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _withdraw(self) -> None:
        """Take back what is offered of it."""
        self._queue.withdraw(self)

    # -- the lease ------------------------------------------------------------------------------

    def lease(self) -> None:
        """Turn busy; the channel belongs to the holder of the slot."""
        self._life.enter(Stage.BUSY)
        self._host.standby.idle.pop(self, None)
        self._answers.watch(None)

    def attend(self, call: ActiveCall) -> Exchange:
        """Let the call that holds the slot have what the container writes and uses. Return its exchange."""
        self.stderr.log = call.log
        self._samples = call.samples
        served, function = self.served, self.function
        suspects = self._host.probation.suspects
        is_watched = served <= PROBATION_ANSWERS or (bool(suspects) and function.ref in suspects)
        return function.contract.exchange(call, self.container, fresh=served == 0, on_probation=is_watched)

    def give_back(self, *, clean: bool, used: bool) -> None:
        """End the lease: offer the container again, once nothing more of its last answer is expected, or remove it."""
        self._samples = None
        stderr, suspects = self.stderr, self._host.probation.suspects
        if stderr.lags:
            stderr.linger()
        else:
            stderr.log = None
        if not clean or self._life.stage is Stage.LAST:
            self.retire("exchange was not clean")
            self._remove()
            return
        if used:
            self.served += 1
            if stderr.opens:
                stderr.end_opening()
        self._answers.watch(self._take_idle_answer)
        if stderr.lags or self.served <= PROBATION_ANSWERS or (suspects and self.function.ref in suspects):
            self._settle()
        else:
            self._offer()

    def _settle(self) -> None:
        """Offer the container again once its output has been quiet for as long as it has to be."""
        watch_s = self._host.probation.watch_s(self.function.ref, self.served)
        if not self._quiet.begin(self._offer, stdout_s=watch_s):
            self._offer()
        elif self._life.stage is Stage.BUSY:
            self._life.enter(Stage.SETTLE)
            self._queue.announce(self)

    def _offer(self) -> None:
        """Turn idle, unless it was retired meanwhile: the call that waits longest has it, or the next one."""
        if self._life.stage is Stage.LAST:
            self._remove()
            return
        if self._life.stage is Stage.REMOVE:  # its output ended before it was offered
            return
        self._life.enter(Stage.IDLE)
        if self._idle_timer is None:
            self._arm(self.idle_since)
        queue, standby = self._queue, self._host.standby
        if queue.waiters or queue.announced:
            queue.offer(self)
            if self._life.stage is not Stage.IDLE:  # a call has waited for it
                return
        else:
            queue.free.append(self)
        standby.idle[self] = None
        if self.frost is not None:
            self.frost.note_idle(self.idle_since)
        if self._owner.attends_idle or standby.is_short:
            self._owner.container_idle(self)

    def retire(self, reason: str) -> None:
        """Take no further call; the container's task removes it, after the call that runs. Idempotent."""
        leaves = _RETIRES.get(self._life.stage)
        if leaves is None:
            return
        self._withdraw()
        self._host.standby.leaving(self)
        _log.debug("container retired", container_id=self.container.id, reason=reason, **self.function.log_fields)
        if leaves is Stage.REMOVE:
            self._remove()
        else:
            self._life.enter(leaves)
        self._owner.container_leaving(self)

    def _remove(self) -> None:
        self._life.enter(Stage.REMOVE)
        self._over.set_result(None)

    def suspect(self) -> None:
        """Look before it serves: it is being made of an image that may just have been built again."""
        if self._life.stage is Stage.START:
            self._life.enter(Stage.CHECK)

    def evict(self) -> bool:
        """Retire it if it is idle; false if it is not."""
        if self._life.stage is not Stage.IDLE:
            return False
        self.retire("evicted")
        return True

    def give_way(self, *, is_late: bool, since: float) -> bool:
        """End for another container of its function: if it is idle, or if its calls have waited for less time.

        Args:
            is_late: The calls for the other one have waited for long: they go before what is kept ready, and before
                calls of this one that came later.
            since: When the first of them began.
        """
        if self._life.stage is Stage.IDLE:
            if not is_late and not self._owner.is_above_minimum:
                return False
        elif not is_late or self._life.stage not in _RETIRES or self._life.stage is Stage.START:
            return False
        elif self.waiting_since <= since:
            return False
        self.retire("makes room for another version or type of its function")
        return True

    # -- what happens to it ------------------------------------------------------------------------------

    def _arm(self, since: float) -> None:
        """Start the timer: one per container, not per call. When it fires it looks how long the container was idle."""
        self._idle_timer = self._host.clock.call_at(since + self.function.spec.idle_timeout_s, self._look_at_idleness)

    def _look_at_idleness(self) -> None:
        now = self._host.clock.monotonic()
        if self._life.stage is not Stage.IDLE:
            self._arm(now)
        elif now - self.idle_since >= self.function.spec.idle_timeout_s - 0.001:
            if self._owner.is_above_minimum:
                self.retire("idle timeout")
            else:
                self._arm(now)
        else:
            self._arm(self.idle_since)

    def _idle_since(self) -> float | None:
        return self.idle_since if self._life.stage is Stage.IDLE else None

    def _exited(self, ended: Exit) -> None:
        if self._life.stage is Stage.IDLE:
            _log.info(
                "container exited while idle",
                container_id=self.container.id,
                exit_code=ended.code,
                oom=ended.oom,
                **self.function.log_fields,
            )
            self._end_idle("exited")

    def _end_idle(self, reason: str) -> None:
        """Retire it: it has ended by itself, without a call."""
        if not self.served and not self.is_leaving:
            self._owner.container_unused(self)
        self.retire(reason)

    def _take_sample(self, sample: StatsSample) -> None:
        self.function.containers.sample(sample)
        if self._samples is not None:
            self._samples.append(sample)

    def _take_idle_answer(self, data: bytes) -> None:
        if not data:
            self._end_idle("output ended")
            return
        self.stderr.between.write(data)
        if self.served and is_surplus(data):
            self._host.probation.suspects.add(self.function.ref)
            self.retire("output between calls")
