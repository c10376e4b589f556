"""The ``default`` format: stdin is the body, stdout is the answer; one container for one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hearth.contracts.base import CallInput, Exchange, ExchangeCall, Head, Headers, ResponseSink
from hearth.contracts.stdio.codec import Body, Decoder, Encoder, End, Event
from hearth.contracts.stdio.exchange import StdioContract, StdioExchange, exit_error
from hearth.contracts.stdio.fields import to_environment
from hearth.drivers.base import Container
from hearth.models.errors import RequestHeadersTooLarge, RequestHeaderTooLarge
from hearth.models.function import SYNC

#: Linux takes no variable of an environment above 128 KiB (MAX_ARG_STRLEN), its name and an end mark included.
MAX_HEADER_BYTES: Final = 127 * 1024
#: The arguments and environment of a program have room for 2 MiB, and its launcher holds them twice.
MAX_HEADERS_BYTES: Final = 512 * 1024
#: Output up to this many bytes is held until the exit code is known, so that a failing function yields a clean error.
_HOLD_BYTES: Final = 64 * 1024


class DefaultEncoder(Encoder):
    """Passes the body on unchanged; the environment describes the call."""

    __slots__ = ()

    def body(self, data: bytes) -> bytes:
        """Return these bytes."""
        return data

    def end(self) -> bytes:
        """Return nothing: the end of the body is the end of the stream."""
        return b""


class DefaultDecoder(Decoder):
    """Takes all output as the body of a 200. Every byte counts, whitespace too."""

    __slots__ = ("_ended", "_shows_body", "_started")

    def __init__(self, *, shows_body: bool) -> None:
        self._shows_body = shows_body
        self._started = False
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the head with the first byte, then the bytes as they come. Nothing is ever invalid."""
        if not data:
            return []
        if self._ended:
            return [End(surplus=True)]
        events: list[Event] = [] if self._started else [Head(200, ())]
        self._started = True
        if self._shows_body:
            events.append(Body(data))
        return events

    def feed_eof(self) -> list[Event]:
        """Return the end; with the head, if there was no output at all."""
        if self._ended:
            return []
        self._ended = True
        return [End()] if self._started else [Head(200, ()), End()]

    @property
    def started(self) -> bool:
        """True once any byte has arrived."""
        return self._started


class DefaultContract(StdioContract):
    """Bytes in, bytes out: any program is a function."""

    name = "default"
    hot = False

    def check(self, url: str, headers: Headers) -> None:
        """Refuse a request whose head has no room in an environment."""
        sizes = {name: len(name) + sum(map(len, values)) + 2 * len(values) for name, values in headers.items()}
        sizes["Host"] = len(url)
        largest = max(sizes, key=sizes.__getitem__)
        if sizes[largest] > MAX_HEADER_BYTES:
            raise RequestHeaderTooLarge(largest, sizes[largest], MAX_HEADER_BYTES)
        if (size := sum(sizes.values())) > MAX_HEADERS_BYTES:
            raise RequestHeadersTooLarge(size, MAX_HEADERS_BYTES, largest, sizes[largest])

    def environment(self, call: CallInput) -> Mapping[str, str]:
        """Return what describes the call, one variable per header (protocols specification 4.1)."""
        return {
            "FN_DEADLINE": call.deadline,
            "FN_METHOD": call.method,
            "FN_REQUEST_URL": call.url,
            "FN_CALL_ID": call.call_id,
            **({"FN_ATTEMPT": ", ".join(attempt)} if (attempt := call.headers.get("Fn-Attempt")) else {}),
            **{f"FN_HEADER_{name}": to_environment(", ".join(values)) for name, values in call.headers.items()},
        }

    def whole_input(self, call: CallInput, body: bytes) -> bytes:
        """Return the body."""
        return body

    def encoder(self, call: CallInput) -> Encoder:
        """Make the writer of one call's input."""
        return DefaultEncoder()

    def decoder(self, call: CallInput) -> Decoder:
        """Make the reader of one call's answer."""
        return DefaultDecoder(shows_body=call.shows_body)

    def exchange(
        self, call: ExchangeCall, container: Container, *, fresh: bool, on_probation: bool = False
    ) -> Exchange:
        """Make the exchange of one call, which has the container to itself."""
        return ColdExchange(self, call, container)


class ColdExchange(StdioExchange):
    """The only exchange of a container. The client gets the answer once the exit code is known to be 0."""

    __slots__ = ("_holding",)

    def __init__(self, contract: StdioContract, call: ExchangeCall, container: Container) -> None:
        is_sync = call.input().call_type == SYNC  # a log takes output as it comes
        self._holding = HoldingSink(call.sink) if is_sync else None
        super().__init__(contract, call, container, fresh=True, sink=self._holding)

    async def run(self) -> None:
        """Run the call until the container has exited."""
        await super().run()
        if self._holding is not None:
            await self._holding.flush()

    def _end_input(self) -> None:
        super()._end_input()
        self._container.channel.stdin.close()

    async def _output_ended(self) -> None:
        ended = await self._container.wait()
        if ended.code:
            raise exit_error(ended)
        self._events += self._decoded_end()
        await self._deliver()


class HoldingSink:
    """Holds the answer back until it is large, or :meth:`flush`."""

    __slots__ = ("_held", "_passes", "_sink", "_size")

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self._held: list[bytes] = []
        self._size = 0
        self._passes = False

    @property
    def started(self) -> bool:
        """True once something was passed on to the client."""
        return self._sink.started

    def head(self, head: Head) -> None:
        """Pass the head on: the client's sink keeps it until the first byte of the body."""
        self._sink.head(head)

    def answer(self, head: Head, body: bytes) -> None:
        """Hold a whole answer."""
        self._sink.head(head)
        self._held.append(body)

    async def write(self, data: bytes, *, last: bool) -> None:
        """Hold some bytes, or pass them on once there are many."""
        if self._passes:
            await self._sink.write(data, last=False)
            return
        self._held.append(data)
        self._size += len(data)
        if self._size > _HOLD_BYTES:
            self._passes = True
            await self._pass_on(last=False)

    def complete(self) -> None:
        """Do nothing: the exit code decides."""

    async def flush(self) -> None:
        """Pass on what is held: the function succeeded."""
        if not self._passes and self._held:
            await self._pass_on(last=True)

    async def _pass_on(self, *, last: bool) -> None:
        held, self._held = self._held, []
        await self._sink.write(b"".join(held), last=last)
