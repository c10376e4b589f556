"""Writes the input of one call to a container's stdin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from hearth.aio.clock import next_turn
from hearth.aio.loop_share import loop_share
from hearth.contracts.base import ExchangeCall
from hearth.contracts.stdio.codec import Encoder
from hearth.drivers.base import ByteWriter
from hearth.telemetry.logs import get_logger

#: Pieces in which input is written, bytes. The first never waits: any driver buffers more. So input up to this size
#: needs no task of its own.
PIECE_BYTES: Final = 64 * 1024
#: Shorter pieces of input or output are converted at once: that takes no time worth sharing with other calls.
SHORT_BYTES: Final = 1024

T = TypeVar("T")

_log = get_logger(__name__)


class InputWriter(msgspec.Struct, eq=False):
    """The input of one call on its way to stdin.

    What is read of the client's body is kept in the call until the function has certainly read some of it: until then
    the call can move to another container.

    Attributes:
        call: Whose input it is.
        stdin: Where it goes.
        handed: Bytes that were handed over.
        is_converted: All of the body was converted. The body itself ends earlier: as soon as its end has arrived.
        is_complete: All of the input was handed over.
        is_repeatable: The call's ``kept_body`` holds all of the body that was handed over.
        encoder: Its format; ``None`` for input that was composed as a whole.
    """

    call: ExchangeCall
    stdin: ByteWriter
    handed: int = 0
    is_converted: bool = False
    is_complete: bool = False
    is_repeatable: bool = True
    encoder: Encoder | None = None

    @property
    def is_unread(self) -> bool:
        """True if the function has certainly read nothing of what was handed over."""
        unread = self.stdin.unread()
        return unread is not None and unread >= self.handed

    def is_spent(self, spare: int) -> bool:
        """Return whether stdin holds nothing that the function would take for input of its next call.

        Args:
            spare: Bytes at the end of an input that a function may leave unread.
        """
        unread = self.stdin.unread()
        return self.is_complete and (self.stdin.pending == 0 if unread is None else unread <= spare)

    async def first(self, encoder: Encoder) -> bytes:
        """Wait for the first bytes to write: until then the container is untouched, whatever the client does."""
        self.encoder = encoder
        body, kept = self.call.body, self.call.kept_body
        data = b""
        for piece in kept:
            data += await converted(encoder.body, piece)
        while not data and not body.ended:
            if piece := await body.read():
                kept.append(piece)
                data = await converted(encoder.body, piece)
        return data + self._end(encoder) if body.ended else data

    async def write(self, data: bytes) -> None:
        """Write some bytes.

        Raises:
            StreamClosed: The function has closed its stdin.
        """
        self.handed += len(data)
        await self.stdin.write(data)

    async def write_rest(self, data: memoryview) -> None:
        """Write ``data``, then what the client still sends.

        Raises:
            StreamClosed: The function has closed its stdin.
        """
        body, encoder = self.call.body, self.encoder
        await self._write_pieces(data)
        if encoder is None:
            return
        while not self.is_converted:
            piece = await body.read()
            if piece and self.is_repeatable:
                self.call.kept_body.append(piece)
            converted_piece = await converted(encoder.body, piece) if piece else b""
            if body.ended:
                converted_piece += self._end(encoder)
            await self._write_pieces(memoryview(converted_piece))
        for piece in encoder.rest():
            await self._write_pieces(memoryview(piece))

    def _end(self, encoder: Encoder) -> bytes:
        self.is_converted = True
        data = encoder.end()
        if encoder.lossy:
            _log.warning("body is not UTF-8, its bytes are damaged in this format", **self.call.log_fields())
        return data

    async def _write_pieces(self, data: memoryview) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            await self.write(bytes(data[start : start + PIECE_BYTES]))
            if self.is_repeatable and not self.is_unread:
                self.is_repeatable = False
                self.call.kept_body.clear()
            await next_turn()  # a function that reads as fast as this writes never makes it wait


async def converted(convert: Callable[[bytes], T], piece: bytes) -> T:
    """Convert a piece of input or output: a short one at once, others in a turn of the loop with time left."""
    if len(piece) <= SHORT_BYTES:
        return convert(piece)
    share = loop_share()
    await share.turn()
    with share:
        return convert(piece)
