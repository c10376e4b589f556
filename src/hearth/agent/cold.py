"""A cold call: a container of its own, used once (agent specification 7)."""

from __future__ import annotations

import asyncio
from typing import Final

from hearth.agent.call import ActiveCall, ResponseSink
from hearth.agent.exchange import Exchange
from hearth.agent.host import Host
from hearth.agent.life import ContainerState, container_life
from hearth.agent.meters import export_sample
from hearth.agent.sampling import watch_stats
from hearth.drivers.base import Container, StatsSample
from hearth.protocols.base import Head
from hearth.telemetry.tracing import span

#: Output up to this many bytes is held until the exit code is known, so that a failing function yields a clean error.
_HOLD_BYTES: Final = 64 * 1024


class ColdContainer:
    """A one-shot container. Its task (:meth:`run`) makes and removes it, whatever becomes of the caller."""

    def __init__(self, call: ActiveCall, host: Host) -> None:
        loop = asyncio.get_running_loop()
        self._call = call
        self._host = host
        self._life = container_life(host.meter(call.function))
        self._ready: asyncio.Future[Container] = loop.create_future()
        self._started = asyncio.Event()
        self._over: asyncio.Future[None] = loop.create_future()

    def __repr__(self) -> str:
        return f"<ColdContainer {self._life.state.value}>"

    @property
    def waits(self) -> bool:
        """It has not been handed to its call yet."""
        return self._life.state in (ContainerState.WAIT, ContainerState.START)

    async def run(self) -> None:
        """Live: from the wait for memory to its return. Only cancellation leaves it."""
        function = self._call.function
        try:
            reservation = await self._host.reserve(function)
            try:
                async with self._host.starts.passage():
                    self._life.enter(ContainerState.START)
                    with span("agent_prep_cold", function.route.app_name, function.route.path):
                        container = await self._host.prepare(function, call_environment(self._call))
                try:
                    self._life.enter(ContainerState.IDLE)
                    if not self._ready.done():
                        self._ready.set_result(container)
                    await self._live(container)
                finally:
                    await self._host.remove(container)
            finally:
                reservation.release()
        except Exception as exc:  # the one boundary of this task: its call must hear of whatever went wrong
            if not self._ready.done():
                self._ready.set_exception(exc)
        finally:
            self._life.enter(ContainerState.DONE)

    async def _live(self, container: Container) -> None:
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(self._sample(container))
            await self._over
            sampling.cancel()

    async def _sample(self, container: Container) -> None:
        await self._started.wait()
        await watch_stats(container, self._take_sample)

    def _take_sample(self, sample: StatsSample) -> None:
        export_sample(sample, self._call.function.route)
        self._call.samples.append(sample)

    async def acquire(self) -> Container:
        """The prepared container, this call's own."""
        return await self._ready

    async def start(self, container: Container) -> None:
        """Start it: for its call, in the call's own time."""
        self._life.enter(ContainerState.BUSY)
        await container.start()
        self._started.set()

    def release(self) -> None:
        """The call is over, or gave up: remove the container in the background. Idempotent."""
        if not self._over.done():
            self._over.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the wait of its call."""
        if not self._ready.done():
            self._ready.set_exception(error)


async def run_cold(call: ActiveCall, container: Container) -> None:
    """Run the one exchange of a started container, deliver the answer once the exit code is known to be 0.

    Raises:
        FunctionFailed: It exited with another code.
    """
    container.stderr.watch(call.log.write)
    holding = HoldingSink(call.sink) if call.function.is_sync else None  # a log takes output as it comes
    try:
        await Exchange(call, container, fresh=True, sink=holding).run()
    finally:
        container.stderr.watch(_discard)
    if holding is not None:
        await holding.flush()


class HoldingSink:
    """Holds the answer back until it is large, or :meth:`flush`."""

    __slots__ = ("_held", "_sink", "_size", "_through")

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self._held: list[bytes] = []
        self._size = 0
        self._through = False

    @property
    def started(self) -> bool:
        """Something was passed on to the client."""
        return self._sink.started

    def head(self, head: Head) -> None:
        """The head is kept by the sink behind until the first byte of the body."""
        self._sink.head(head)

    async def write(self, data: bytes, *, last: bool) -> None:
        """Hold some bytes, or pass them on once there are many."""
        if self._through:
            await self._sink.write(data, last=False)
            return
        self._held.append(data)
        self._size += len(data)
        if self._size > _HOLD_BYTES:
            self._through = True
            await self._pass_on(last=False)

    def complete(self) -> None:
        """Not before the exit code is known."""

    async def flush(self) -> None:
        """The function succeeded: pass on what is held."""
        if not self._through and self._held:
            await self._pass_on(last=True)

    async def _pass_on(self, *, last: bool) -> None:
        held, self._held = self._held, []
        await self._sink.write(b"".join(held), last=last)


def call_environment(call: ActiveCall) -> dict[str, str]:
    """The environment of a cold container: the function's, what concerns this call, one key per header."""
    record = call.record
    return {
        **call.function.environment,
        "FN_DEADLINE": call.deadline_text,
        "FN_METHOD": record.method,
        "FN_REQUEST_URL": record.url,
        "FN_CALL_ID": record.id,
        **{f"FN_HEADER_{name}": ", ".join(values) for name, values in record.headers.items()},
    }


def _discard(data: bytes) -> None:
    """Output of a container whose call is over reaches nobody."""
