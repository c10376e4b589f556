"""A cold call: a container of its own, used once (agent specification 7)."""

from __future__ import annotations

import asyncio

from hearth.agent.call import ActiveCall
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.sampling import watch_stats
from hearth.agent.scaling.patience import hurry_at, late_at
from hearth.agent.states import ContainerLife, Stage
from hearth.agent.stderr import catch_up
from hearth.drivers.base import Container, StatsSample
from hearth.models.errors import FunctionFailed
from hearth.telemetry.app_syslog import Drain
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import during

_log = get_logger(__name__)


class ColdContainer:
    """A container for one call. Its task (:meth:`run`) makes and removes it, even if the caller leaves."""

    def __init__(self, call: ActiveCall, host: Host) -> None:
        loop = asyncio.get_running_loop()
        self._call = call
        self._host = host
        self._life = ContainerLife(host.clock, host.cold, call.function.containers)
        self._ready: asyncio.Future[Container] | None = loop.create_future()
        self._started = asyncio.Event()
        self._over: asyncio.Future[None] = loop.create_future()
        self._drain: Drain | None = None

    def __repr__(self) -> str:
        return f"<ColdContainer {self._life.stage.value}>"

    @property
    def waits(self) -> bool:
        """True until it is handed to its call."""
        return self._life.stage in (Stage.WAIT, Stage.START)

    @property
    def key(self) -> bytes:
        """Return the slot key of its function."""
        return self._call.function.key

    @property
    def waiting_since(self) -> float:
        """Since when its call waits."""
        return self._call.since

    @property
    def late_at(self) -> float:
        """Return the loop time from which its call has waited for long."""
        return late_at(self._call.since, self._call.function.spec.timeout_s)

    @property
    def is_leaving(self) -> bool:
        """True once its call is over."""
        return self._over.done()

    def give_way(self, *, is_late: bool, since: float) -> bool:
        """Go on: its call alone ends it."""
        return False

    async def run(self) -> None:
        """Live: from the wait for memory to its return. Only cancellation leaves it."""
        function = self._call.function
        try:
            async with function.cap.hold(self):
                await self._run(function)
        except Exception as exc:  # the one boundary of this task: its call must hear of whatever went wrong
            self.fail(exc)
        finally:
            self._life.enter(Stage.DONE)

    async def _run(self, function: Function) -> None:
        reservation = await self._host.reserve(function, lambda: self.late_at)
        try:
            async with self._host.starts.hold(hurry_at(self._call.since, function.spec.timeout_s)):
                self._life.enter(Stage.START)
                with during(function.spans.prepare_cold):
                    self._drain = await self._host.open_drain(function)
                    described = function.contract.environment(self._call.input())
                    container = await self._host.prepare(function, {**function.spec.environment, **described})
            try:
                self._life.enter(Stage.IDLE)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(container)
                await self._live(container)
            finally:
                await self._host.remove(container)
        finally:
            reservation.release()
            if self._drain is not None:
                self._drain.close()

    async def _live(self, container: Container) -> None:
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(self._sample(container))
            await self._over
            sampling.cancel()

    async def _sample(self, container: Container) -> None:
        await self._started.wait()
        await watch_stats(container, self._take_sample)

    def _take_sample(self, sample: StatsSample) -> None:
        self._call.function.containers.sample(sample)
        self._call.samples.append(sample)

    async def acquire(self) -> Container:
        """Wait for the prepared container, this call's own."""
        assert self._ready is not None
        try:
            return await self._ready
        finally:
            self._ready = None  # it may hold an error, which holds the frames of all who wait here

    async def start(self, container: Container) -> None:
        """Start the container, in the time of its call."""
        self._life.enter(Stage.BUSY)
        await container.start()
        record = self._call.record
        _log.debug("container started", container_id=container.id, call_id=record.id, image=record.image)
        self._started.set()

    def take_stderr(self, data: bytes) -> None:
        """Add to the log of its call, and to what its app gets."""
        self._call.log.write(data)
        if self._drain is not None:
            self._drain.write(data, self._call.record.id)

    def release(self) -> None:
        """Remove the container in the background: the call is over, or gave up. Idempotent."""
        if not self._over.done():
            self._over.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the wait of its call."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)


async def run_cold(call: ActiveCall, cold: ColdContainer, container: Container) -> None:
    """Run the one exchange of a started container; what it writes to stderr is the call's.

    Raises:
        FunctionFailed: The function exited with another code than 0.
    """
    container.stderr.watch(cold.take_stderr)
    exchange = call.function.contract.exchange(call, container, fresh=True)
    try:
        await exchange.run()
        await catch_up(container.stderr.unseen)
    except FunctionFailed:
        await catch_up(container.stderr.unseen)
        raise
    finally:
        call.answered = exchange.status
        container.stderr.watch(_discard)


def _discard(data: bytes) -> None:
    """Drop the output of a container whose call is over."""
