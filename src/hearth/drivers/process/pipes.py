"""The ends of a child's pipes that this process holds: non-blocking, bounded, closed as soon as they are of no use."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from typing import Final

from hearth.drivers.base import StreamClosed
from hearth.drivers.streams import HIGH_WATER, Readiness, StreamBuffer

_READ_BYTES: Final = 64 * 1024


class PipeReader:
    """Feeds ``buffer`` with what the child writes, as long as the buffer has room. Owns the descriptor."""

    __slots__ = ("_fd", "_loop", "_ready", "buffer")

    def __init__(self) -> None:
        self.buffer = StreamBuffer(self._pause, self._resume, self._is_ready)
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._ready: Readiness | None = None

    def connect(self, fd: int) -> None:
        """Take a descriptor, and read it from now on."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._ready = Readiness(fd)
        self._loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """The child is gone: take what it left, which a pipe bounds, and end."""
        left = _unread(self._fd) if self._fd >= 0 else 0
        while left > 0 and self._fd >= 0:
            data = os.read(self._fd, left)
            self.buffer.feed(data)
            left = left - len(data) if data else 0
        self.close()

    def close(self) -> None:
        """End the buffer, free the descriptor. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd, self._ready = -1, None
        self.buffer.feed_eof()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self.buffer.feed(data)
        else:
            self.close()

    def _is_ready(self) -> bool:
        return self._ready is not None and self._ready()

    def _pause(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)


class PipeWriter:
    """The child's stdin. Owns the descriptor."""

    __slots__ = ("_closing", "_fd", "_loop", "_queue", "_room")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._queue = bytearray()
        self._closing = False
        self._room: asyncio.Future[None] | None = None

    def connect(self, fd: int) -> None:
        """Take a descriptor."""
        os.set_blocking(fd, False)
        self._fd = fd

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits while the function is not reading."""
        if self._fd < 0 or self._closing:
            raise StreamClosed("the function closed its stdin")
        if not self._queue:
            taken = self._hand_over(data)
            if taken == len(data):
                return
            data = data[taken:]
            self._loop.add_writer(self._fd, self._write_on)
        self._queue += data
        if len(self._queue) > HIGH_WATER:
            await self._wait_for_room()

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._queue)

    def close(self) -> None:
        """End of file for the function, once all was handed over."""
        self._closing = True
        if not self._queue:
            self.lose()

    def lose(self) -> None:
        """The function will read no more: free the descriptor, tell who waits. Idempotent."""
        if self._fd >= 0:
            if self._queue:
                self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._queue.clear()
        self._make_room()

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None
        if self._fd < 0:
            raise StreamClosed("the function closed its stdin")

    def _hand_over(self, data: bytes | bytearray) -> int:
        """How much the kernel took.

        Raises:
            StreamClosed: Nobody reads any more.
        """
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self.lose()
            raise StreamClosed("the function closed its stdin") from exc

    def _write_on(self) -> None:
        try:
            taken = self._hand_over(self._queue)
        except StreamClosed:
            return  # who waits has been told, and who writes next will be
        del self._queue[:taken]
        if not self._queue:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self.lose()
        if len(self._queue) <= HIGH_WATER // 4:
            self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _unread(fd: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return count
