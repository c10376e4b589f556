"""One client's connection: uvicorn's HTTP/1.1, with a limit on how long and how large a request's head may be."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar, Final

import httptools
import msgspec
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hearth.server.errors import JSON_TYPE
from hearth.server.transport import HeadHolder

#: Bytes of a request line with all its headers.
MAX_HEAD_BYTES: Final = 1 << 20

_VERSIONS: Final = ("1.0", "1.1")
#: A name or an address with a port, or nothing: the characters of RFC 3986, 3.2.2.
_HOST: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*")
_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding")

# uvicorn knows the statuses up to 599; a function may answer with any of three digits.
for _status in range(600, 1000):
    httptools_impl.STATUS_LINE.setdefault(_status, b"HTTP/1.1 %d \r\n" % _status)


class Connection(HttpToolsProtocol):
    """Waits for the head of each request for a limited time; neither body nor answer is limited.

    The timer runs from the first byte of a head (of the first head: from the connection's begin) to its end. Between
    two requests uvicorn's keep-alive timer runs instead.

    Another protocol that a client offers to speak (``Upgrade``) is not taken. The parser leaves out the body of such a
    request; so its head is read a second time, without the offer.
    """

    #: Seconds that a client has for a request's head.
    head_timeout_s: ClassVar[float] = 30.0

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _begun = False
    _in_body = False
    _is_offered_upgrade = False
    _host = b""

    # -- what the event loop tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected."""
        super().connection_made(HeadHolder(transport, self.loop))
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        if not self._in_body:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._read_on(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
        # Most heads come in one piece and need no timer. A client that sends blank lines has not begun one.
        if self._begun or not (self._in_body or self._is_answering()):
            self._await_head()
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "Request header fields too large")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    # -- what the parser tells -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The end of its head."""
        self._stop_waiting()
        self._begun = False
        self._head_bytes = 0
        self._check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                self._is_offered_upgrade = True
                return
            if any(name in _BODY_HEADERS for name, _ in self.headers):
                raise ValueError("CONNECT has no body: what follows would be read as a request")
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        """The end of its body."""
        if self._is_offered_upgrade:
            return
        self._in_body = False
        super().on_message_complete()

    def _check_head(self) -> None:
        """Refuse what the parser lets pass, but another program before or behind us might read otherwise.

        Raises:
            ValueError: The request is answered 400 (RFC 9112, 3.2 and 6.1).
        """
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError("neither HTTP/1.0 nor HTTP/1.1")
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if value != self._host:  # a client says the same each time
                    if _HOST.fullmatch(value) is None:
                        raise ValueError("no host")
                    self._host = value
            elif name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
                raise ValueError("the end of the body is not certain")
        if hosts != 1 and (hosts or version == "1.1"):
            raise ValueError("HTTP/1.1 needs one Host")

    # -- the head --------------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._is_answering():
            self._await_head()  # the head of the request after the one that runs
        elif self._begun:
            self._refuse(408, "Request header timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be read, if no other answer is under way, and close."""
        self._stop_waiting()
        answering = self._is_answering()
        its_own = answering and self._in_body and not self.pipeline and not self.cycle.response_started
        if its_own or not answering:
            self.transport.write(_refusal(status, message))
        self.transport.close()
        if answering:
            self.cycle.disconnected = True  # the application's answer must not follow ours
            self.cycle.message_event.set()

    def _read_on(self, rest: bytes) -> None:
        """Read what follows a head with which the parser stopped."""
        if self._is_offered_upgrade:
            self._is_offered_upgrade = False
            lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            version = self.parser.get_http_version().encode()
            request_line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
            rest = b"".join([request_line, *lines, b"\r\n", rest])
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does, for pipelining
        if rest:
            self.data_received(rest)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


def connection(head_timeout_s: float) -> type[Connection]:
    """The class of connections whose heads may take so long."""
    return type("Connection", (Connection,), {"head_timeout_s": head_timeout_s})


def _refusal(status: int, message: str) -> bytes:
    body = msgspec.json.encode({"error": {"message": message}}) + b"\n"
    return b"".join(
        [
            httptools_impl.STATUS_LINE[status],
            b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (JSON_TYPE.encode(), len(body)),
            body,
        ]
    )
