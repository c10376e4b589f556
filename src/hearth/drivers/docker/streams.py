"""A container's streams over the Engine's attach endpoint, with back-pressure both ways.

The connection is an HTTP/1.1 request that is upgraded to raw bytes: what we write is stdin as it stands; what the
Engine writes is frames of eight bytes of head (stream, three zeros, length) and a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiodocker.exceptions import DockerError

from hearth.drivers.base import StreamClosed
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.init import MESSAGE_BYTES
from hearth.drivers.streams import HIGH_WATER, StreamBuffer, readiness

_HEAD: Final = 8


class Attachment(asyncio.Protocol):
    """One attached connection: feeds ``output`` with what the container writes, carries its stdin.

    Attributes:
        beginning: The first bytes of the output, in frames that came in one piece.
    """

    def __init__(self) -> None:
        self.output = StreamBuffer(self._pause_reading, self._resume_reading, self.has_unseen)
        self._upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upgraded.add_done_callback(_seen)
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._left = 0
        self.beginning = b""
        self._full = False
        self._aborted = False
        self._lost = False
        self._room: asyncio.Future[None] | None = None
        self._ready: Callable[[], object] | None = None

    # -- the transport's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        if (connection := self._transport.get_extra_info("socket")) is not None:  # hidden by TLS
            self._ready = readiness(connection.fileno())

    def data_received(self, data: bytes) -> None:
        """Take the answer to the request, then frames."""
        if self._left and not self._received and len(data) <= self._left:  # inside one frame: nothing to copy
            self._left -= len(data)
            self.output.feed(data)
            return
        self._received += data
        if not self._upgraded.done() and not self._take_answer():
            return
        self._take_frames()

    def eof_received(self) -> bool:
        """Note the end of the output; our side stays open for what is still to be written."""
        self.output.feed_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._lost = True
        self._ready = None
        self.output.feed_eof()
        self.resume_writing()
        if not self._upgraded.done():
            self._upgraded.set_exception(ConnectionResetError("the Docker Engine closed the connection"))

    def pause_writing(self) -> None:
        """Note that the container is not reading."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that there is room again."""
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _take_answer(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        status = bytes(self._received[:end]).partition(b" ")[2]
        del self._received[: end + 4]
        if status.startswith((b"101", b"200")):
            self._upgraded.set_result(None)
            return True
        code, _, reason = status.decode("latin-1").partition("\r\n")[0].partition(" ")
        body = self._received.decode("utf-8", "replace").strip()
        self._upgraded.set_exception(
            DockerError(int(code) if code.isdigit() else 500, f"attach: {body or reason}"[:300])
        )
        return False

    def _take_frames(self) -> None:
        while self._received:
            if self._left == 0:
                if len(self._received) < _HEAD:
                    return
                self._left = int.from_bytes(self._received[4:_HEAD], "big")
                del self._received[:_HEAD]
                continue
            chunk = bytes(self._received[: self._left])
            del self._received[: len(chunk)]
            self._left -= len(chunk)
            if len(self.beginning) < MESSAGE_BYTES:
                self.beginning += chunk[:MESSAGE_BYTES]
            self.output.feed(chunk)

    # -- the owner's side -----------------------------------------------------------------------------------------

    async def open(self, engine: Engine, container_id: str, streams: str) -> None:
        """Attach to a container that is made but not yet started.

        Args:
            engine: Whose container it is.
            container_id: Whose streams.
            streams: Which, as query parameters: ``stdin=1&stdout=1``.

        Raises:
            OSError: The Engine cannot be reached.
            DockerError: It does not attach.
        """
        await engine.connect(self)
        assert self._transport is not None
        if self._aborted:
            self._transport.abort()
            raise ConnectionAbortedError("given up while it was being opened")
        self._transport.write(
            f"POST /containers/{container_id}/attach?stream=1&{streams} HTTP/1.1\r\nHost: docker\r\n"
            "Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        await self._upgraded

    async def write(self, data: bytes) -> None:
        """Hand bytes to the container's stdin; waits while it is not reading."""
        if self._lost or self._transport is None or self._transport.is_closing():
            raise StreamClosed("the container closed its stdin")
        self._transport.write(data)
        if not self._full:
            return
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None
        if self._lost:
            raise StreamClosed("the container closed its stdin")

    @property
    def pending(self) -> int:
        """Return the bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def unread(self) -> int | None:
        """Return ``None``: the Engine is in between."""
        return None

    def close(self) -> None:
        """Send an end of file to the container, once all was handed over."""
        if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def has_unseen(self) -> bool:
        """Return whether output waits in the kernel, or has come only in part; false once it has ended."""
        if self.output.ended:
            return False
        return self._left > 0 or bool(self._received) or (self._ready is not None and bool(self._ready()))

    def abort(self) -> None:
        """Close the connection, whatever is still under way; if it is still being opened, as soon as it is open."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _seen(upgraded: asyncio.Future[None]) -> None:
    """Retrieve the error: the waiting task may have given up."""
    if not upgraded.cancelled():
        upgraded.exception()
