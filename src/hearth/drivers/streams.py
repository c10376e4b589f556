"""The bounded buffer between a transport that delivers bytes and their reader."""

from __future__ import annotations

import asyncio
import functools
import select
from collections import deque
from collections.abc import Callable
from typing import Final

#: A transport pauses above this many unread bytes, and goes on at or below a quarter of it.
HIGH_WATER: Final = 256 * 1024


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


def _do_nothing() -> None:
    """Do nothing: a transport that has ended is neither paused nor resumed."""


def _never() -> bool:
    return False


def _drop(data: bytes) -> None:
    """Drop bytes that nobody reads."""
