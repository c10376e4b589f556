"""The ``http`` format: each call is one HTTP/1.1 request on stdin, answered by one response on stdout.

The response is read from a stream that goes on after it. The stock parsers close a connection when in doubt; here each
doubt must become an exact answer, and not a byte after the response's end may be taken. So: collect the head, parse
it, let a body reader find the end.
"""

from __future__ import annotations

import functools
import http
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from hearth.contracts.base import HOP_BY_HOP, CallInput, Composed, Head
from hearth.contracts.stdio.codec import Body, Decoder, Encoder, End, Event, InvalidOutput, is_surplus
from hearth.contracts.stdio.exchange import StdioContract
from hearth.contracts.stdio.fields import (
    BODILESS,
    MAX_FIELDS,
    connection_only,
    encode_value,
    field_name,
    is_token,
    join_lines,
)
from hearth.contracts.stdio.http_bodies import ChunkedBody
from hearth.models.errors import InternalError

#: Default limit on the bytes of an answer's head.
MAX_HEAD_BYTES: Final = 256 * 1024

_METHODS: Final = frozenset(http.HTTPMethod)
#: Written by Hearth itself, whatever the client sent under these names: before the other fields, or among them.
_FIRST: Final = frozenset({"Host", "User-Agent", "Content-Length"})
_OF_ONE_CALL: Final = ("Fn_call_id", "Fn_deadline")
_OWN: Final = (*_OF_ONE_CALL, "Fn_method", "Fn_request_url")
#: The order of fields is remembered for names of up to so many characters: a client tends to send the same ones.
_REMEMBERED_LENGTH: Final = 1024

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
REMEMBERED_BYTES: Final = 1024

Fields = list[tuple[str, str]]


class HeadTooLarge(InvalidOutput):
    """The head of an answer exceeds its limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"response head larger than {limit} bytes")


class HttpEncoder(Encoder):
    """Writes one request; streams its body."""

    __slots__ = ("_head", "_left")

    def __init__(self, call: CallInput) -> None:
        self._head = _request(call, b"")
        self._left = call.content_length

    def body(self, data: bytes) -> bytes:
        """Return the next piece, as a chunk if the length is not known; after the head if it is the first."""
        if not data:
            return b""
        head, self._head = self._head, b""
        if self._left is None:
            return head + b"%x\r\n%b\r\n" % (len(data), data)
        self._left -= len(data)
        if self._left < 0:  # it would be read as the next call's head
            raise InternalError("the request's body is longer than its Content-Length")
        return head + data if head else data

    def end(self) -> bytes:
        """Return the last chunk if the length is not known; the head if there was no body."""
        head, self._head = self._head, b""
        if self._left is None:
            return head + b"0\r\n\r\n"
        if self._left > 0:
            raise InternalError("the request's body is shorter than its Content-Length")
        return head


def _request(call: CallInput, body: bytes) -> bytes:
    """Return the head of the request, and ``body`` after it."""
    known = call.composed
    if known is None:
        start, middle, end = _compose(call)
    else:
        start, middle, end = known.get("http") or known.setdefault("http", _compose(call))
    call_id, deadline = call.call_id, call.deadline
    if not (call_id.isalnum() and call_id.isascii() and deadline.isprintable() and deadline.isascii()):
        return b"".join((start, encode_value(call_id), middle, encode_value(deadline), end, body))
    return b"".join((start, call_id.encode(), middle, deadline.encode(), end, body))


def _compose(call: CallInput) -> Composed:
    """Return the head of the request around its id and its deadline.

    The fields are Host, User-Agent, framing, then the others by name.
    """
    if call.method not in _METHODS and not is_token(call.method):
        raise InternalError(f"not an HTTP method: {call.method!r}")
    host, _, path = call.url.partition("://")[2].partition("/")
    if "?" in host or " " in path or not (path.isascii() and path.isprintable()):
        host, path = _split_odd_url(call.url)
    headers, length = call.headers, call.content_length
    lines = [f"{call.method} /{path} HTTP/1.1", f"Host: {host}"]
    agent = headers.get("User-Agent")
    if agent and agent[0]:
        lines.append(f"User-Agent: {agent[0]}")
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    names, connection = tuple(headers), tuple(headers.get("Connection", ()))
    order = _order if sum(map(len, names + connection)) > _REMEMBERED_LENGTH else _remembered_order
    own = dict(zip(_OWN, ("", "", call.method, call.url), strict=True))
    cuts = []
    for name, raw in order(names, connection):
        if raw is None:
            lines.append(f"{name}: {own[name]}")
            if name in _OF_ONE_CALL:
                cuts.append(len(lines))
        else:
            lines += [f"{name}: {value}" for value in headers[raw]]
    return join_lines(lines, cuts)


def _order(names: Sequence[str], connection: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the fields after the framing, sorted: canonical name, and name in the header map; ``None`` for our own.

    Args:
        names: The names in the header map.
        connection: The values of its ``Connection``.
    """
    dropped = {*connection_only(connection), *_FIRST, *_OWN}
    fields: list[tuple[str, str | None]] = [(field_name(raw), raw) for raw in names]
    fields = [field for field in fields if field[0] and field[0] not in dropped]
    return sorted([*fields, *[(name, None) for name in _OWN]], key=itemgetter(0))


_remembered_order = functools.lru_cache(maxsize=256)(_order)


def _split_odd_url(url: str) -> tuple[str, str]:
    """Return the host of an absolute URL, and its path and query without the first slash as a request may have them."""
    _, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if "?" in host:  # http://host?query
        host, _, query = host.partition("?")
        path = f"?{query}{slash}{path}"
    return host, "".join([c if "!" <= c <= "~" else _escaped(c) for c in path])


def _escaped(character: str) -> str:
    return "".join([f"%{byte:02X}" for byte in character.encode("utf-8", "replace")])


class HttpDecoder(Decoder):
    """Reads one response; its body passes through as it comes.

    Args:
        answers_head: The request was HEAD: there is no body, whatever the head says.
        max_head_bytes: Limit on the head, interim (1xx) heads included.
    """

    __slots__ = ("_answers_head", "_chunks", "_ended", "_kept", "_left", "_limit", "_seen", "started")

    started: bool

    def __init__(self, *, answers_head: bool = False, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._answers_head = answers_head
        self._limit = max_head_bytes
        self._seen = 0
        self._kept = bytearray()
        self.started = False
        self._left: int | None = None  # of a body whose length is known; None before it begins
        self._chunks: ChunkedBody | None = None
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete."""
        if self._ended:
            return [End(surplus=True)] if is_surplus(data) else []
        events: list[Event] = []
        while self._left is None:
            block, data = self._head(data)
            if block is None:
                return events
            answer = remembered_head(block) if len(block) <= REMEMBERED_BYTES else read_head(block)
            if answer.head.status >= 200:
                self._begin_body(answer)
                events.append(answer.head)
        if self._chunks is None:
            piece, rest = data[: self._left], data[self._left :] if len(data) >= self._left else None
            self._left -= len(piece)
        else:
            piece, rest = self._chunks.feed(data)
        if piece:
            events.append(Body(piece))
        if rest is not None:
            self._ended = True
            events.append(End(surplus=bool(rest) and is_surplus(rest)))
        return events

    def feed_eof(self) -> list[Event]:
        """Return no event after the end; before it, the answer is cut off."""
        if not self._ended:
            raise InvalidOutput("output ended before the end of the response")
        return []

    def _head(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Return a head, blank line included, and the bytes after it; ``(None, b"")`` while it is incomplete."""
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
        end = head_end(buffer, max(0, searched - 2))
        if self._seen + (end or len(buffer)) > self._limit:
            raise HeadTooLarge(self._limit)
        if not end:
            if not searched:
                self._kept += data
            return None, b""
        self._seen += end
        self._kept = bytearray()
        return bytes(buffer[:end]), bytes(buffer[end:])

    def _begin_body(self, answer: AnswerHead) -> None:
        if self._answers_head:
            self._left = 0
        elif answer.size is not None:
            self._left = answer.size
        elif not answer.codings:
            raise InvalidOutput("missing content length")
        elif [coding.lower() for coding in answer.codings] != ["chunked"]:
            raise InvalidOutput(f"unsupported transfer encoding {', '.join(answer.codings)!r}")
        else:
            self._left = 0
            self._chunks = ChunkedBody()


class AnswerHead(NamedTuple):
    """A head, and what it says of the body.

    Attributes:
        size: Bytes of the body; ``None`` where that is not known.
        codings: The transfer encodings of such a body.
        closes: The connection, if it came on one, serves no further request.
    """

    head: Head
    size: int | None
    codings: Sequence[str] = ()
    closes: bool = False


def head_end(buffer: bytes | bytearray, start: int) -> int:
    """Return the position after the first blank line, 0 if there is none. Lines may end in a bare line feed."""
    crlf = buffer.find(b"\n\r\n", start)
    bare = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
    if bare >= 0:
        return bare + 2
    return crlf + 3 if crlf >= 0 else 0


def read_head(block: bytes) -> AnswerHead:
    """Return which fields go to the client, and where the body ends (RFC 9112 6.3)."""
    status, fields = parse_head(block)
    if status < 200:
        return AnswerHead(Head(status, fields), None)
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
    head = Head(status, kept)
    closes = _closes(block, connection)
    if status in BODILESS:
        return AnswerHead(head, 0, closes=closes)
    return AnswerHead(head, None if codings else length, codings, closes)


remembered_head = functools.lru_cache(maxsize=256)(read_head)


def _closes(block: bytes, connection: Sequence[str]) -> bool:
    """Return whether the function closes its connection after this answer (RFC 9112 9.3)."""
    options = {option.strip().lower() for value in connection for option in value.split(",")}
    return "close" in options or (block.startswith(b"HTTP/1.0") and "keep-alive" not in options)


def parse_head(block: bytes) -> tuple[int, Fields]:
    """Return the status and fields of a head, names canonical.

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
    if len(lines) > MAX_FIELDS:
        raise InvalidOutput(f"more than {MAX_FIELDS} header fields")
    return int(match[1]), [_parse_field(line) for line in lines]


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    canonical = field_name(name) or field_name(name.rstrip(" \t"))
    if not (colon and canonical):
        raise InvalidOutput(f"malformed HTTP header line {line[:_SAMPLE_BYTES]!r}")
    return canonical, value.strip(" \t")


def _parse_lengths(lengths: Sequence[str]) -> int:
    """Return the one value that all Content-Length fields give."""
    values = {value.strip(" \t") for line in lengths for value in line.split(",")}
    if len(values) > 1:
        raise InvalidOutput("conflicting content lengths")
    value = values.pop()
    if not (value.isascii() and value.isdigit()) or len(value) > _LENGTH_DIGITS:
        raise InvalidOutput(f"invalid content length {value[:_SAMPLE_BYTES]!r}")
    return int(value)


def _sample(buffer: bytes | bytearray) -> str:
    return repr(bytes(buffer[:_SAMPLE_BYTES]).decode("latin-1"))


class HttpContract(StdioContract):
    """HTTP/1.1 over the streams of a hot container.

    Args:
        max_head_bytes: Limit on the answer's status line and headers, interim answers included.
    """

    name = "http"
    hot = True

    def __init__(self, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._max_head_bytes = max_head_bytes
        self._last: tuple[bytes, AnswerHead] | None = None  # a function tends to begin its answers in the same way

    whole_input = staticmethod(_request)

    def whole_answer(self, call: CallInput, data: bytes) -> tuple[Head, bytes] | None:
        """Return the response, if these bytes are exactly one and begin with its head."""
        last = self._last
        if last is not None and data.startswith(last[0]):
            answer, end = last[1], len(last[0])
        else:
            end = head_end(data, 0)
            if not 0 < end <= min(self._max_head_bytes, REMEMBERED_BYTES) or not data.startswith(_MAGIC):
                return None
            block = data[:end]
            try:
                answer = remembered_head(block)
            except InvalidOutput:
                return None
            self._last = block, answer
        size = 0 if call.method == "HEAD" and answer.head.status >= 200 else answer.size
        return (answer.head, data[end:]) if size == len(data) - end else None

    def encoder(self, call: CallInput) -> Encoder:
        """Make the writer of one call's input."""
        return HttpEncoder(call)

    def decoder(self, call: CallInput) -> Decoder:
        """Make the reader of one call's answer."""
        return HttpDecoder(answers_head=call.method == "HEAD", max_head_bytes=self._max_head_bytes)

    def log_form(self, head: Head, body: bytes) -> bytes:
        """Return the response again."""
        return as_response(head, body)


def as_response(head: Head, body: bytes) -> bytes:
    """Return an answer as a response: status line, headers (with a length for a chunked body), blank line, body."""
    lines = [f"HTTP/1.1 {head.status} {_reason(head.status)}".rstrip()]
    lines += [f"{name}: {value}" for name, value in head.headers]
    if body and not any(name == "Content-Length" for name, _ in head.headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
