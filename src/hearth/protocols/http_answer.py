"""Reads one HTTP/1.x response from a stream that goes on after it.

The stock parsers close a connection when in doubt; here each doubt must become an exact answer, and not a byte after
the response's end may be taken. So: collect the head, parse it, let a body reader find the end.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from hearth.protocols.base import HOP_BY_HOP, Body, Decoder, End, Event, Head, InvalidOutput, is_surplus
from hearth.protocols.fields import BODILESS, connection_only, field_name
from hearth.protocols.http_bodies import BodyReader, ChunkedBody, SizedBody

#: Default limit on the bytes of an answer's head.
MAX_HEAD_BYTES: Final = 256 * 1024

_MAGIC: Final = b"HTTP/1."
_BLANKS: Final = b" \t\r\n"
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[0-9] +([0-9]{3})(?:[ \t].*)?")
#: A line's end and the blanks around it, where the next line goes on with the value. Looked for only where the blanks
#: begin: from each of them, a long row of blanks within a line would be walked again.
_FOLD: Final = re.compile(rb"(?<![ \t])[ \t]*+(?:\n[ \t]++)+")
_CONTROLS: Final = bytes(sorted({*range(0x20), 0x7F} - {0x09, 0x0A}))
_LENGTH_DIGITS: Final = 18
_SAMPLE_BYTES: Final = 32
#: A head up to this size is remembered: a function tends to begin its answers in the same way.
_REMEMBERED_BYTES: Final = 1024

Fields = list[tuple[str, str]]


class HttpDecoder(Decoder):
    """Reads one response; its body passes through as it comes.

    Args:
        answers_head: The request was HEAD: there is no body, whatever the head says.
        max_head_bytes: Limit on the head, interim (1xx) heads included.
    """

    __slots__ = ("_answers_head", "_body", "_ended", "_heads")

    def __init__(self, *, answers_head: bool = False, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._answers_head = answers_head
        self._heads = _HeadReader(max_head_bytes)
        self._body: BodyReader | None = None
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if self._ended:
            return [End(surplus=True)] if is_surplus(data) else []
        events: list[Event] = []
        while self._body is None:
            block, data = self._heads.feed(data)
            if block is None:
                return events
            answer = _remembered(block) if len(block) <= _REMEMBERED_BYTES else _read_head(block)
            if answer.head.status >= 200:
                self._body = self._body_reader(answer)
                events.append(answer.head)
        piece, rest = self._body.feed(data)
        if piece:
            events.append(Body(piece))
        if rest is not None:
            self._ended = True
            events.append(End(surplus=is_surplus(rest)))
        return events

    def feed_eof(self) -> list[Event]:
        """Nothing after the end; before it, the answer is cut off."""
        if not self._ended:
            raise InvalidOutput("output ended before the end of the response")
        return []

    @property
    def started(self) -> bool:
        """Any byte other than whitespace of this answer has arrived."""
        return self._heads.started

    def _body_reader(self, answer: _Answer) -> BodyReader:
        if self._answers_head or answer.head.status in BODILESS:
            return SizedBody(0)
        if answer.codings:
            if [coding.lower() for coding in answer.codings] != ["chunked"]:
                raise InvalidOutput(f"unsupported transfer encoding {', '.join(answer.codings)!r}")
            return ChunkedBody()
        if answer.length is None:
            raise InvalidOutput("missing content length")
        return SizedBody(answer.length)


class _Answer(NamedTuple):
    """A head, and what it says of the body."""

    head: Head
    length: int | None
    codings: Sequence[str]


class _HeadReader:
    """Collects bytes up to the blank line that ends a head."""

    __slots__ = ("_kept", "_limit", "_seen", "started")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen = 0
        self._kept = bytearray()
        self.started = False

    def feed(self, data: bytes) -> tuple[bytes | None, bytes]:
        """A head, blank line included, and the bytes after it; ``(None, b"")`` while it is incomplete."""
        searched = len(self._kept)
        buffer: bytes | bytearray = data
        if searched:
            self._kept += data
            buffer = self._kept
        else:
            buffer = data = data.lstrip(_BLANKS)  # some functions end each answer with an extra line end
            if not data:
                return None, b""
            self.started = True
        if not buffer.startswith(_MAGIC[: len(buffer)]):
            raise InvalidOutput(f"malformed HTTP response {_sample(buffer)}")
        end = _head_end(buffer, max(0, searched - 2))
        self._check_limit(end if end else len(buffer))
        if not end:
            if not searched:
                self._kept += data
            return None, b""
        self._seen += end
        head, rest = bytes(buffer[:end]), bytes(buffer[end:])
        self._kept = bytearray()
        return head, rest

    def _check_limit(self, size: int) -> None:
        if self._seen + size > self._limit:
            raise InvalidOutput(f"response head larger than {self._limit} bytes")


def _head_end(buffer: bytes | bytearray, start: int) -> int:
    """The position after the first blank line, 0 if there is none. Lines may end in a bare line feed."""
    crlf = buffer.find(b"\n\r\n", start)
    bare = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
    if bare >= 0:
        return bare + 2
    return crlf + 3 if crlf >= 0 else 0


def _read_head(block: bytes) -> _Answer:
    """Which fields go to the client, and where the body ends (RFC 9112 6.3)."""
    status, fields = parse_head(block)
    if status < 200:
        return _Answer(Head(status, fields), None, ())
    lengths = [value for name, value in fields if name == "Content-Length"]
    codings = [value for name, value in fields if name == "Transfer-Encoding"]
    dropped = HOP_BY_HOP
    connection = [value for name, value in fields if name == "Connection"]
    if connection:
        dropped = connection_only(connection)
    kept = [field for field in fields if field[0] not in dropped]
    length = _parse_lengths(lengths) if lengths else None
    told = [] if length is None or codings or status in BODILESS else [str(length)]
    if told != lengths:
        kept = [field for field in kept if field[0] != "Content-Length"]
        kept += [("Content-Length", value) for value in told]
    return _Answer(Head(status, kept), length, codings)


_remembered = functools.lru_cache(maxsize=256)(_read_head)


def parse_head(block: bytes) -> tuple[int, Fields]:
    """Status and fields of a head, names canonical.

    Raises:
        InvalidOutput: It is not one, or its status is below 100.
    """
    text = block.replace(b"\r\n", b"\n")
    if len(text.translate(None, _CONTROLS)) != len(text):
        raise InvalidOutput("control character in HTTP response head")
    if b"\n " in text or b"\n\t" in text:
        text = _FOLD.sub(b" ", text)
    status_line, *lines = text.decode("latin-1").rstrip("\n").split("\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None or match[1] < "100":
        raise InvalidOutput(f"malformed HTTP status line {status_line[:_SAMPLE_BYTES]!r}")
    return int(match[1]), [_parse_field(line) for line in lines]


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    canonical = field_name(name) or field_name(name.rstrip(" \t"))
    if not (colon and canonical):
        raise InvalidOutput(f"malformed HTTP header line {line[:_SAMPLE_BYTES]!r}")
    return canonical, value.strip(" \t")


def _parse_lengths(lengths: Sequence[str]) -> int:
    """The one value that all Content-Length fields give."""
    values = {value.strip(" \t") for line in lengths for value in line.split(",")}
    if len(values) > 1:
        raise InvalidOutput("conflicting content lengths")
    value = values.pop()
    if not (value.isascii() and value.isdigit()) or len(value) > _LENGTH_DIGITS:
        raise InvalidOutput(f"invalid content length {value[:_SAMPLE_BYTES]!r}")
    return int(value)


def _sample(buffer: bytes | bytearray) -> str:
    return repr(bytes(buffer[:_SAMPLE_BYTES]).decode("latin-1"))
