"""A call's log in pieces, so that no reader has to hold all of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

#: The bytes of a log, in order. The caller that opened it closes it, even if it was not read to its end.
LogReader = AsyncGenerator[bytes, None]

#: Bytes of a piece: few queries for a log of a MiB, and little memory for many readers.
PIECE_BYTES: Final = 256 * 1024


async def in_pieces(first: bytes | None, read: Callable[[int], Awaitable[bytes | None]]) -> LogReader:
    """Yield a log whose first piece was read; ``read`` returns the piece at a position. A short piece is the last."""
    start, piece = 0, first
    while piece:
        yield piece
        start += len(piece)
        piece = await read(start) if len(piece) == PIECE_BYTES else None


async def read_all(reader: LogReader) -> bytes:
    """Read a log to its end, and close it."""
    async with aclosing(reader):
        return b"".join([piece async for piece in reader])
