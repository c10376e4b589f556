"""The ``default`` format: stdin is the body, stdout is the answer; one container for one call."""

from __future__ import annotations

from hearth.protocols.base import Body, CallInput, CallProtocol, Decoder, Encoder, End, Event, Head


class DefaultEncoder(Encoder):
    """Passes the body on as it is; what else a function is told stands in its environment."""

    __slots__ = ()

    def body(self, data: bytes) -> bytes:
        """These bytes."""
        return data

    def end(self) -> bytes:
        """Nothing: the end of the body is the end of the stream."""
        return b""


class DefaultDecoder(Decoder):
    """Takes all output as the body of a 200. Every byte counts, whitespace too."""

    __slots__ = ("_ended", "_shows_body", "_started")

    def __init__(self, *, shows_body: bool) -> None:
        self._shows_body = shows_body
        self._started = False
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """The head with the first byte, then the bytes as they come. Nothing is ever invalid."""
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
        """The end; with the head, where there was no output at all."""
        if self._ended:
            return []
        self._ended = True
        return [End()] if self._started else [Head(200, ()), End()]

    @property
    def started(self) -> bool:
        """Any byte has arrived."""
        return self._started


class DefaultProtocol(CallProtocol):
    """Bytes in, bytes out: any program is a function."""

    name = "default"
    hot = False

    def encoder(self, call: CallInput) -> Encoder:
        """The writer of one call's input."""
        return DefaultEncoder()

    def decoder(self, call: CallInput) -> Decoder:
        """The reader of one call's answer."""
        return DefaultDecoder(shows_body=call.shows_body)
