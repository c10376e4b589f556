"""A child process as a container: three pipes, one exit, a control group where there are any."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from typing import Final

from hearth.clock import Clock
from hearth.drivers.base import Container, Exit, PhaseLimits, StartFailed, StatsSample
from hearth.drivers.phases import finish_within
from hearth.drivers.process import launch
from hearth.drivers.process.cgroups import Group
from hearth.drivers.process.child import Child
from hearth.drivers.process.pipes import PipeReader, PipeWriter
from hearth.drivers.process.usage import Meter
from hearth.drivers.sampling import every_second
from hearth.drivers.streams import StreamBuffer

_MESSAGE_BYTES: Final = 4096


class ProcessContainer(Container):
    """One child process with all that it starts.

    Args:
        command: The whole command, sandbox included.
        fault: Why the command cannot run, if it is known; starting says so.
        group: Holds the process and all that it starts.
        memory_mib: What they may use.
        on_removed: Told once, when everything is free again.
    """

    stdin: PipeWriter
    stdout: StreamBuffer
    stderr: StreamBuffer

    def __init__(
        self,
        container_id: str,
        command: launch.Command,
        fault: str | None,
        group: Group | None,
        memory_mib: int,
        clock: Clock,
        limits: PhaseLimits,
        on_removed: Callable[[ProcessContainer], None],
    ) -> None:
        self.id = container_id
        self.stdin = PipeWriter()
        self._outputs = PipeReader(), PipeReader()
        self.stdout, self.stderr = (output.buffer for output in self._outputs)
        self._command, self._fault = command, fault
        self._group, self._memory_mib = group, memory_mib
        self._clock, self._limits = clock, limits
        self._on_removed = on_removed
        self._child: Child | None = None
        self._messages = -1
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._killed = False
        self._removal: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ProcessContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Start the process with its pipes attached. Never suspends, so it cannot be given up half-way."""
        if self._removal is not None:
            raise StartFailed("the container was removed")
        if self._fault is not None:
            raise StartFailed(self._fault, image_fault=True)
        try:
            spawned = launch.spawn(self._command)
        except ValueError as exc:
            raise StartFailed(str(exc), image_fault=True) from exc
        except OSError as exc:
            raise StartFailed(exc.strerror or str(exc), image_fault=exc.errno == errno.E2BIG) from exc
        self._connect(spawned)

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
        """What its processes use, once a second."""
        if self._child is None:
            return
        meter = Meter(self._child.pid, self._group, self._memory_mib, self._clock)
        async for _ in every_second(self._clock, self._ended):
            yield meter.sample()

    async def kill(self) -> None:
        """End the process and all that it started."""
        if self._child is None or self._child.is_gone:
            return
        self._killed = True
        self._child.kill()
        if self._group is not None:
            self._group.kill()

    async def remove(self) -> None:
        """End it and free everything; all who ask wait for the same removal, which goes on if they leave."""
        if self._removal is None:
            self._removal = asyncio.get_running_loop().create_task(self._free())
        await finish_within(self._removal, "remove", self._limits.remove_s, self._clock)

    async def give_up(self) -> None:
        """Stop trying to remove it, at the end of the driver."""
        if self._removal is not None:
            self._removal.cancel()
            await asyncio.wait([self._removal])

    async def _free(self) -> None:
        if self._child is not None:
            await self.kill()
            await self.wait()
        if self._group is not None:
            await self._group.clear(self._clock)
        if not self._ended.done():
            self._end(Exit(137, error="removed"))
        self._on_removed(self)

    # -- the child's side -----------------------------------------------------------------------------------------

    def _connect(self, spawned: launch.Spawned) -> None:
        self.stdin.connect(spawned.stdin)
        for output, fd in zip(self._outputs, (spawned.stdout, spawned.stderr), strict=True):
            output.connect(fd)
        self._messages = spawned.messages
        os.set_blocking(spawned.messages, False)
        try:
            self._child = Child(spawned.pid, self._child_ended)
        except OSError as exc:  # no descriptor left to watch it with
            self._end(Exit(137, error=str(exc)))
            raise StartFailed(exc.strerror or str(exc)) from exc

    def _child_ended(self, code: int) -> None:
        oom = not self._killed and code != 0 and self._group is not None and self._group.oom_kills() > 0
        self._end(Exit(code, oom=oom, error=self._message()))

    def _end(self, ended: Exit) -> None:
        self.stdin.lose()
        for output in self._outputs:
            output.drain()
        if self._messages >= 0:
            os.close(self._messages)
            self._messages = -1
        self._ended.set_result(ended)

    def _message(self) -> str:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._messages, _MESSAGE_BYTES).decode(errors="replace").strip()
        return ""
