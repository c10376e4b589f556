"""One call over one container's streams, through its format (protocols specification 6.3-6.5, 9).

Runs in the request's own task. Input is written and output read at the same time; a second task exists only while a
body is still arriving or is too large to be handed over in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hearth.agent.call import ActiveCall, ResponseSink
from hearth.drivers.base import ByteReader, Container, Exit, StreamClosed
from hearth.models.errors import ContainerExited, FunctionFailed, HearthError, InvalidResponse, OutOfMemory
from hearth.protocols.base import Body, Encoder, End, Event, Head, InvalidOutput, is_surplus
from hearth.telemetry.logs import get_logger

#: Input up to this many bytes is handed over without a task of its own: less than any driver buffers.
_INLINE_BYTES: Final = 64 * 1024
#: Pieces in which a large input is handed over.
_PIECE_BYTES: Final = 64 * 1024
#: How long a container that ended its output may take to exit before its answer is judged without an exit code. The
#: Engine of a busy machine tells of an end seconds after it has ended the streams.
_EXIT_GRACE_S: Final = 10.0
#: Turns of the loop that stderr is given to come in; a function that writes without a pause is not waited for.
_TURNS: Final = 64

_log = get_logger(__name__)


class ContainerGone(HearthError):
    """The container died before the first input byte was handed over: not the call's failure."""


class Exchange:
    """One call's input out, its answer in.

    Args:
        fresh: The container has served no call yet: that it is dead is then the function's failure, not bad luck.
        sink: Where the answer goes, if not to the call's own sink.
    """

    __slots__ = (
        "_call",
        "_complete",
        "_container",
        "_dead",
        "_decoder",
        "_fresh",
        "_input",
        "_input_written",
        "_sink",
        "_touched",
    )

    def __init__(
        self, call: ActiveCall, container: Container, *, fresh: bool, sink: ResponseSink | None = None
    ) -> None:
        self._call = call
        self._container = container
        self._fresh = fresh
        self._sink = sink or call.sink
        self._dead = False
        self._touched = False
        self._input_written = False
        self._complete = False
        self._input = call.input()
        self._decoder = call.function.protocol.decoder(self._input)

    @property
    def clean(self) -> bool:
        """Whether the container may serve another call.

        Either nothing passed in any direction, or all of the input went out, one whole answer came in, and nothing
        but whitespace after it.
        """
        if self._dead or self._container.exited is not None:
            return False
        if not self._touched:
            return True
        return self._complete and self._input_written and self._container.stdin.pending == 0 and self._output_is_spent()

    async def run(self) -> None:
        """Run it to the end of the answer; what the function wrote to stderr before that is delivered by then.

        Raises:
            ContainerGone: Take another container.
            FunctionFailed: The function exited, or its output is no answer.
            ClientGone: The client left before the end of its body.
        """
        try:
            await self._run()
        except FunctionFailed:
            await catch_up(self._container.stderr)
            raise
        await catch_up(self._container.stderr)

    async def _run(self) -> None:
        # The first piece of the client's body, or its end, comes before the first input byte: a client that never
        # sends its body leaves the container untouched.
        first = self._call.first_piece
        if first is None:
            first = self._call.first_piece = await self._call.body.read()
        if not self._fresh:
            await self._check_alive()
        encoder = self._call.function.protocol.encoder(self._input)
        data = encoder.body(first) if first else b""
        if self._call.body.ended:
            data += encoder.end()
            if len(data) <= _INLINE_BYTES:
                await self._write_whole(data)
                self._warn_if_lossy(encoder)
                await self._read_answer()
                return
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write_all(data, encoder))
                await self._read_answer()
                writer.cancel()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    # -- input ------------------------------------------------------------------------------

    async def _check_alive(self) -> None:
        """Its last answer must have been one answer: what has come after it by now, even to the kernel, shows here."""
        stdout = self._container.stdout
        while not stdout.quiet():
            data = stdout.read_nowait()
            if data is None:
                data = await stdout.read()
            if not data or is_surplus(data):
                raise self._gone()
        if self._container.exited is not None:
            raise self._gone()

    def _gone(self) -> ContainerGone:
        self._dead = True
        return ContainerGone()

    async def _write_whole(self, data: bytes) -> None:
        try:
            await self._container.stdin.write(data)
        except StreamClosed:
            if not self._fresh:
                raise self._gone() from None
            self._touched = True
        else:
            self._touched = True
            self._end_input()

    async def _write_all(self, data: bytes, encoder: Encoder) -> None:
        """Write what there is, then what the client still sends. A function need not take it: its answer decides."""
        body = self._call.body
        self._touched = True
        try:
            await self._write_pieces(data)
            while not body.ended:
                piece = await body.read()
                data = encoder.body(piece) if piece else b""
                if body.ended:
                    data += encoder.end()
                    self._warn_if_lossy(encoder)
                await self._write_pieces(data)
        except StreamClosed:
            return
        self._end_input()

    async def _write_pieces(self, data: bytes) -> None:
        if len(data) <= _PIECE_BYTES:
            if data:
                await self._container.stdin.write(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            await self._container.stdin.write(bytes(view[start : start + _PIECE_BYTES]))

    def _end_input(self) -> None:
        self._input_written = True
        if not self._call.function.protocol.hot:
            self._container.stdin.close()

    def _warn_if_lossy(self, encoder: Encoder) -> None:
        if encoder.lossy:
            record = self._call.record
            _log.warning(
                "body is not UTF-8, its bytes are damaged in this format",
                call_id=record.id,
                app_name=record.app_name,
                path=record.path,
            )

    # -- output ------------------------------------------------------------------------------

    async def _read_answer(self) -> None:
        stdout = self._container.stdout
        while True:
            data = stdout.read_nowait()
            if data is None:
                data = await stdout.read()
            self._touched = True
            if not data:
                await self._output_ended()
                return
            try:
                events = self._decoder.feed(data)
            except InvalidOutput as exc:
                raise self._invalid(exc) from exc
            if await self._deliver(events):
                return

    async def _deliver(self, events: Sequence[Event]) -> bool:
        """Hand events to the client; whether the answer has ended."""
        count = len(events)
        for index, event in enumerate(events):
            if isinstance(event, Body):
                last = index + 1 < count and isinstance(events[index + 1], End)
                await self._sink.write(event.data, last=last)
            elif isinstance(event, Head):
                self._sink.head(event)
            else:
                self._complete = not event.surplus
                self._sink.complete()
                return True
        return False

    async def _output_ended(self) -> None:
        """The function closed its stdout, most likely because it exited."""
        try:
            events = self._decoder.feed_eof()
        except InvalidOutput as exc:
            ended = await self._exit_soon()
            if ended is not None and (ended.code or not self._decoder.started):
                raise exit_error(ended) from None
            raise self._invalid(exc) from exc
        if self._call.function.protocol.hot:
            await self._deliver(events)
            return
        ended = await self._container.wait()
        if ended.code:
            raise exit_error(ended)
        await self._deliver(events)

    async def _exit_soon(self) -> Exit | None:
        if (ended := self._container.exited) is not None:
            return ended
        try:
            async with asyncio.timeout(_EXIT_GRACE_S):
                return await self._container.wait()
        except TimeoutError:
            return None

    def _output_is_spent(self) -> bool:
        """Nothing but whitespace waits in the container's output, and it has not ended."""
        stdout = self._container.stdout
        while (rest := stdout.read_nowait()) is not None:
            if not rest or is_surplus(rest):
                return False
        return True

    def _invalid(self, exc: InvalidOutput) -> InvalidResponse:
        return InvalidResponse(self._call.function.protocol.name, str(exc))


async def catch_up(stderr: ByteReader) -> None:
    """Let the loop deliver what has come of a stream that is watched."""
    for _ in range(_TURNS):
        if not stderr.unseen():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        handle = asyncio.get_running_loop().call_soon(turn.set_result, None)
        try:
            await turn
        finally:
            handle.cancel()


def exit_error(ended: Exit) -> FunctionFailed:
    """What the client of a call is told whose container ended."""
    return OutOfMemory() if ended.oom else ContainerExited(ended.code)
