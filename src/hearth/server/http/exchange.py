"""One exchange on a connection: a request, its body as it arrives, and its answer.

The answer::

    EMPTY --begin--> HEAD --write--> BODY --end--> COMPLETE
                     HEAD ----------end----------> COMPLETE   (head and body leave with one write)
                     HEAD --begin--> HEAD                     (an error replaces an answer that was not sent)
"""

from __future__ import annotations

import asyncio
import email.utils
import enum
import functools
import http
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from hearth.agent.call import ClientGone
from hearth.aio.clock import Clock
from hearth.models.config import TOKEN
from hearth.models.errors import BodyTooLarge
from hearth.server.http.flow import Flow
from hearth.server.http.parsing import RequestHead

#: Bytes of a body that wait to be read; above it the client is not read.
HIGH_WATER_BYTES: Final = 64 * 1024

_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}
#: Without the end of the line.
STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode() for status in range(100, 1000)}
CONTINUE: Final = STATUS_LINES[100] + b"\r\n\r\n"
#: Statuses whose answer has no body (RFC 9112, 6.3).
_BODILESS: Final = frozenset({204, 304})
#: A body up to this size is copied behind its head, for one write; a larger one follows it.
_COPIED_BYTES: Final = 64 * 1024
#: Names up to this length are remembered: functions choose them.
_REMEMBERED_BYTES: Final = 64
#: Header fields of an answer that concern the connection; the last two are not passed on.
_FRAMING: Final = frozenset({b"content-length", b"date", b"connection", b"transfer-encoding"})
#: Control characters but for the tab: a head holds those of its line ends, and no other.
_CONTROLS: Final = bytes(code for code in (*range(0x20), 0x7F) if code != 0x09)

#: The end of a head, and that of the last one on a connection.
_END: Final = b"\r\n\r\n"
_LAST_END: Final = b"\r\nconnection: close\r\n\r\n"

#: Framings of a body other than a number of bytes.
_CHUNKED: Final = -1
_NONE: Final = -2
_UNTIL_CLOSE: Final = -3


class Arrival(enum.Enum):
    """The progress of a request: ARRIVING -> WHOLE -> OVER, and from each of them to OVER or GONE."""

    ARRIVING = "arriving"
    WHOLE = "whole"
    OVER = "over"  # answered, or refused
    GONE = "gone"  # its client has left

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


_ENDED: Final = frozenset({Arrival.OVER, Arrival.GONE})


class Progress(enum.Enum):
    """The part of an answer that was handed to the connection."""

    EMPTY = "empty"
    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"

    __hash__ = object.__hash__  # as above


class Dates:
    """The Date header field of answers: composed once a second.

    Attributes:
        line: The field as it was composed last, after the end of the line before it.
        until: The time from which it is another one, in terms of ``now``.
        now: The clock, in seconds.
    """

    __slots__ = ("_clock", "line", "now", "until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.now: Callable[[], float] = clock.monotonic
        self.until = 0.0
        self.line = b""

    def renew(self) -> bytes:
        """Compose and return the field."""
        seconds, ms = divmod(self._clock.now_ms(), 1000)
        self.until = self.now() + (1000 - ms) / 1000
        self.line = b"\r\ndate: %b" % email.utils.formatdate(seconds, usegmt=True).encode()
        return self.line


class Wire(Protocol):
    """The connection of an exchange.

    Attributes:
        flow: Whether the client is read, and takes answers.
        dates: Makes the Date header field.
    """

    transport: asyncio.Transport
    flow: Flow
    dates: Dates

    def body_is_wanted(self, exchange: HttpExchange) -> None:
        """Ask for the body: somebody waits for it."""

    def read_on(self) -> None:
        """Read the client again, if there is room."""

    def send(self, *parts: bytes) -> None:
        """Send these bytes, if the client is still there."""

    def answered(self, exchange: HttpExchange) -> None:
        """Note that the answer is complete."""


class HttpExchange(msgspec.Struct, eq=False, kw_only=True):
    """A request and its answer; a :class:`~hearth.contracts.base.RequestBody`.

    A struct, because its constructor takes no call of Python's.

    Attributes:
        head: The head of the request.
        length: Bytes of the body, if the client said; 0 for none.
        ended: Every byte of the body has been read.
        is_awaited: The client waits for ``100 Continue`` before it sends the body.
        keep_alive: Whether the connection serves another request afterwards.
        watcher: The task that is cancelled when the client leaves.
        arrival: The progress of the request.
        progress: The progress of the answer.
    """

    head: RequestHead
    length: int | None
    ended: bool
    is_awaited: bool
    keep_alive: bool
    arrival: Arrival
    _wire: Wire
    _buffer: bytes | bytearray
    watcher: asyncio.Task[Any] | None = None
    progress: Progress = Progress.EMPTY
    _size: int = 0
    _limit: int | None = None
    _changed: asyncio.Event | None = None
    _answer_head: bytes = b""
    _framing: int = _NONE

    def __repr__(self) -> str:
        return f"<HttpExchange {self.head.method} {self.head.path} {self.arrival.value} {self.progress.value}>"

    # -- the request, for the application -----------------------------------------------------------------------------

    @property
    def client(self) -> str:
        """The address of the client; empty on a Unix socket."""
        found = self._wire.transport.get_extra_info("peername")
        return str(found[0]) if isinstance(found, tuple) else ""

    def limit(self, most: int) -> None:
        """Refuse a body with more bytes than this.

        Raises:
            BodyTooLarge: The client says that it has more. If it does not say, :meth:`read` raises this.
        """
        if self.length is not None and self.length > most:
            raise BodyTooLarge(self.length, most)
        self._limit = most if self._limit is None else min(most, self._limit)

    async def read(self) -> bytes:
        """Return the next piece of the body; ``b""`` at the end.

        Raises:
            ClientGone: The client has left, or the request is answered.
            BodyTooLarge: The body is longer than its limit.
        """
        while not self._buffer and self.arrival is not Arrival.WHOLE:
            if self.arrival in _ENDED:
                raise ClientGone
            self._wire.body_is_wanted(self)
            await self._change()
        return self._take()

    def whole(self) -> bytes | None:
        """Return the whole body if it has arrived, and none of it was read.

        Raises:
            BodyTooLarge: The body is longer than its limit.
        """
        return self._take() if self.arrival is Arrival.WHOLE and not self._size else None

    def _take(self) -> bytes:
        data, self._buffer = bytes(self._buffer), b""
        self.ended = self.arrival is Arrival.WHOLE
        if self._wire.flow.is_paused:
            self._wire.read_on()
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise BodyTooLarge(self._size, self._limit)
        return data

    async def over(self) -> None:
        """Wait until the request is answered, or its client has left."""
        while self.arrival not in _ENDED:
            await self._change()

    @property
    def is_over(self) -> bool:
        """True once it is answered, or its client has left."""
        return self.arrival in _ENDED

    # -- the request, for the connection ------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """The client is to wait until some of the body was read."""
        return len(self._buffer) > HIGH_WATER_BYTES

    def add(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.arrival is Arrival.ARRIVING:
            self.is_awaited = False
            if not self._buffer:
                self._buffer = data
            else:
                if isinstance(self._buffer, bytes):
                    self._buffer = bytearray(self._buffer)
                self._buffer += data
            if self._changed is not None:
                self._changed.set()

    def complete(self) -> None:
        """Note the end of the body."""
        if self.arrival is Arrival.ARRIVING:
            self.is_awaited = False
            self.arrival = Arrival.WHOLE
            self.ended = not self._buffer
            if self._changed is not None:
                self._changed.set()

    def leave(self) -> None:
        """Note that the client has left, and cancel the task that is watched."""
        if self.arrival not in _ENDED:
            self.arrival, self._buffer = Arrival.GONE, b""
            if self._changed is not None:
                self._changed.set()
            if self.watcher is not None:
                self.watcher.cancel()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        self._changed.clear()
        await self._changed.wait()

    # -- the answer ---------------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """The client was sent something: the status can no longer change."""
        return self.progress is Progress.BODY or self.progress is Progress.COMPLETE

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Compose the head; it is sent with what follows. Chunked, if it has no Content-Length.

        Raises:
            RuntimeError: A field is no header field, or a head was sent.
        """
        if self.progress is not Progress.EMPTY and self.progress is not Progress.HEAD:
            raise RuntimeError("the answer has started already")
        if self.is_awaited:
            self.keep_alive = False  # whether the client sends the body now, nobody knows (RFC 9110, 10.1.1)
        parts = [STATUS_LINES[status]]
        length, is_dated = _CHUNKED, False
        for name, value in headers:
            start, is_framing = _remembered_start(name) if len(name) <= _REMEMBERED_BYTES else _start(name)
            if is_framing:
                if start == b"\r\ncontent-length: ":
                    length = int(value)
                elif start == b"\r\ndate: ":
                    is_dated = True
                else:
                    self.keep_alive = self.keep_alive and b"close" not in value.lower()
                    continue
            parts += (start, value)
        line_ends = len(parts) // 2 + 2
        if not is_dated:
            dates = self._wire.dates
            parts.append(dates.line if dates.now() < dates.until else dates.renew())
            line_ends += 1
        if status in _BODILESS or self.head.method == "HEAD":
            length = _NONE
        elif length == _CHUNKED:
            if self.head.version == "1.0":
                length = _UNTIL_CLOSE
            else:
                parts.append(b"\r\ntransfer-encoding: chunked")
                line_ends += 1
        if not self.keep_alive:
            parts.append(b"\r\nconnection: close")
            line_ends += 1
        parts.append(b"\r\n\r\n")
        head = b"".join(parts)
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * line_ends:
            raise RuntimeError("a header field holds a control character")
        self._answer_head = head
        self._framing = length
        self.progress = Progress.HEAD

    def send_known(self, start: bytes, data: bytes) -> bool:
        """Send a whole answer with one write.

        Args:
            start: The head from its status line to the end of its last field, which :func:`compose_start` has composed
                but for the length of the body. Date and Connection are added.
            data: The body, short.

        Returns:
            False if the client takes no answer now: nothing was sent.
        """
        if self.progress is not Progress.EMPTY and self.progress is not Progress.HEAD:
            raise RuntimeError("the answer has started already")
        wire = self._wire
        if wire.flow.is_full:
            return False
        dates, transport = wire.dates, wire.transport
        date = dates.line if dates.now() < dates.until else dates.renew()
        if self.is_awaited:
            self.keep_alive = False  # as above
        if not transport.is_closing():
            transport.write(b"".join((start, date, _END if self.keep_alive else _LAST_END, data)))
        self._complete()
        return True

    async def write(self, data: bytes) -> None:
        """Send some bytes of the body, after the head; wait while the client is slow."""
        if self._wire.flow.is_full:
            await self._wire.flow.writable()
        self._send(data, b"")

    async def end(self, data: bytes = b"") -> None:
        """Send the last bytes of the body; of an answer in one piece, everything.

        Raises:
            RuntimeError: The body has not as many bytes as the head says.
        """
        wire = self._wire
        if wire.flow.is_full:
            await wire.flow.writable()
        if self.progress is Progress.HEAD and self._framing == len(data) <= _COPIED_BYTES:
            if not wire.transport.is_closing():
                wire.transport.write(self._answer_head + data)
        else:
            self._send(data, b"0\r\n\r\n" if self._framing == _CHUNKED else b"")
            if self._framing > 0:
                raise RuntimeError("the answer is shorter than its Content-Length")
        self._complete()

    def _complete(self) -> None:
        self.progress = Progress.COMPLETE
        if self.arrival is not Arrival.GONE:
            self.arrival, self._buffer = Arrival.OVER, b""  # nobody reads the rest of the body
            if self._changed is not None:
                self._changed.set()
        self._wire.answered(self)

    def _send(self, data: bytes, last: bytes) -> None:
        if self.progress is Progress.EMPTY or self.progress is Progress.COMPLETE:
            raise RuntimeError("an answer begins with its head, and ends once")
        head, self._answer_head = self._answer_head, b""
        self.progress = Progress.BODY
        if self._framing == _NONE:
            data = b""
        elif self._framing == _CHUNKED:
            if data:
                head, last = b"%b%x\r\n" % (head, len(data)), b"\r\n" + last
        elif self._framing >= 0:
            self._framing -= len(data)
            if self._framing < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
        if len(data) > _COPIED_BYTES:
            self._wire.send(head, data, last)
        else:
            self._wire.send(head + data + last)


def compose_start(status: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a head from its status line to the end of these fields; empty if one of them concerns the connection.

    Raises:
        RuntimeError: A field is no header field.
    """
    parts = [STATUS_LINES[status]]
    for name, value in fields:
        start, is_framing = _start(name)
        if is_framing:
            return b""
        parts += (start, value)
    head = b"".join(parts)
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * len(fields):
        raise RuntimeError("a header field holds a control character")
    return head


def _start(name: bytes) -> tuple[bytes, bool]:
    """Return the beginning of a header line after the end of the one before, and whether it concerns the connection."""
    if TOKEN.fullmatch(name.decode("latin-1")) is None:
        raise RuntimeError(f"{name!r} is no name of a header field")
    lower = name.lower()
    return b"\r\n%b: " % lower, lower in _FRAMING


_remembered_start = functools.lru_cache(maxsize=2048)(_start)
