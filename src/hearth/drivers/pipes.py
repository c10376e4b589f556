"""The ends of a child's pipes that this process holds: non-blocking, bounded, closed as soon as possible."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import select
import struct
import termios
from typing import Final

from hearth.drivers.base import StreamClosed
from hearth.drivers.streams import HIGH_WATER, StreamBuffer

_READ_BYTES: Final = 64 * 1024
_INT: Final = struct.Struct("i")
_NO_BYTES: Final = bytes(_INT.size)


class PipeReader(StreamBuffer):
    """Holds what the child writes, as long as there is room. Owns the descriptor."""

    __slots__ = ("_fd", "_loop", "_poll")

    def __init__(self) -> None:
        self._poll = select.poll()
        super().__init__(self._stop_reading, self._read_on, functools.partial(self._poll.poll, 0))
        self._loop = asyncio.get_running_loop()
        self._fd = -1

    def connect(self, fd: int) -> None:
        """Take a descriptor, and read it from now on."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._poll.register(fd, select.POLLIN)
        self._loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """Take what a child that is gone has left, which a pipe bounds, and end."""
        left = _unread(self._fd) if self._fd >= 0 else 0
        while left > 0 and self._fd >= 0:
            data = os.read(self._fd, left)
            self.feed(data)
            left = left - len(data) if data else 0
        self.close()

    def close(self) -> None:
        """End the stream, free the descriptor. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.feed_eof()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
        elif self._sink is not None:  # what feed does, without one more function in each call
            self._sink(data)
        else:
            self.feed(data)

    def _stop_reading(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def _read_on(self) -> None:
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
        taken = 0
        if not self._queue:
            try:
                taken = os.write(self._fd, data)
            except BlockingIOError:
                pass
            except OSError as exc:
                self.lose()
                raise StreamClosed("the function closed its stdin") from exc
            if taken == len(data):
                return
            self._loop.add_writer(self._fd, self._write_on)
        self._queue += data[taken:]
        if len(self._queue) > HIGH_WATER:
            await self._wait_for_room()

    @property
    def pending(self) -> int:
        """Return the bytes that the kernel has not taken yet."""
        return len(self._queue)

    def unread(self) -> int | None:
        """Return how many bytes the function has not read."""
        if self._fd < 0:
            return len(self._queue)
        (piped,) = _INT.unpack(fcntl.ioctl(self._fd, termios.FIONREAD, _NO_BYTES))
        return len(self._queue) + int(piped)

    def close(self) -> None:
        """Send an end of file to the function, once all was handed over."""
        self._closing = True
        if not self._queue:
            self.lose()

    def lose(self) -> None:
        """Free the descriptor and wake the waiting writer: the function will read no more. Idempotent."""
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

    def _write_on(self) -> None:
        try:
            taken = os.write(self._fd, self._queue)
        except BlockingIOError:
            return
        except OSError:
            self.lose()  # the waiting writer gets its error, and so does the next one
            return
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
    count: int = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _NO_BYTES))[0]
    return count
