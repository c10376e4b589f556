"""Containers that follow a script, without processes or an Engine, in the time of a given clock.

For tests of code that uses a driver, and for simulations of many containers. The driver keeps every promise of
:mod:`hearth.drivers.base`, so results with it hold for other drivers, too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.drivers.base import (
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverUnavailable,
    Exit,
    ImageNotFound,
    PhaseLimits,
    StartFailed,
    StatsSample,
    Stdio,
    StreamClosed,
)
from hearth.drivers.phases import finish_within
from hearth.drivers.sampling import every_second
from hearth.drivers.sockets import Listener
from hearth.models.call import STAT_NAMES
from hearth.testing.script import Pipe, Program, Script, Step, echo, stay

__all__ = ["FakeContainer", "FakeCounts", "FakeDriver", "Pipe", "Plan", "Program", "Script", "Step", "echo", "stay"]

#: The script of an image: one for all of its containers, or a function that returns one for each.
Plan = Script | Callable[[ContainerSpec], Script]

_KILLED = Exit(137)
_BROKEN_PIPE = 141


@dataclasses.dataclass(slots=True)
class FakeCounts:
    """Counts of what happened and of what exists now (``alive``, ``memory_mib``: from prepared to removed)."""

    pulls: int = 0
    prepared: int = 0
    started: int = 0
    removed: int = 0
    alive: int = 0
    peak_alive: int = 0
    memory_mib: int = 0
    peak_memory_mib: int = 0


class FakeDriver(Driver):
    """Creates scripted containers.

    Args:
        clock: The source of all time.
        images: The plan of each existing image; may be changed at any time.
        limits: The limits of each phase.

    Attributes:
        containers: The existing containers by id, for tests that end one from outside.
        stale: Ids of containers whose image has been replaced since their creation.
        digests: The digests of images, by reference.
        unavailable: The reason why the backend is unavailable; empty while it is available.
    """

    name = "fake"
    capabilities = Capabilities(
        limits_memory=True,
        limits_cpu=True,
        isolates_network=True,
        stats=True,
        freeze=True,
        images=True,
        unread_input=True,
    )

    def __init__(self, clock: Clock, images: dict[str, Plan], *, limits: PhaseLimits | None = None) -> None:
        self.clock = clock
        self.images = images
        self.limits = limits or PhaseLimits()
        self.containers: dict[str, FakeContainer] = {}
        self.counts = FakeCounts()
        self.stale: set[str] = set()
        self.digests: dict[str, str] = {}
        self.unavailable = ""
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._pulled: set[str] = set()
        self._background = Background()

    def __repr__(self) -> str:
        return f"<FakeDriver {self.counts}>"

    async def open(self) -> None:
        """Fail if the script says that the backend is unavailable."""
        self._check()

    async def close(self) -> None:
        """Cancel all background work."""
        await self._background.cancel()

    async def resolve(self, image: str) -> str:
        """Return what the script says."""
        return self.digests.get(image, "")

    async def digest_of(self, container: Container) -> str:
        """Return what the script says of its image."""
        return self.digests.get(self.containers[container.id].spec.image, "") if container.id in self.containers else ""

    async def is_stale(self, container: Container) -> bool:
        """Return whether the script says so."""
        return container.id in self.stale

    async def prepare(self, spec: ContainerSpec) -> FakeContainer:
        """Pull and create as the script says."""
        self._check()
        plan = self.images.get(spec.image)
        if plan is None:
            raise ImageNotFound(spec.image)
        script = plan if isinstance(plan, Script) else plan(spec)
        if not script.is_present and spec.image not in self._pulled:
            await self._pull(spec.image, script.pull)
        await script.create.run("create", self.clock, self.limits.create_s)
        self._check()
        return self._made(FakeContainer(self, spec, script))

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do work in the background, at most until :meth:`close`."""
        return self._background.start(work)

    def forget(self, container: FakeContainer) -> None:
        """Remove a container and release its memory."""
        del self.containers[container.id]
        self.counts.removed += 1
        self.counts.alive -= 1
        self.counts.memory_mib -= container.spec.memory_mib

    def _made(self, container: FakeContainer) -> FakeContainer:
        self.containers[container.id] = container
        counts = self.counts
        counts.prepared += 1
        counts.alive += 1
        counts.peak_alive = max(counts.peak_alive, counts.alive)
        counts.memory_mib += container.spec.memory_mib
        counts.peak_memory_mib = max(counts.peak_memory_mib, counts.memory_mib)
        return container

    async def _pull(self, image: str, step: Step) -> None:
        """Pull an image, once at a time; the pull continues if its waiters are cancelled."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = self._background.start(self._fetch(image, step))
            pull.add_done_callback(lambda _: self._pulls.pop(image))
        await asyncio.shield(pull)

    async def _fetch(self, image: str, step: Step) -> None:
        self.counts.pulls += 1
        await step.run("pull", self.clock, self.limits.pull_s)
        self._pulled.add(image)

    def _check(self) -> None:
        if self.unavailable:
            raise DriverUnavailable(self.unavailable)


class FakeConnection:
    """A :class:`~hearth.drivers.sockets.Connection` to a program, over two pipes."""

    was_reset = False

    def __init__(self) -> None:
        self.writer, self._answers = Pipe(), Pipe()
        self.reader = self._answers.reader
        self._is_closed = False

    async def serve(self, main: Program, stderr: Pipe) -> int:
        """Run the program on this connection to its end."""
        try:
            return await main(self.writer, self._answers, stderr)
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """End the container's side."""
        self.writer.abandon()
        self._answers.close()

    def leave(self) -> None:
        """End the request."""
        self.writer.close()

    def close(self) -> bytes:
        """Close it; return what had come and nobody has read. Idempotent."""
        self.reader.watch(None)
        left = b"" if self._is_closed else self.reader.read_nowait() or b""
        self._is_closed = True
        self.writer.close()
        self._answers.abandon()
        return left


class FakeListener(Listener):
    """The channel of a container that listens. Its program runs once for each connection, over that.

    A program that returns 0 has closed its connection only; any other code is the exit code of the container.
    """

    def __init__(self, container: FakeContainer, clock: Clock) -> None:
        super().__init__(clock)
        self._container = container
        self._open: list[FakeConnection] = []

    def connect(self) -> FakeConnection:
        """Return a new connection."""
        if not self._container.serves:
            raise StreamClosed("the function takes no connection")
        connection = FakeConnection()
        self._open.append(connection)
        self._container.serve(connection)
        return connection

    def close(self) -> None:
        """Close all connections."""
        super().close()
        for connection in self._open:
            connection.hang_up()
        self._open.clear()


class FakeContainer(Container):
    """One scripted container.

    Attributes:
        is_frozen: It was frozen, and not thawed since.
        moment: When the container ended, for tests of backends that report ends late.
    """

    def __init__(self, driver: FakeDriver, spec: ContainerSpec, script: Script) -> None:
        self.id = spec.id
        self.spec = spec
        self.script = script
        self._in, self._out, self._err = Pipe(), Pipe(), Pipe()
        self._listener = FakeListener(self, driver.clock) if spec.listens else None
        self.channel, self.stderr = self._listener or Stdio(self._in, self._out.reader), self._err.reader
        self._driver = driver
        self._serving: list[asyncio.Task[None]] = []
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._program: asyncio.Task[None] | None = None
        self._removal: asyncio.Task[None] | None = None
        self._started = False
        self._removed = False
        self.is_frozen = False
        self.moment: dt.datetime | None = None

    def __repr__(self) -> str:
        return f"<FakeContainer {self.id} exited={self.exited} removed={self._removed}>"

    async def start(self) -> None:
        """Start the script's program."""
        await self.script.start.run("start", self._driver.clock, self._driver.limits.start_s)
        if self._removed:
            raise StartFailed("the container was removed")
        self._driver.counts.started += 1
        if self._listener is None:
            self._program = self._driver.run(self._run())
        self._started = True

    @property
    def serves(self) -> bool:
        """Return whether it takes connections."""
        return self._started and not self._ended.done()

    def serve(self, connection: FakeConnection) -> None:
        """Run the program on a connection."""
        self._serving.append(self._driver.run(self._run_on(connection)))

    async def wait(self) -> Exit:
        """Wait until the container has ended."""
        return await asyncio.shield(self._ended)

    async def ended_at(self) -> dt.datetime | None:
        """Return the moment that the test sets."""
        return self.moment

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when the container has ended."""
        self._ended.add_done_callback(lambda ended: callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """Yield the script's metrics once per second."""
        async for _ in every_second(self._driver.clock, self._ended):
            metrics = {**dict.fromkeys(STAT_NAMES, 0), "mem_limit": self.spec.memory_mib << 20, **self.script.metrics}
            yield StatsSample(self._driver.clock.now(), metrics)

    async def freeze(self) -> None:
        """Note that it is frozen, as the script says."""
        await self.script.freeze.run("freeze", self._driver.clock)
        self.is_frozen = True

    async def thaw(self) -> None:
        """Note that it is not frozen, as the script says."""
        await self.script.thaw.run("thaw", self._driver.clock)
        self.is_frozen = False

    async def kill(self) -> None:
        """Kill the container if it runs."""
        if self._started:
            self.end(_KILLED)

    def end(self, ended: Exit) -> None:
        """End the container now, as another program or its memory limit would."""
        if self._ended.done():
            return
        for task in [*self._serving, *([] if self._program is None else [self._program])]:
            task.cancel()
        if self._listener is not None:
            self._listener.close()
        self._in.abandon()
        self._out.close()
        self._err.close()
        self.exited = ended
        self._ended.set_result(ended)

    def say(self, data: bytes) -> None:
        """Write to stdout so that the bytes wait in the kernel, unseen by the event loop."""
        self._out.post(data)

    async def remove(self) -> None:
        """Remove the container as the script says. All callers wait for one removal, which continues without them."""
        await self.kill()
        if self._removed:
            return
        step = self.script.remove
        if self._removal is None and step.is_instant:
            await step.run("remove", self._driver.clock)
            self._free()
            return
        if self._removal is None:
            self._removal = self._driver.run(self._remove())
        await finish_within(self._removal, "remove", self._driver.limits.remove_s, self._driver.clock)

    async def _remove(self) -> None:
        try:
            await self.script.remove.run("remove", self._driver.clock)
            self._free()
        finally:
            self._removal = None

    def _free(self) -> None:
        if not self._removed:
            self._removed = True
            self.end(Exit(137, error="removed"))
            self._driver.forget(self)

    async def _run_on(self, connection: FakeConnection) -> None:
        ended = await self._exit_of(connection.serve(self.script.main, self._err))
        if ended.code not in (0, _BROKEN_PIPE):
            self.end(ended)

    async def _run(self) -> None:
        ended = await self._exit_of(self.script.main(self._in, self._out, self._err))
        self._program = None
        self.end(ended)

    async def _exit_of(self, program: Awaitable[int]) -> Exit:
        try:
            return Exit(await program)
        except StreamClosed:
            return Exit(_BROKEN_PIPE)
        except Exception as exc:  # the boundary of this task: a program that fails is a function that fails
            return Exit(1, error=repr(exc))
