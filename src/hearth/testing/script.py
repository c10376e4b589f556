"""The scripts of containers: their program, and the course of each phase of their life."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hearth.aio.clock import Clock
from hearth.drivers.base import DriverError, OutOfTime, StreamClosed
from hearth.drivers.streams import StreamBuffer
from hearth.models.errors import fresh

#: What a pipe of the kernel takes; more is still in this process.
_PIPE_BYTES: Final = 64 * 1024


class Pipe:
    """Bytes from one writer to one reader, bounded as those of a real container are.

    Seen from the server it is a :class:`~hearth.drivers.base.ByteWriter` (stdin), or its ``reader`` is a
    :class:`~hearth.drivers.base.ByteReader` (stdout, stderr). The container's program holds the other side.
    """

    __slots__ = ("_broken", "_closed", "_full", "_kernel", "_room", "reader")

    def __init__(self) -> None:
        self.reader = StreamBuffer(self._pause, self._resume, self._unseen)
        self._kernel = b""
        self._full = False
        self._closed = False
        self._broken = False
        self._room: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Pipe {self.reader!r} closed={self._closed} broken={self._broken}>"

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes; ``b""`` at the end."""
        return await self.reader.read(max_bytes)

    async def write(self, data: bytes) -> None:
        """Write bytes; wait while nobody reads."""
        self._check()
        self._deliver()
        self.reader.feed(data)
        if self._full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
            if self._broken:
                raise StreamClosed("the other end is gone")

    def post(self, data: bytes) -> None:
        """Write bytes that the other side does not see before the next tick, as if they waited in the kernel."""
        self._check()
        self._kernel += data
        asyncio.get_running_loop().call_soon(self._deliver)

    @property
    def pending(self) -> int:
        """Return the number of bytes that a pipe of the kernel would not have taken yet."""
        return max(0, self.reader.size - _PIPE_BYTES)

    def unread(self) -> int | None:
        """Return the number of bytes that the reader has not taken."""
        return self.reader.size + len(self._kernel)

    def close(self) -> None:
        """End the writing side; the reader finds the end after the pending bytes. Idempotent."""
        self._closed = True
        self._deliver()
        self.reader.feed_eof()

    def abandon(self) -> None:
        """End the reading side: writes fail from now on."""
        self._broken = True
        self._resume()

    def _check(self) -> None:
        if self._closed or self._broken:
            raise StreamClosed("the other end is gone" if self._broken else "written after its end")

    def _deliver(self) -> None:
        data, self._kernel = self._kernel, b""
        if data:
            self.reader.feed(data)

    def _unseen(self) -> bool:
        return bool(self._kernel)

    def _pause(self) -> None:
        self._full = True

    def _resume(self) -> None:
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


#: The program of a container: takes stdin, stdout and stderr, returns the exit code.
Program = Callable[[Pipe, Pipe, Pipe], Awaitable[int]]


async def stay(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Read the input without any output, and end with it."""
    while await stdin.read():
        pass
    return 0


async def echo(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Write the input to stdout."""
    while data := await stdin.read():
        await stdout.write(data)
    return 0


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Step:
    """The script of one phase. May be changed while it is used.

    Attributes:
        delay_s: Its duration by the driver's clock, in seconds.
        held: The phase hangs until :meth:`release`, or until its limit.
        error: Raised at the end of the phase.
        failures: The number of times that the error is raised; then the phase succeeds.
    """

    delay_s: float = 0.0
    held: bool = False
    error: DriverError | None = None
    failures: float = math.inf
    _waiters: set[asyncio.Future[None]] = dataclasses.field(default_factory=set)

    @property
    def waiting(self) -> int:
        """Return the number of containers in this phase."""
        return len(self._waiters)

    @property
    def is_instant(self) -> bool:
        """Return whether the phase suspends nobody."""
        return not self.held and self.delay_s <= 0

    def release(self) -> None:
        """Let all containers continue, and hold no more."""
        self.held = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def run(self, phase: str, clock: Clock, limit_s: float = math.inf) -> None:
        """Run the phase.

        Raises:
            OutOfTime: The phase took longer than ``limit_s``.
            DriverError: The script's error.
        """
        if not self.is_instant:
            await self._wait(phase, clock, limit_s)
        if self.error is not None and self.failures > 0:
            self.failures -= 1
            raise fresh(self.error)

    async def _wait(self, phase: str, clock: Clock, limit_s: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        takes_s = math.inf if self.held else self.delay_s
        late = OutOfTime(phase, limit_s) if takes_s > limit_s else None
        timer = None
        if math.isfinite(end_s := min(takes_s, limit_s)):
            timer = clock.call_at(clock.monotonic() + end_s, _finish, over, late)
        self._waiters.add(over)
        try:
            await over
        finally:
            self._waiters.discard(over)
            if timer is not None:
                timer.cancel()


def _finish(over: asyncio.Future[None], error: Exception | None) -> None:
    if over.done():
        return
    if error is None:
        over.set_result(None)
    else:
        over.set_exception(error)


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Script:
    """The life of a container.

    Attributes:
        main: What runs inside.
        is_present: The image is here; otherwise the first to need it pulls it.
        pull: How the pull goes, and so on for the other phases.
        metrics: What each sample says; the metrics it does not name are 0.
    """

    main: Program = stay
    is_present: bool = True
    pull: Step = dataclasses.field(default_factory=Step)
    create: Step = dataclasses.field(default_factory=Step)
    start: Step = dataclasses.field(default_factory=Step)
    freeze: Step = dataclasses.field(default_factory=Step)
    thaw: Step = dataclasses.field(default_factory=Step)
    remove: Step = dataclasses.field(default_factory=Step)
    metrics: Mapping[str, int] = dataclasses.field(default_factory=dict)
