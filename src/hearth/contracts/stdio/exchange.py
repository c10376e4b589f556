"""One call over the stdin and stdout of one container (protocols specification 6.3-6.5, 9).

Runs in the request's own task. Input is written and output read at the same time; a second task exists only while a
body is still arriving or is too large to be written in one piece. A short answer is decoded in the callback of the
transport, so that the task wakes once, when there is something to deliver. The usual call, with a short body that is
here and a short answer that arrives in one piece, needs neither an encoder nor a decoder: see
:meth:`StdioContract.whole_input` and :meth:`StdioContract.whole_answer`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from typing import Final

from hearth.aio.beside import run_beside
from hearth.aio.clock import next_turn
from hearth.contracts.base import CallInput, ContainerGone, Contract, Exchange, ExchangeCall, Head, ResponseSink
from hearth.contracts.stdio.codec import Body, Decoder, Encoder, End, Event, InvalidOutput, is_surplus
from hearth.contracts.stdio.input import PIECE_BYTES, SHORT_BYTES, InputWriter, converted
from hearth.drivers.base import Container, Exit, StreamClosed
from hearth.models.errors import (
    ContainerExited,
    ContainerStartFailed,
    FunctionFailed,
    InvalidResponse,
    OutOfMemory,
)

#: How long a container that ended its output may take to exit before its answer is judged without an exit code. The
#: Engine of a busy machine reports an end seconds after it has ended the streams.
_EXIT_GRACE_S: Final = 10.0
#: Turns of the loop to wait for a function that reads its first byte, before waiting by time.
_TURNS: Final = 64
#: Seconds between two looks at whether a function has read a byte: at first, and at most.
_FIRST_WAIT_S: Final = 0.001
_MAX_WAIT_S: Final = 0.016


class StdioContract(Contract):
    """A format over stdin and stdout: makes the encoder and decoder of each call."""

    spare_input: int = 0
    """Bytes at the end of an input that mean nothing: a function may leave them for its next read."""
    piece_bytes: int = 32 * 1024
    """Bytes of output that are decoded at once."""

    @abc.abstractmethod
    def encoder(self, call: CallInput) -> Encoder:
        """Make the writer of one call's input."""

    @abc.abstractmethod
    def decoder(self, call: CallInput) -> Decoder:
        """Make the reader of one call's answer (it depends on the method: an answer to HEAD has no body)."""

    def whole_input(self, call: CallInput, body: bytes) -> bytes | None:
        """Return all that an encoder returns for a body that is here; ``None`` if that takes an encoder."""
        return None

    def whole_answer(self, call: CallInput, data: bytes) -> tuple[Head, bytes] | None:
        """Return the answer that these bytes are, with its body.

        ``None`` if they are anything but one answer, to its last byte: a decoder says what they are.
        """
        return None

    def exchange(
        self, call: ExchangeCall, container: Container, *, fresh: bool, on_probation: bool = False
    ) -> Exchange:
        """Make the exchange of one call."""
        return StdioExchange(self, call, container, fresh=fresh, on_probation=on_probation)


class StdioExchange(Exchange):
    """The input of one call out, its answer in.

    Args:
        sink: Where the answer goes, if not to the call's own sink.
    """

    __slots__ = (
        "_answer",
        "_call",
        "_complete",
        "_container",
        "_contract",
        "_dead",
        "_decoder",
        "_events",
        "_fresh",
        "_input",
        "_is_read",
        "_on_probation",
        "_seen",
        "_sink",
        "_stdin",
        "_stdout",
        "_waking",
    )

    def __init__(
        self,
        contract: StdioContract,
        call: ExchangeCall,
        container: Container,
        *,
        fresh: bool,
        on_probation: bool = False,
        sink: ResponseSink | None = None,
    ) -> None:
        self.status = 0
        self.touched = self.surplus = False
        self._call = call
        self._seen = call.input()
        self._contract = contract
        self._container = container
        self._fresh = fresh
        self._on_probation = on_probation and not fresh
        self._sink = sink or call.sink
        self._is_read = False  # the function has read all of its input
        self._decoder: Decoder | None = None
        self._answer: tuple[Head, bytes] | None = None
        self._events: list[Event] = []
        self._waking: asyncio.Future[None] | None = None
        self._dead = False
        self._complete = False

    def is_clean(self) -> bool:
        """Return whether the container may serve another call."""
        if self._dead or self._container.exited is not None:
            return False
        if not self.touched:
            return True
        return self._complete and (self._is_read or self._input.is_spent(self._contract.spare_input))

    async def run(self) -> None:
        """Run the call to the end of its answer."""
        channel = self._container.channel
        self._stdin, self._stdout = channel.stdin, channel.stdout
        self._input = InputWriter(self._call, self._stdin)
        data = self._whole_input()
        if data is None:
            data = await self._input.first(self._contract.encoder(self._seen))
        if not self._fresh and not (self._stdout.quiet() and self._container.exited is None):
            await self._check_alive()
        is_open = True
        try:
            if self._on_probation:
                data = await self._knock(data)
            first = data[:PIECE_BYTES]
            self.touched = True
            self._input.handed += len(first)
            await self._stdin.write(first)
        except StreamClosed:
            if not self._fresh:
                raise self._gone() from None
            is_open = False  # it may still answer
        if is_open and not (self._input.is_converted and len(data) <= PIECE_BYTES):
            await run_beside(self._read_answer(), self._write_rest(data))
            return
        if is_open:
            self._end_input()
        await self._read_answer()

    # -- input ------------------------------------------------------------------------------

    def _whole_input(self) -> bytes | None:
        """Return all of the input if its body is short and here; ``None`` if it takes an encoder."""
        body, kept = self._call.body, self._call.kept_body
        whole = kept[0] if kept else b""
        if not (body.ended and len(kept) < 2 and len(whole) == self._seen.content_length and len(whole) <= SHORT_BYTES):
            return None
        data = self._contract.whole_input(self._seen, whole)
        self._input.is_converted = data is not None
        return data

    async def _check_alive(self) -> None:
        """Give the container up if its last answer was not one answer: what has come after it by now shows here."""
        stdout = self._stdout
        while not stdout.quiet():
            data = stdout.read_nowait()
            if data is None:
                data = await stdout.read()
            self._refuse_early(data)
        if self._container.exited is not None:
            raise self._gone()

    def _refuse_early(self, data: bytes) -> None:
        """Give the container up if it wrote more than whitespace, or ended, before it had this call."""
        if not data or is_surplus(data):
            self.surplus = bool(data)
            raise self._gone()

    def _gone(self) -> ContainerGone:
        self._dead = True
        return ContainerGone()

    async def _knock(self, data: bytes) -> bytes:
        """Write one byte, wait until the function has read it, and return the others.

        It cannot answer a single byte: what it has written so far belongs to the call before. A driver that does not
        see what is read cannot tell.

        Raises:
            StreamClosed: The function has closed its stdin.
        """
        self.touched = True
        await self._input.write(data[:1])
        turns, wait_s = _TURNS, _FIRST_WAIT_S
        while self._is_knock_unread():
            await self._check_alive()
            if turns:
                turns -= 1
                await next_turn()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    self._refuse_early(await self._stdout.read())
            wait_s = min(2 * wait_s, _MAX_WAIT_S)
        await self._check_alive()
        return data[1:]

    def _is_knock_unread(self) -> bool:
        return self._input.is_unread

    async def _write_rest(self, data: bytes) -> None:
        """Write the rest of ``data`` and of the body. A function need not take it all."""
        try:
            await self._input.write_rest(memoryview(data)[PIECE_BYTES:])
        except StreamClosed:
            return
        self._end_input()

    def _end_input(self) -> None:
        self._input.is_complete = True

    # -- output ------------------------------------------------------------------------------

    async def _read_answer(self) -> None:
        """Read the answer to its end and deliver it, a piece at a time."""
        self._waking = asyncio.get_running_loop().create_future()
        self._stdout.watch(self._arrived)
        try:
            await self._waking
        except BaseException:
            self._stdout.watch(None)
            raise
        finally:
            self._waking = None  # it may hold an error, whose frames hold this exchange
        if self._answer is not None:
            head, body = self._answer
            self.status, self._complete = head.status, True
            self._sink.answer(head, body)
        elif not await self._deliver():
            await self._read_on()

    async def _read_on(self) -> None:
        """Read what did not arrive at once, and is decoded by the call itself."""
        stdout, piece_bytes = self._stdout, self._contract.piece_bytes
        while True:
            piece = stdout.read_nowait(piece_bytes)
            if piece is None:
                piece = await stdout.read(piece_bytes)
            if not piece:
                await self._output_ended()
                return
            self._refuse_stray(piece)
            self._events += await converted(self._decode, piece)
            if await self._deliver():
                stdout.watch(self._arrived)  # what follows the answer
                return
            await next_turn()  # each piece of a large answer takes a while to decode

    def _arrived(self, data: bytes) -> None:
        """Take output as it arrives: decode what is short, and wake the call once there is something to deliver.

        The call reads what is long, or still to come, so that a slow client holds the function back.
        """
        if self._waking is None or self._waking.done():
            if self._waking is None or not self._waking.cancelled():  # it did not give up in this turn of the loop
                self._take_rest(data)
            return
        try:
            self._refuse_stray(data)
            if not 0 < len(data) <= SHORT_BYTES:
                self._stdout.watch(None, unused=data)
            elif self._decoder is not None or (answer := self._contract.whole_answer(self._seen, data)) is None:
                self._events += self._decode(data)
                if not self._events or isinstance(self._events[-1], Head):
                    return
                if not isinstance(self._events[-1], End):
                    self._stdout.watch(None)
            else:
                self._answer = answer
            self._waking.set_result(None)
        except Exception as exc:  # the call must end with it
            self._stdout.watch(None)
            self._waking.set_exception(exc)

    def _take_rest(self, data: bytes) -> None:
        """Note what follows the answer: the container serves on only if that is nothing but whitespace."""
        if not data or is_surplus(data):
            self._dead = True
            self.surplus = self.surplus or bool(data)

    def _refuse_stray(self, piece: bytes) -> None:
        """Give the container up if it answers input that it has not read: the answer belongs to the call before."""
        if not piece or (self._decoder is not None and self._decoder.started):
            return
        unread = self._stdin.unread()
        if unread is None:
            return
        if unread >= self._input.handed and not self._fresh:
            self._refuse_early(piece)
        self._is_read = self._input.is_complete and unread <= self._contract.spare_input

    @property
    def _is_started(self) -> bool:
        """True once a byte of the answer other than whitespace was decoded."""
        return self._decoder is not None and self._decoder.started

    def _decode(self, piece: bytes) -> list[Event]:
        if self._decoder is None:
            self._decoder = self._contract.decoder(self._seen)
        try:
            return self._decoder.feed(piece)
        except InvalidOutput as exc:
            raise self._invalid(exc) from exc

    async def _deliver(self) -> bool:
        """Pass on to the client what was decoded; return whether the answer has ended."""
        events, self._events = self._events, []
        for index, event in enumerate(events):
            if isinstance(event, Body):
                last = index + 1 < len(events) and isinstance(events[index + 1], End)
                await self._sink.write(event.data, last=last)
            elif isinstance(event, Head):
                self.status = event.status
                self._sink.head(event)
            else:
                self._complete = not event.surplus
                self.surplus = event.surplus
                self._sink.complete()
                return True
        return False

    async def _output_ended(self) -> None:
        """Judge the answer of a function that closed its stdout, most likely because it exited."""
        try:
            self._events += self._decoded_end()
        except InvalidOutput as exc:
            ended = await self._exit_soon()
            if ended is not None and await self._ended_before_call():
                raise self._gone() from None
            if ended is not None and (ended.code or not self._is_started):
                raise exit_error(ended) from None
            raise self._invalid(exc) from exc
        await self._deliver()

    def _decoded_end(self) -> list[Event]:
        return (self._decoder or self._contract.decoder(self._seen)).feed_eof()

    async def _ended_before_call(self) -> bool:
        """Return whether the container had already ended when the call got it: then the call was not run."""
        if self._fresh or self._is_started or not self._input.is_repeatable:
            return False
        ended, started = await self._container.ended_at(), self._call.started_at
        return ended is not None and started is not None and ended < started

    async def _exit_soon(self, grace_s: float = _EXIT_GRACE_S) -> Exit | None:
        if (ended := self._container.exited) is not None:
            return ended
        try:
            async with asyncio.timeout(grace_s):
                return await self._container.wait()
        except TimeoutError:
            return None

    def _invalid(self, exc: InvalidOutput) -> FunctionFailed:
        return InvalidResponse(self._contract.name, str(exc))


def exit_error(ended: Exit) -> FunctionFailed:
    """Return the error for the client of a call whose container ended."""
    if ended.start_fault:
        return ContainerStartFailed(ended.start_fault)
    return OutOfMemory() if ended.oom else ContainerExited(ended.code)
