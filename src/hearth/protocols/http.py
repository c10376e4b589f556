"""The ``http`` format: each call is one HTTP/1.1 request on stdin, answered by one response on stdout."""

from __future__ import annotations

import http
from operator import itemgetter
from typing import Final

from hearth.models.errors import InternalError
from hearth.protocols.base import HOP_BY_HOP, CallInput, CallProtocol, Decoder, Encoder, Head
from hearth.protocols.fields import blank_controls, connection_only, field_name, from_unicode, is_token
from hearth.protocols.http_answer import MAX_HEAD_BYTES, HttpDecoder

#: Written by the encoder itself, whatever the client sent under these names.
_OWN: Final = frozenset(
    {"Host", "User-Agent", "Content-Length", "Fn_call_id", "Fn_deadline", "Fn_method", "Fn_request_url"}
)
_DROPPED: Final = HOP_BY_HOP | _OWN


class HttpEncoder(Encoder):
    """Writes one request; streams its body."""

    __slots__ = ("_head", "_left")

    def __init__(self, call: CallInput) -> None:
        self._head = _head(call)
        self._left = call.content_length

    def body(self, data: bytes) -> bytes:
        """The next piece, as a chunk where the length is not known; after the head if it is the first."""
        if not data:
            return b""
        if self._left is None:
            return self._take_head() + b"%x\r\n%b\r\n" % (len(data), data)
        self._left -= len(data)
        if self._left < 0:  # it would be read as the next call's head
            raise InternalError("the request's body is longer than its Content-Length")
        head = self._take_head()
        return head + data if head else data

    def end(self) -> bytes:
        """The last chunk where the length is not known; the head if there was no body."""
        if self._left is None:
            return self._take_head() + b"0\r\n\r\n"
        if self._left > 0:
            raise InternalError("the request's body is shorter than its Content-Length")
        return self._take_head()

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head


def _head(call: CallInput) -> bytes:
    host, target = _split_url(call.url)
    lines = [f"{_method(call.method)} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in _fields(call, host)]
    text = "\r\n".join(lines)
    # Clean input is proven by three fast scans of the whole; only what fails them is looked at line by line.
    ends = len(lines) - 1
    if text.count("\r") != ends or text.count("\n") != ends or "\0" in text:
        text = "\r\n".join([blank_controls(line) for line in lines])
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        return f"{from_unicode(text)}\r\n\r\n".encode("latin-1")


def _fields(call: CallInput, host: str) -> list[tuple[str, str]]:
    """The request's fields: Host, User-Agent, framing, then the others by name."""
    headers = call.headers
    length = call.content_length
    first = [("Host", host)]
    agent = headers.get("User-Agent")
    if agent and agent[0]:
        first.append(("User-Agent", agent[0]))
    first.append(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length)))
    connection = headers.get("Connection")
    dropped = connection_only(connection) | _OWN if connection else _DROPPED
    others = [
        (name, value)
        for raw, values in headers.items()
        if (name := field_name(raw)) and name not in dropped
        for value in values
    ]
    others.append(("Fn_call_id", call.call_id))
    others.append(("Fn_deadline", call.deadline))
    others.append(("Fn_method", call.method))
    others.append(("Fn_request_url", call.url))
    others.sort(key=itemgetter(0))
    return first + others


def _method(method: str) -> str:
    if not is_token(method):
        raise InternalError(f"not an HTTP method: {method!r}")
    return method


def _split_url(url: str) -> tuple[str, str]:
    """The host of an absolute URL, and its path and query as the request's target."""
    _, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    target = f"/{path}"
    if "?" in authority:  # http://host?query
        authority, _, query = authority.partition("?")
        target = f"/?{query}/{path}" if "/" in rest else f"/?{query}"
    if not target.isascii() or not target.isprintable() or " " in target:
        target = "".join([c if "!" <= c <= "~" else _escaped(c) for c in target])
    return authority, target


def _escaped(character: str) -> str:
    return "".join([f"%{byte:02X}" for byte in character.encode("utf-8", "replace")])


class HttpProtocol(CallProtocol):
    """HTTP/1.1 over the streams of a hot container.

    Args:
        max_head_bytes: Limit on the answer's status line and headers, interim answers included.
    """

    name = "http"
    hot = True

    def __init__(self, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._max_head_bytes = max_head_bytes

    def encoder(self, call: CallInput) -> Encoder:
        """The writer of one call's input."""
        return HttpEncoder(call)

    def decoder(self, call: CallInput) -> Decoder:
        """The reader of one call's answer."""
        return HttpDecoder(answers_head=call.method == "HEAD", max_head_bytes=self._max_head_bytes)

    def log_form(self, head: Head, body: bytes) -> bytes:
        """The response again: status line, headers, blank line, body; its length stands where chunks did not tell."""
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
