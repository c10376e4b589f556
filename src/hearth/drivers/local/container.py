"""A child process as a container: three pipes, one exit, and a control group where there are control groups."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from typing import Final

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.aio.loop_share import loop_share
from hearth.drivers.base import Container, DriverError, Exit, PhaseLimits, StartFailed, StatsSample, Stdio
from hearth.drivers.local import launch, marks
from hearth.drivers.local.child import Child
from hearth.drivers.local.usage import samples
from hearth.drivers.phases import finish_within
from hearth.drivers.sockets import UnixSocket
from hearth.drivers.streams import PipeReader, PipeWriter
from hearth.host.cgroups import Group
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)

_MESSAGE_BYTES: Final = 4096


class ProcessContainer(Container):
    """One child process with all processes that it starts.

    Args:
        command: The whole command, sandbox included.
        fault: Why the command cannot run, if that is known; raised at the start.
        group: The control group of the process and all that it starts.
        mark: Identifies the process and all that it starts where there is no control group.
        memory_mib: The memory that they may use.
        socket: Where the process takes calls; ``None``: on its stdin.
        on_removed: Called once, when everything is free again.
    """

    def __init__(
        self,
        container_id: str,
        command: launch.Command,
        fault: str | None,
        group: Group | None,
        mark: marks.Mark | None,
        memory_mib: int,
        clock: Clock,
        limits: PhaseLimits,
        on_removed: Callable[[ProcessContainer], None],
        socket: UnixSocket | None = None,
    ) -> None:
        self.id = container_id
        self._stdin = PipeWriter()
        self._outputs = stdout, stderr = PipeReader(), PipeReader()
        self.channel, self.stderr = socket or Stdio(self._stdin, stdout), stderr
        self._socket = socket
        self._command, self._fault = command, fault
        self._group, self._memory_mib = group, memory_mib
        self._mark = mark
        self._clock, self._limits = clock, limits
        self._on_removed = on_removed
        self._child: Child | None = None
        self._messages = -1
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._killed = False
        self._background = Background()
        self._removal: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ProcessContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Start the process with its pipes attached. Never suspends, so a cancellation cannot interrupt it."""
        if self._removal is not None:
            raise StartFailed("the container was removed")
        if self._fault is not None:
            raise StartFailed(self._fault, image_fault=True)
        try:
            with loop_share():
                spawned = launch.spawn(self._command)
        except ValueError as exc:
            raise StartFailed(str(exc), image_fault=True) from exc
        except OSError as exc:
            raise StartFailed(exc.strerror or str(exc), image_fault=exc.errno == errno.E2BIG) from exc
        self._connect(spawned)

    async def wait(self) -> Exit:
        """Wait until the process has ended."""
        return await asyncio.shield(self._ended)

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when the process has ended."""
        self._ended.add_done_callback(lambda ended: callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """Yield the use of its processes, once a second."""
        if self._child is None:
            return
        async for sample in samples(self._child.pid, self._group, self._memory_mib, self._clock, self._ended):
            yield sample

    async def freeze(self) -> None:
        """Freeze its control group."""
        await self._set_frozen(True)

    async def thaw(self) -> None:
        """Thaw its control group."""
        await self._set_frozen(False)

    async def _set_frozen(self, is_frozen: bool) -> None:
        if self._group is None or self._child is None or self._child.is_gone:
            return
        try:
            await self._group.set_frozen(is_frozen, self._clock)
        except OSError as exc:
            raise DriverError(f"control group: {exc.strerror or exc}") from exc

    async def kill(self) -> None:
        """Kill the process and all that it started."""
        if self._child is None or self._child.is_gone:
            return
        self._killed = True
        self._child.kill()
        if self._group is not None:
            self._group.kill()

    async def remove(self) -> None:
        """Kill and free everything. All callers wait for the same removal, which continues if they are cancelled."""
        if self._removal is None:
            self._removal = self._background.start(self._free())
        await finish_within(self._removal, "remove", self._limits.remove_s, self._clock)

    async def give_up(self) -> None:
        """Give up the removal when the driver closes."""
        await self._background.cancel()

    async def _free(self) -> None:
        if self._child is not None:
            await self.kill()
            await self.wait()
        if self._mark is not None:
            await asyncio.to_thread(marks.end_all, self._mark)
        if self._group is not None:
            await self._group.clear(self._clock)
        if self._socket is not None:
            await self._socket.remove()
        if not self._ended.done():
            self._end(Exit(137, error="removed"))
        self._on_removed(self)

    # -- the child's side -----------------------------------------------------------------------------------------

    def _connect(self, spawned: launch.Spawned) -> None:
        self._stdin.connect(spawned.stdin)
        for output, fd in zip(self._outputs, (spawned.stdout, spawned.stderr), strict=True):
            output.connect(fd)
        if self._socket is not None:
            self._stdin.close()
        self._messages = spawned.messages
        os.set_blocking(spawned.messages, False)
        try:
            self._child = Child(spawned.pid, self._child_ended)
        except OSError as exc:  # no descriptor left to watch it with
            self._end(Exit(137, error=str(exc)))
            raise StartFailed(exc.strerror or str(exc)) from exc

    def _child_ended(self, code: int) -> None:
        oom = not self._killed and code != 0 and self._group is not None and self._group.oom_kills() > 0
        message = self._message()
        if message:  # of the programs that start the function: their caller cannot mend what they complain of
            _log.warning("the sandbox complains", container_id=self.id, code=code, error=message)
        self._end(Exit(code, oom=oom, error=message))

    def _end(self, ended: Exit) -> None:
        self._stdin.lose()
        for output in self._outputs:
            output.drain()
        if self._messages >= 0:
            os.close(self._messages)
            self._messages = -1
        self.exited = ended
        self._ended.set_result(ended)

    def _message(self) -> str:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._messages, _MESSAGE_BYTES).decode(errors="replace").strip()
        return ""
