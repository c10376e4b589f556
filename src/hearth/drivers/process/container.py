"""A child process as a container: three pipes, one exit."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, cast

from hearth.clock import SystemClock, pause
from hearth.drivers.base import Container, Exit, StartFailed, StatsSample, StreamClosed
from hearth.drivers.process.cgroups import MemoryGroup
from hearth.drivers.streams import HIGH_WATER, StreamBuffer

#: Pipes that outlive the process (a grandchild holds them) are given up after this long.
_DRAIN_S: Final = 0.5
#: A control group empties a moment after its processes are dead.
_REMOVE_TRY_S: Final = 0.005


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """How a child's memory is limited: by its control group, else by its address space (bytes)."""

    group: MemoryGroup | None
    address_space: int

    def entry(self) -> Callable[[], None]:
        """What the child does between fork and exec, so that not an instruction of the function runs unlimited.

        A shell would do it without a fork of our memory, but drops the environment's names that it cannot spell.
        """
        if self.group is None:
            space = self.address_space
            return lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space))
        procs = str(self.group.procs)

        def enter() -> None:
            file = os.open(procs, os.O_WRONLY)
            os.write(file, b"0")
            os.close(file)

        return enter


class PipeWriter:
    """The child's stdin."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = False
        self._closed = False

    def connected(self, transport: asyncio.WriteTransport) -> None:
        """The pipe is there."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits while the function is not reading."""
        if self._closed or self._transport is None or self._transport.is_closing():
            raise StreamClosed("the function closed its stdin")
        self._transport.write(data)
        if self._full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
            if self._closed:
                raise StreamClosed("the function closed its stdin")

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """End of file for the function, once all was handed over."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()  # flushes first

    def pause(self) -> None:
        """The pipe is full."""
        self._full = True

    def resume(self) -> None:
        """There is room again."""
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def lost(self) -> None:
        """The other end is gone."""
        self._closed = True
        self.resume()


class _Pipes(asyncio.SubprocessProtocol):
    """Feeds the container's streams from the child's pipes."""

    def __init__(self, container: ProcessContainer) -> None:
        self._container = container
        self._open = {1, 2}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods of a SubprocessTransport without being one.
        self._container._connected(cast("asyncio.SubprocessTransport", transport))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._container._output(fd).feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._container.stdin.lost()
            return
        self._container._output(fd).feed_eof()
        self._open.discard(fd)
        if not self._open:
            self._container._drained()

    def process_exited(self) -> None:
        self._container._process_exited(drained=not self._open)

    def pause_writing(self) -> None:
        self._container.stdin.pause()

    def resume_writing(self) -> None:
        self._container.stdin.resume()


class ProcessContainer(Container):
    """One child process with all that it starts.

    Args:
        argv: The whole command, sandbox included.
        limit: Of its memory.
        on_removed: Told once, when everything is free again.
    """

    stdin: PipeWriter
    stdout: StreamBuffer
    stderr: StreamBuffer

    def __init__(
        self,
        container_id: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        limit: Limit,
        on_removed: Callable[[ProcessContainer], None],
    ) -> None:
        self.id = container_id
        self.stdin = PipeWriter()
        self.stdout = StreamBuffer(lambda: self._reading(1, False), lambda: self._reading(1, True))
        self.stderr = StreamBuffer(lambda: self._reading(2, False), lambda: self._reading(2, True))
        self._argv, self._env, self._cwd = argv, env, cwd
        self._limit = limit
        self._group = limit.group
        self._on_removed = on_removed
        self._transport: asyncio.SubprocessTransport | None = None
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._killed = False
        self._process_gone = False
        self._removed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<ProcessContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Start the process with its pipes attached."""
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(
                lambda: _Pipes(self),
                *self._argv,
                env=dict(self._env),
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=self._limit.entry(),
            )
        except OSError as exc:
            raise StartFailed(f"{self._argv[0]}: {exc.strerror or exc}", image_fault=True) from exc
        except ValueError as exc:
            raise StartFailed(str(exc), image_fault=True) from exc

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        return await asyncio.shield(self._ended)

    @property
    def exited(self) -> Exit | None:
        """How it ended, if it has."""
        return self._ended.result() if self._ended.done() and not self._ended.cancelled() else None

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when it has ended."""
        self._ended.add_done_callback(lambda ended: None if ended.cancelled() else callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """None: this driver does not measure."""
        return
        yield  # makes this an iterator

    async def kill(self) -> None:
        """End the process and all that it started."""
        if self._transport is None or self._process_gone:
            return
        self._killed = True
        self._kill_all(self._transport.get_pid())

    async def remove(self) -> None:
        """End it and free everything; all who ask wait for the same removal."""
        if self._removed is None:
            self._removed = asyncio.get_running_loop().create_future()
            try:
                await self._free()
            finally:
                self._removed.set_result(None)
        else:
            await asyncio.shield(self._removed)

    async def _free(self) -> None:
        if self._transport is not None:
            await self.kill()
            await self.wait()
            self._transport.close()
        while self._group is not None and not self._group.remove():
            for pid in self._group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await pause(SystemClock(), _REMOVE_TRY_S)
        self._on_removed(self)

    # -- the transport's side -------------------------------------------------------------------------------------

    def _connected(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        stdin: Any = transport.get_pipe_transport(0)
        self.stdin.connected(stdin)

    def _output(self, fd: int) -> StreamBuffer:
        return self.stdout if fd == 1 else self.stderr

    def _reading(self, fd: int, go_on: bool) -> None:
        pipe: Any = None if self._transport is None else self._transport.get_pipe_transport(fd)
        if pipe is None or pipe.is_closing():
            return
        if go_on:
            pipe.resume_reading()
        elif not self._process_gone:  # what a dead process left in its pipes is bounded, and wanted
            pipe.pause_reading()

    def _process_exited(self, *, drained: bool) -> None:
        assert self._transport is not None
        self._process_gone = True
        self._kill_all(self._transport.get_pid())
        if drained:
            self._drained()
            return
        for fd in (1, 2):
            with contextlib.suppress(RuntimeError):  # it was not paused
                self._reading(fd, True)
        asyncio.get_running_loop().call_later(_DRAIN_S, self._drained)

    def _drained(self) -> None:
        """All output is here, or will never be."""
        if self._ended.done() or not self._process_gone:
            return
        assert self._transport is not None
        code = self._transport.get_returncode() or 0
        oom = not self._killed and code != 0 and self._group is not None and self._group.oom_kills() > 0
        self._ended.set_result(Exit(128 - code if code < 0 else code, oom=oom))
        self.stdout.feed_eof()
        self.stderr.feed_eof()

    @staticmethod
    def _kill_all(pid: int) -> None:
        """Kill the whole process group. The sandbox takes what is inside with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
