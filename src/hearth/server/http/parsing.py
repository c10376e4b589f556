"""From the bytes of a connection to its requests; no I/O and no time.

::

    BETWEEN --first byte--> HEAD --end of head--> BODY --end of body--> BETWEEN
       any of them --a request that cannot be read--> REFUSED

httptools checks the grammar. This module refuses what it lets pass but another program in front of the node, or behind
it, might read in another way (RFC 9112, 3.2 and 6.1).
"""

from __future__ import annotations

import enum
import functools
import re
import urllib.parse
from typing import Any, Final, Protocol

import httptools
import msgspec

from hearth.contracts.stdio.fields import MAX_FIELDS

Fields = list[tuple[bytes, bytes]]

#: Bytes of a request line with all its headers.
MAX_HEAD_BYTES: Final = 1 << 20
#: Bytes of a chunked body between two pieces of data, or after the last: extensions of chunks, trailers.
MAX_TRAILER_BYTES: Final = 16 * 1024

_VERSIONS: Final = ("1.0", "1.1")
#: A name or an address with a port, or nothing: the characters of RFC 3986, 3.2.2.
_HOST: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*")
#: Bytes that a target may hold only percent-encoded (RFC 3986, 2.1), but that browsers' scripts and curl send raw.
_RAW: Final = re.compile(rb"[\x80-\xff]")
#: A line in a chunked body that may be the request line of the next request, or its beginning: the end of such a body
#: is not known in advance. Whole lines only, or the last one, so that a hostile body is not read in tiny pieces.
_REQUEST_LINE: Final = re.compile(rb"\n([A-Z-]{1,32}(?: [/*hH][!-\xff]* HTTP/1\.[01]\r\n|(?: [^\n]*)?\Z))")
_END_OF_HEAD: Final = b"\r\n\r\n"
_LINE_ENDS: Final = re.compile(rb"[\r\n]+")
#: Targets and hosts up to this length are remembered: clients choose them.
_REMEMBERED_BYTES: Final = 256
#: Heads up to this length are remembered, one for each connection.
_REMEMBERED_HEAD_BYTES: Final = 1024
#: The authority of an absolute target, up to its path.
_AUTHORITY: Final = re.compile(rb"[^/?#@]+(?=/)")
_SCHEMES: Final = frozenset({b"http", b"https"})
_CHECKED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


class Refused(Exception):
    """A request that cannot be read: it is answered with this status and message, and the connection is closed."""

    def __init__(self, status: int = 400, message: str = "Invalid HTTP request received.") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RequestHead(msgspec.Struct, eq=False):
    """The head of a request. Nobody changes it.

    Attributes:
        target: The path and the query as they were sent.
        path: Percent-decoded; ``raw_path`` is the path as it was sent.
        headers: Names in lower case, in the order of arrival.
        length: Bytes of the body; 0 for none, ``None`` if the client did not say (chunked).
        is_persistent: The client can use the connection for another request.
        expects_continue: The client waits for ``100 Continue`` before it sends the body.
        notes: What its reader has computed of it. A client that repeats its head saves that work.
    """

    method: str
    target: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: Fields
    scheme: str = "http"
    length: int | None = 0
    is_persistent: bool = True
    expects_continue: bool = False
    notes: Any = None


class Reading(enum.Enum):
    """The part of a request that comes next."""

    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"
    REFUSED = "refused"


class Receiver(Protocol):
    """Takes the requests of a connection, in their order."""

    def request_arrives(self, head: RequestHead, size: int, body: bytes, *, is_whole: bool) -> None:
        """Take a request.

        Args:
            head: Its head, which had about ``size`` bytes.
            size: Bytes.
            body: The part of the body that came with the head.
            is_whole: The request is complete: no more of it comes.

        Raises:
            Refused: Nothing more is to be read.
        """

    def body_arrives(self, data: bytes) -> None:
        """Take some more bytes of the body of the newest request."""

    def request_ends(self) -> None:
        """Note that the newest request, which was not whole, is complete."""


class RequestParser:
    """Reads requests. Trailers are dropped.

    A request that arrives in one piece is handed over in one piece, one that does not, as soon as its head is there.
    The last head is remembered: most clients send the same one again and again, and the same bytes mean the same.

    Another protocol that a client offers to speak (``Upgrade``) is not taken. The parser would leave out the body of
    such a request, so its head is read a second time, without the offer.

    Args:
        receiver: Takes the requests.
        scheme: Of the requests: ``http`` or ``https``.

    Attributes:
        reading: The part that comes next.
        head_bytes: Bytes of a head that has not ended.
    """

    def __init__(self, receiver: Receiver, scheme: str = "http") -> None:
        self.reading = Reading.BETWEEN
        self.head_bytes = 0
        self._receiver = receiver
        self._scheme = scheme
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Fields = []
        self._head: RequestHead | None = None  # not handed over yet
        self._last_head: RequestHead | None = None  # handed over whole since the last bytes came
        self._known: tuple[bytes, RequestHead, int] | None = None  # its bytes, and the size of the whole request
        self._pieces: list[bytes] = []  # of the body, not handed over yet
        self._size = 0
        self._left: int | None = 0  # of the body; None if the client did not say
        self._is_in_line = True
        self._is_offered_upgrade = False
        self._trailer_bytes = 0
        self._got_data = False

    def feed(self, data: bytes) -> None:
        """Read some bytes.

        Raises:
            Refused: They are no request. Nothing more is read.
        """
        reading = self.reading
        if reading is Reading.REFUSED:
            return
        if reading is Reading.BETWEEN and self._known is not None:
            start, head, size = self._known
            if len(data) == size and not self.head_bytes and data.startswith(start):
                try:
                    self._receiver.request_arrives(head, size, data[len(start) :], is_whole=True)
                except Refused:
                    self.reading = Reading.REFUSED
                    raise
                return
        if reading is not Reading.BODY:
            self.head_bytes += len(data)
        self._got_data = False
        self._last_head = None
        try:
            rest = self._read(data)
            if rest is not None:
                self._read_on(rest)
            elif self.reading is not Reading.BETWEEN:
                self._hand_over()
                self._check_limits(reading, data)
            elif reading is Reading.BETWEEN:
                self._remember(data)
        except httptools.HttpParserError as exc:
            self.reading = Reading.REFUSED
            if isinstance(exc.__context__, Refused):
                raise exc.__context__ from None
            self._hand_over()
            raise Refused from None
        except Refused:
            self.reading = Reading.REFUSED
            raise

    def close(self) -> None:
        """Read no more. Let go of what refers back to this parser: no cycle waits for the garbage collector."""
        self.reading = Reading.REFUSED
        del self._receiver, self._parser

    # -- callbacks of httptools ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note the first byte of a request."""
        self.reading = Reading.HEAD
        self._target = b""
        self._headers = []

    def on_url(self, data: bytes) -> None:
        """Keep a piece of the target."""
        self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; drop one of a trailer."""
        if self.reading is Reading.BODY:
            self._count_trailer(len(name) + len(value))
            return
        if len(self._headers) == MAX_FIELDS:
            raise Refused(431, f"More than {MAX_FIELDS} request header fields")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head; it is handed over with what has arrived of its body."""
        parser = self._parser
        self._size, self.head_bytes = self.head_bytes, 0
        self._is_in_line = True
        self._trailer_bytes = 0
        self.reading = Reading.BODY
        method = parser.get_method()
        head = read_head(
            method,
            self._target,
            parser.get_http_version(),
            self._headers,
            is_persistent=parser.should_keep_alive(),
            scheme=self._scheme,
        )
        if method != b"CONNECT" and parser.should_upgrade():
            self._is_offered_upgrade = True
        else:
            self._head = head
        self._left = head.length
        if not head.is_persistent:
            self._known = None  # httptools reads no request behind this one, so nor does the memory

    def on_body(self, data: bytes) -> None:
        """Keep some bytes of the body. They are handed over together: a client may send it in chunks of a byte."""
        self._got_data = True
        self._trailer_bytes = 0
        if self._left is not None:
            self._left -= len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Hand over the whole request, or its end."""
        if self._is_offered_upgrade:
            return
        self.reading = Reading.BETWEEN
        if self._head is None:
            self._hand_over()
            self._receiver.request_ends()
        else:
            self._last_head = self._head
            self._hand_over(is_whole=True)

    # -- details ------------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> bytes | None:
        """Have httptools read heads and bodies in pieces of their own: only so is it known where a request line begins.

        Returns:
            What follows a head with which httptools stopped; ``None`` if it read all.
        """
        begin, size = 0, len(data)
        while begin < size:
            if self.reading is Reading.BODY:
                end = begin + self._left if self._left else _next_request_line(data, begin)
                piece = data[begin:end]
            else:
                blank = _LINE_ENDS.match(data, begin)  # blank lines before a head, or the rest of a line's end
                last = data.find(_END_OF_HEAD, begin)
                end = blank.end() if blank is not None else size if last < 0 else last + len(_END_OF_HEAD)
                piece = data[begin:end]
                if self._is_in_line and (blank is None or self.reading is Reading.HEAD):
                    self._is_in_line = b"\n" not in piece
                    if not piece.isascii():
                        piece = _encode_line(piece)
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade as offer:
                return piece[offer.args[0] :] + data[end:]
            begin = end
        return None

    def _hand_over(self, *, is_whole: bool = False) -> None:
        """Hand over what has arrived of a request since the last time, if anything has."""
        head, pieces = self._head, self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if pieces:
            self._pieces = []
        if head is not None:
            self._head = None
            self._receiver.request_arrives(head, self._size, body, is_whole=is_whole)
        elif body:
            self._receiver.body_arrives(body)

    def _remember(self, data: bytes) -> None:
        """Remember the head of a request that has arrived alone, and in one piece."""
        head = self._last_head
        if head is None or head.length is None or not head.is_persistent:
            return
        start = data[: len(data) - head.length]
        if len(start) <= _REMEMBERED_HEAD_BYTES and start.find(b"\r\n\r\n") == len(start) - 4:
            self._known = start, head, len(data)

    def _check_limits(self, before: Reading, data: bytes) -> None:
        """Look at a request that has not ended with these bytes."""
        if self.reading is Reading.HEAD:
            if self.head_bytes > MAX_HEAD_BYTES:
                raise Refused(431, "Request header fields too large")
        elif before is Reading.BODY and not self._got_data:
            self._count_trailer(len(data))

    def _count_trailer(self, size: int) -> None:
        self._trailer_bytes += size
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            text = f"Request trailers or chunk extensions larger than {MAX_TRAILER_BYTES} bytes"
            raise Refused(431, text)

    def _read_on(self, rest: bytes) -> None:
        """Read what follows a head with which httptools stopped."""
        if self._is_offered_upgrade:
            self._is_offered_upgrade = False
            self.reading = Reading.BETWEEN
            lines = [b"%b: %b\r\n" % field for field in self._headers if field[0] != b"upgrade"]
            method, version = self._parser.get_method(), self._parser.get_http_version().encode()
            rest = b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self._target, version, b"".join(lines), rest)
            self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.feed(rest)


def _next_request_line(data: bytes, begin: int) -> int:
    """Return where a line of a chunked body begins that may be a request line behind it; the end if there is none."""
    found = _REQUEST_LINE.search(data, begin)
    return len(data) if found is None else found.start(1)


def _encode_line(data: bytes) -> bytes:
    """Percent-encode the bytes above ASCII of the first line: httptools takes none in a target."""
    end = data.find(b"\n") + 1 or len(data)
    return _RAW.sub(lambda found: b"%%%02X" % ord(found[0]), data[:end]) + data[end:]


def read_head(
    method: bytes, target: bytes, version: str, headers: Fields, *, is_persistent: bool, scheme: str = "http"
) -> RequestHead:
    """Return the head, checked.

    Raises:
        Refused: Its meaning is not certain.
    """
    if version not in _VERSIONS:
        raise Refused
    hosts, length, expects_continue = 0, 0, False
    is_old = version == "1.0"
    for name, value in headers:
        if name not in _CHECKED:
            continue
        if name == b"host":
            hosts += 1
            is_host = _remembered_host(value) if len(value) <= _REMEMBERED_BYTES else _matches_host(value)
            if not is_host:
                raise Refused
        elif name == b"content-length":
            length = int(value)
        elif name == b"expect":
            # RFC 9110, 10.1.1: an HTTP/1.0 client does not know interim answers.
            expects_continue = not is_old and value.lower() == b"100-continue"
        elif is_old or value.lower() != b"chunked":
            raise Refused
        else:
            length = -1
    if hosts != 1 and (hosts or not is_old):
        raise Refused
    if method == b"CONNECT" and length:
        raise Refused  # RFC 9110, 9.3.6: it has no body, so what follows would be read as a request
    if not target.startswith((b"/", b"*")):
        headers = _with_host_of(target, headers)
    parts = _remembered_parts(target) if len(target) <= _REMEMBERED_BYTES else split_target(target)
    return RequestHead(
        method.decode("ascii"),
        *parts,
        version,
        headers,
        scheme,
        length=None if length < 0 else length,
        is_persistent=is_persistent and not is_old,
        expects_continue=expects_continue,
    )


def _with_host_of(target: bytes, headers: Fields) -> Fields:
    """Return the headers with the host of an absolute target, which counts instead of Host (RFC 9112, 3.2.2).

    Raises:
        Refused: The target is not one of HTTP, or has no certain host.
    """
    scheme, mark, rest = target.partition(b"://")
    authority = _AUTHORITY.match(rest)
    if not mark or scheme.lower() not in _SCHEMES or authority is None or not _matches_host(authority[0]):
        raise Refused
    return [*((name, value) for name, value in headers if name != b"host"), (b"host", authority[0])]


def _matches_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def split_target(target: bytes) -> tuple[str, str, bytes, bytes]:
    """Return the target of a head, its path, and both parts as they were sent.

    Raises:
        Refused: It has no path.
    """
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refused from None
    if url.path is None or url.fragment is not None:
        raise Refused  # RFC 9112, 3.2: a fragment is no part of a target; others might take it for one of the path
    path, query = url.path.decode("ascii"), url.query or b""
    shown = f"{path}?{query.decode('ascii')}" if query else path
    return shown, urllib.parse.unquote(path) if "%" in path else path, url.path, query


_remembered_host = functools.lru_cache(maxsize=64)(_matches_host)
_remembered_parts = functools.lru_cache(maxsize=1024)(split_target)
