"""One call over a connection to one container.

A connection serves one call after another, as long as each call leaves nothing on it: a request that was read to its
end, one whole answer, and nothing after it. Otherwise it is closed. An answer therefore cannot reach another call than
its own, and the container may serve on.
"""

from __future__ import annotations

from typing import Final

from hearth.aio.beside import run_beside
from hearth.contracts.base import ExchangeCall
from hearth.contracts.http_stream.answer import BodyTooLarge, StreamDecoder
from hearth.contracts.stdio.codec import InvalidOutput, is_surplus
from hearth.contracts.stdio.exchange import StdioContract, StdioExchange
from hearth.contracts.stdio.http import HeadTooLarge
from hearth.contracts.stdio.input import PIECE_BYTES, InputWriter
from hearth.drivers.base import Container, StreamClosed
from hearth.drivers.sockets import Connection, Listener
from hearth.models.errors import (
    AnswerHeadTooLarge,
    AnswerTooLarge,
    FunctionBroken,
    FunctionFailed,
    FunctionGone,
    HearthError,
)

#: Servers of HTTP read a request up to this size at once: an answer while some of it is unread is the answer to the
#: request before. A longer request gets a connection of its own, on which there was none.
_READ_AT_ONCE: Final = 4096
#: How long a container that closed its connection may take to exit before it is taken for alive, seconds. An Engine
#: tells of an exit late on a busy machine; the call has failed in any case.
EXIT_GRACE_S: Final = 2.0


class _Stale(HearthError):
    """The function had closed the connection before it read anything of this call."""


class SocketExchange(StdioExchange):
    """The request of one call out, its answer in.

    Where other calls run in the same container, one that was given up does not end it: its connection is left to the
    function, which ends that call.

    Args:
        keeps: The connection may serve another call. A container that is not proven to write one answer to each call
            gets a connection for each: whatever it writes late reaches nobody.
    """

    __slots__ = ("_channel", "_closes", "_connection", "_is_broken", "_is_kept", "_is_refused")

    def __init__(
        self, contract: StdioContract, call: ExchangeCall, container: Container, *, fresh: bool, keeps: bool = True
    ) -> None:
        super().__init__(contract, call, container, fresh=fresh)
        self._channel: Listener = container.channel
        self._connection: Connection | None = None
        self._is_kept = False
        self._is_refused = self._is_broken = False
        self._closes = not keeps

    def is_clean(self) -> bool:
        """Return whether the container may serve another call; keep its connection if that may, too."""
        connection, self._connection = self._connection, None
        alive: bool = self._container.exited is None and not (self._dead or self.surplus)
        if connection is None:
            return alive
        if not self.touched and alive:
            self._channel.keep(connection)
            return True
        complete = self._complete and alive
        if self._channel.is_shared and alive and not (complete or self._is_broken):  # the call was given up
            self._channel.leave(connection)
            return True
        is_spent = self._input.is_complete and (self._is_read or connection.writer.unread() == 0)
        if complete and is_spent and not self._closes:
            self._channel.keep(connection)
        else:
            connection.close()
        return complete or (self._is_refused and alive)

    async def run(self) -> None:
        """Run the call to the end of its answer."""
        kept = self._channel.take()
        self.surplus = self._channel.had_surplus
        self._connection = connection = kept or await self._connected()
        self._is_kept = kept is not None
        self._input = InputWriter(self._call, connection.writer)
        data = self._whole_input()
        if data is None:
            data = await self._input.first(self._contract.encoder(self._seen))
        if self._is_kept and not self._fresh and not (self._input.is_converted and len(data) <= _READ_AT_ONCE):
            connection = await self._replaced(connection)
        try:
            await self._talk(connection, data)
        except _Stale:
            await self._talk(await self._replaced(connection), data)

    async def _replaced(self, connection: Connection) -> Connection:
        connection.close()
        self._connection, self._is_kept = None, False
        self._connection = connection = await self._connected()
        self._input.stdin = connection.writer
        return connection

    def _is_knock_unread(self) -> bool:
        return bool(self._stdin.unread() != 0)

    async def _connected(self) -> Connection:
        try:
            return await self._channel.connect_soon()
        except StreamClosed as exc:
            if self._fresh:
                await self._exit_soon(EXIT_GRACE_S)  # the record is to tell how it ended
                raise self._lost() from exc
            raise self._gone() from None

    async def _talk(self, connection: Connection, data: bytes) -> None:
        """Send the request on a connection, and read the answer.

        Raises:
            _Stale: The call may go over another connection.
        """
        self._stdin, self._stdout = connection.writer, connection.reader
        self.touched = True
        self._input.handed = 0
        is_open = True
        try:
            if not (self._is_kept or self._fresh):  # the system takes connections for a container that exits
                data = await self._knock(data)
            first = data[:PIECE_BYTES]
            self._input.handed += len(first)
            await self._stdin.write(first)
        except StreamClosed:
            if self._is_kept:
                raise _Stale from None
            if not self._fresh:
                raise self._gone() from None
            is_open = False  # it may have answered
        if is_open and not (self._input.is_converted and len(data) <= PIECE_BYTES):
            await run_beside(self._read_answer(), self._write_rest(data))
        else:
            self._input.is_complete = is_open
            await self._read_answer()
        if isinstance(self._decoder, StreamDecoder):
            self._closes = self._closes or self._decoder.closes
            if self._decoder.error is not None:
                raise self._decoder.error()

    def _refuse_stray(self, piece: bytes) -> None:
        """Give the container up if it answers a request that it has not read: the answer belongs to the call before."""
        if not piece or self._is_started:
            return
        self._is_read = self._input.is_complete and self._stdin.unread() == 0
        if self._is_read or not self._is_kept or self._fresh or self._stdin.unread() == 0:
            return
        self.surplus = True
        if self._seen.content_length == 0:
            raise self._gone()
        raise self._lost()

    def _take_rest(self, data: bytes) -> None:
        """Note what follows the answer: the end of the connection, or what belongs to no call."""
        if not data:
            self._closes = True
        elif is_surplus(data):
            self.surplus = True

    async def _output_ended(self) -> None:
        """Judge the answer of a function that closed the connection."""
        try:
            self._events += self._decoded_end()
        except InvalidOutput as exc:
            was_unread = self._connection is not None and self._connection.was_reset
            if self._is_kept and was_unread and not self._is_started and self._seen.content_length == 0:
                raise _Stale from None
            await self._exit_soon(EXIT_GRACE_S)  # the record is to tell how it ended
            raise self._lost() from exc
        self._closes = True
        await self._deliver()

    def _lost(self) -> FunctionFailed:
        self._dead = True
        ended = self._container.exited
        if ended is None:
            return FunctionGone()
        return FunctionGone(detail="container out of memory" if ended.oom else f"container exit code {ended.code}")

    def _invalid(self, exc: InvalidOutput) -> FunctionFailed:
        self._is_broken = True
        if isinstance(exc, BodyTooLarge):
            self._is_refused = True
            return AnswerTooLarge()
        return AnswerHeadTooLarge() if isinstance(exc, HeadTooLarge) else FunctionBroken(detail=str(exc))
