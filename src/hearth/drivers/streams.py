"""The streams of a container: the bounded buffer between a transport and the reader, and the ends of pipes.

The ends of a child's pipes that this process holds are non-blocking, bounded, and closed as soon as possible.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import select
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Final

from hearth.drivers.base import StreamClosed

#: A transport pauses above this many unread bytes, and goes on at or below a quarter of it.
HIGH_WATER: Final = 256 * 1024
_READ_BYTES: Final = 64 * 1024
_INT: Final = struct.Struct("i")
_NO_BYTES: Final = bytes(_INT.size)


def readiness(fd: int) -> Callable[[], object]:
    """Return a function that asks the kernel whether a descriptor has bytes, or its end, to read.

    Each question takes about a microsecond. The answer is a truth value.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return functools.partial(poll.poll, 0)


class StreamBuffer:
    """A :class:`~hearth.drivers.base.ByteReader` that a transport feeds.

    Args:
        pause: Called when the buffer is full: stop reading from the container.
        resume: Called when there is room again.
        unseen: Returns whether bytes, or the end, wait in the kernel that the transport has not delivered yet. It may
            be asked after the end, too.

    Attributes:
        unseen: The same.
    """

    __slots__ = ("_arrival", "_chunks", "_end", "_ended", "_pause", "_paused", "_resume", "_sink", "_size", "unseen")

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], unseen: Callable[[], object] = lambda: False
    ) -> None:
        self.unseen = unseen
        self._pause = pause
        self._resume = resume
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._sink: Callable[[bytes], None] | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._end = asyncio.Event()

    def __repr__(self) -> str:
        return f"<StreamBuffer size={self._size} ended={self._ended} paused={self._paused}>"

    # -- the transport's side ---------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if self._sink is not None and not self._chunks:
            self._sink(data)
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()
        self._announce()

    def feed_eof(self) -> None:
        """Take the end of the stream, and let go of transport and sink, which may refer to this buffer. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._end.set()
        sink, self._sink = self._sink, None
        self._pause = self._resume = _do_nothing
        self.unseen = _never
        if sink is not None:
            sink(b"")
        self._announce()

    @property
    def size(self) -> int:
        """Return how many bytes wait here."""
        return self._size

    @property
    def ended(self) -> bool:
        """True once the transport has delivered the end; bytes may still be unread."""
        return self._ended

    async def wait_ended(self) -> None:
        """Wait until the transport has delivered the end."""
        await self._end.wait()

    # -- the reader's side ------------------------------------------------------------------------------------------

    def quiet(self) -> bool:
        """Return whether nothing waits to be read, neither here nor in the kernel, and the stream has not ended."""
        return not (self._chunks or self._ended or self.unseen())

    def read_nowait(self, max_bytes: int = 65536) -> bytes | None:
        """Take what has arrived; ``None`` if nothing has, ``b""`` at the end."""
        if not self._chunks:
            return b"" if self._ended else None
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._size -= len(chunk)
        if self._paused and self._size <= HIGH_WATER // 4:
            self._paused = False
            self._resume()
        return chunk

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes and take up to ``max_bytes`` of them; ``b""`` at the end."""
        while (chunk := self.read_nowait(max_bytes)) is None:
            if self._arrival is not None:
                raise RuntimeError("a stream has one reader at a time")
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        return chunk

    def watch(self, sink: Callable[[bytes], None] | None, *, unused: bytes = b"") -> None:
        """Hand every byte to ``sink`` from now on, what is buffered first; ``None`` stops.

        Args:
            sink: Takes the bytes.
            unused: Bytes that the sink before was given and did not use; they come first again.
        """
        self._sink = sink
        if unused:
            self._chunks.appendleft(unused)
            self._size += len(unused)
        if sink is None:
            return
        while self._chunks and self._sink is sink:  # it may stop the watch
            sink(self.read_nowait() or b"")
        if self._ended and self._sink is sink:
            self._sink = None
            sink(b"")

    def discard(self) -> None:
        """Drop all further bytes, which nobody will read, unless somebody watches the buffer."""
        if self._sink is None:
            self.watch(_drop)

    def _announce(self) -> None:
        """Wake the reader, unless it has given up in this turn of the loop."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class PipeReader(StreamBuffer):
    """Holds what the other end writes, as long as there is room. Owns the descriptor.

    Attributes:
        was_reset: The other end of a connection was closed without reading all that it was sent.
    """

    __slots__ = ("_fd", "_loop", "_poll", "was_reset")

    def __init__(self) -> None:
        self._poll = select.poll()
        super().__init__(self._stop_reading, self._read_on, functools.partial(self._poll.poll, 0))
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self.was_reset = False

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
        except ConnectionResetError:
            self.was_reset = True
            self.close()
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


def _do_nothing() -> None:
    """Do nothing: a transport that has ended is neither paused nor resumed."""


def _never() -> bool:
    return False


def _drop(data: bytes) -> None:
    """Drop bytes that nobody reads."""
