"""Containers that follow a script: no process, no Engine, no time but the clock's.

For tests of whoever uses a driver, and for simulations of many containers. Every promise of
:mod:`hearth.drivers.base` is kept, so what holds with this driver is not an artefact of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from hearth.clock import Clock
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
    StreamClosed,
)
from hearth.drivers.phases import finish_within
from hearth.drivers.sampling import every_second
from hearth.drivers.script import Pipe, Program, Script, Step, echo, stay
from hearth.drivers.streams import StreamBuffer
from hearth.models.call import STAT_NAMES

__all__ = ["FakeContainer", "FakeCounts", "FakeDriver", "Pipe", "Plan", "Program", "Script", "Step", "echo", "stay"]

#: The script of an image: one for all of its containers, or one made for each.
Plan = Script | Callable[[ContainerSpec], Script]

_KILLED = Exit(137)
_BROKEN_PIPE = 141


@dataclasses.dataclass(slots=True)
class FakeCounts:
    """What has happened, and what exists now (``alive``, ``memory_mib``: from prepared to removed)."""

    pulls: int = 0
    prepared: int = 0
    started: int = 0
    removed: int = 0
    alive: int = 0
    peak_alive: int = 0
    memory_mib: int = 0
    peak_memory_mib: int = 0


class FakeDriver(Driver):
    """Makes scripted containers.

    Args:
        clock: All time comes from it.
        images: The plan of each image there is; may be changed at any time.
        limits: Of each phase.

    Attributes:
        containers: Those that exist now, by id: for tests that end one from outside.
        stale: Ids of containers whose image was built anew since they were made.
        unavailable: Says why the backend is gone; empty while it is there.
    """

    name = "fake"
    capabilities = Capabilities(limits_memory=True, limits_cpu=True, isolates_network=True, stats=True, images=True)

    def __init__(self, clock: Clock, images: dict[str, Plan], *, limits: PhaseLimits | None = None) -> None:
        self.clock = clock
        self.images = images
        self.limits = limits or PhaseLimits()
        self.containers: dict[str, FakeContainer] = {}
        self.counts = FakeCounts()
        self.stale: set[str] = set()
        self.unavailable = ""
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._pulled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<FakeDriver {self.counts}>"

    async def open(self) -> None:
        """Nothing to do, unless the script says that the backend is gone."""
        self._check()

    async def close(self) -> None:
        """End what runs in the background."""
        tasks = [*self._tasks, *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def is_stale(self, container: Container) -> bool:
        """Whether the script says so."""
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
        """Have work done in the background, at most until :meth:`close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def forget(self, container: FakeContainer) -> None:
        """It is gone, and what it held is free."""
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
        """At most once at a time; it goes on when those who wait for it leave."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = asyncio.get_running_loop().create_task(self._fetch(image, step))
            self._pulls[image] = pull
            pull.add_done_callback(lambda done: self._pull_ended(image, done))
        await asyncio.shield(pull)

    async def _fetch(self, image: str, step: Step) -> None:
        self.counts.pulls += 1
        await step.run("pull", self.clock, self.limits.pull_s)
        self._pulled.add(image)

    def _pull_ended(self, image: str, pull: asyncio.Task[None]) -> None:
        del self._pulls[image]
        if not pull.cancelled():
            pull.exception()  # told to those who waited; if all left, to nobody

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to those who waited; if all left, to nobody

    def _check(self) -> None:
        if self.unavailable:
            raise DriverUnavailable(self.unavailable)


class FakeContainer(Container):
    """One scripted container."""

    stdin: Pipe
    stdout: StreamBuffer
    stderr: StreamBuffer

    def __init__(self, driver: FakeDriver, spec: ContainerSpec, script: Script) -> None:
        self.id = spec.id
        self.spec = spec
        self.script = script
        self.stdin = Pipe()
        self._out, self._err = Pipe(), Pipe()
        self.stdout, self.stderr = self._out.reader, self._err.reader
        self._driver = driver
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._program: asyncio.Task[None] | None = None
        self._removal: asyncio.Task[None] | None = None
        self._removed = False

    def __repr__(self) -> str:
        return f"<FakeContainer {self.id} exited={self.exited} removed={self._removed}>"

    async def start(self) -> None:
        """Start the script's program."""
        await self.script.start.run("start", self._driver.clock, self._driver.limits.start_s)
        if self._removed:
            raise StartFailed("the container was removed")
        self._driver.counts.started += 1
        self._program = self._driver.run(self._run())

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        return await asyncio.shield(self._ended)

    @property
    def exited(self) -> Exit | None:
        """How it ended, if it has."""
        return self._ended.result() if self._ended.done() else None

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when it has ended."""
        self._ended.add_done_callback(lambda ended: callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """The script's metrics, once a second."""
        async for _ in every_second(self._driver.clock, self._ended):
            metrics = {**dict.fromkeys(STAT_NAMES, 0), "mem_limit": self.spec.memory_mib << 20, **self.script.metrics}
            yield StatsSample(self._driver.clock.now(), metrics)

    async def kill(self) -> None:
        """End it now, if it runs."""
        if self._program is not None:
            self.end(_KILLED)

    def end(self, ended: Exit) -> None:
        """It ends in this way, now: killed by a stranger, or by its memory limit."""
        if self._ended.done():
            return
        if self._program is not None:
            self._program.cancel()
        self.stdin.abandon()
        self._out.close()
        self._err.close()
        self._ended.set_result(ended)

    def say(self, data: bytes) -> None:
        """It writes to its stdout at this moment: the bytes wait in the kernel, unseen by the event loop."""
        self._out.post(data)

    async def remove(self) -> None:
        """Remove it as the script says; all who ask wait for the same removal, which goes on if they leave."""
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

    async def _run(self) -> None:
        try:
            ended = Exit(await self.script.main(self.stdin, self._out, self._err))
        except StreamClosed:
            ended = Exit(_BROKEN_PIPE)
        except Exception as exc:  # the one boundary of this task: a program that fails is a function that fails
            ended = Exit(1, error=repr(exc))
        self._program = None
        self.end(ended)
