"""The bounded buffer between a transport that delivers bytes and the one who reads them."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final

#: A transport is asked to pause above this many unread bytes, and to go on at or below a quarter of it.
HIGH_WATER: Final = 256 * 1024


class Readiness:
    """Asks the kernel about one descriptor, in about a microsecond."""

    __slots__ = ("_poll",)

    def __init__(self, fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def __call__(self) -> bool:
        """Something is there to read: bytes, or the end."""
        return bool(self._poll.poll(0))


class StreamBuffer:
    """A :class:`~hearth.drivers.base.ByteReader` that a transport feeds.

    Args:
        pause: Called when the buffer is full: stop reading from the container.
        resume: Called when there is room again.
        unseen: Whether bytes, or the end, wait in the kernel that the transport has not delivered yet.
    """

    __slots__ = ("_chunks", "_end", "_ended", "_pause", "_paused", "_resume", "_sink", "_size", "_unseen", "_waiter")

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], unseen: Callable[[], bool] = lambda: False
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._unseen = unseen
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._sink: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._end = asyncio.Event()

    def __repr__(self) -> str:
        return f"<StreamBuffer size={self._size} ended={self._ended} paused={self._paused}>"

    # -- the transport's side ---------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if self._sink is not None:
            self._sink(data)
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def feed_eof(self) -> None:
        """Take the end of the stream. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._end.set()
        if self._sink is not None:
            self._sink(b"")
        self._wake()

    @property
    def size(self) -> int:
        """How many bytes wait here."""
        return self._size

    @property
    def ended(self) -> bool:
        """The transport has delivered the end; bytes may still be unread."""
        return self._ended

    async def wait_ended(self) -> None:
        """Wait until the transport has delivered the end."""
        await self._end.wait()

    # -- the reader's side ------------------------------------------------------------------------------------------

    def quiet(self) -> bool:
        """Nothing waits to be read, neither here nor in the kernel, and the stream has not ended."""
        return not self._chunks and not self._ended and not self._unseen()

    def unseen(self) -> bool:
        """Something waits in the kernel."""
        return not self._ended and self._unseen()

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
            if self._waiter is not None:
                raise RuntimeError("a stream has one reader at a time")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return chunk

    def watch(self, sink: Callable[[bytes], None] | None) -> None:
        """Hand every byte to ``sink`` from now on, what is buffered first; ``None`` stops."""
        self._sink = None
        if sink is None:
            return
        while chunk := self.read_nowait():
            sink(chunk)
        self._sink = sink
        if self._ended:
            sink(b"")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
