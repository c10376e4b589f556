"""The hot formats as bytes: calls are cut out of whatever pieces arrive, answers are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from hearth_fdk.context import Call

#: Skips what cannot change the depth, whole strings among it, and stops at a brace or at a string that goes on.
_OUTSIDE: Final = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
#: Skips to the end of a string, or to a backslash that is the last byte so far.
_INSIDE: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTE, _OPEN = b'"{'
#: How headers become text and back: bytes that are no UTF-8 stay what they are.
_BYTES: Final = "surrogateescape"
_BODYLESS: Final = (204, 304)
_BLANK: Final = b" \t\r\n"


class FramingError(Exception):
    """The platform sent what is no call in this format."""


class JsonReader:
    """Calls of the format ``json``: one object after another, separated by where each one ends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._in_text = False

    def feed(self, data: bytes) -> list[Call]:
        """Return the calls that are complete now."""
        self._buffer += data
        calls = []
        while (end := self._find_end()) is not None:
            calls.append(json_call(bytes(self._buffer[:end])))
            del self._buffer[:end]
            self._at = self._depth = 0
        return calls

    @property
    def is_idle(self) -> bool:
        """True if no part of a call has arrived."""
        return not self._buffer.strip(_BLANK)

    def _find_end(self) -> int | None:
        """Return where the first call ends; every byte is looked at once, most of them by the regular expressions."""
        while True:
            found = (_INSIDE if self._in_text else _OUTSIDE).match(self._buffer, self._at)
            assert found is not None  # both match nothing at all
            self._at = found.end()
            if self._at == len(self._buffer) or (self._in_text and self._buffer[self._at] != _QUOTE):
                return None
            character = self._buffer[self._at]
            self._at += 1
            if character == _QUOTE:
                self._in_text = not self._in_text
            elif character == _OPEN:
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    return self._at


def json_call(data: bytes) -> Call:
    """Return the call that a text describes."""
    try:
        message = json.loads(data)
    except ValueError as exc:
        raise FramingError(f"not a call in the format json: {exc}") from exc
    protocol = message.get("protocol") or {}
    headers = {
        name: [value] if isinstance(value, str) else value for name, value in (protocol.get("headers") or {}).items()
    }
    if message.get("content_type") and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = [message["content_type"]]
    return Call(
        call_id=message.get("call_id", ""),
        method=protocol.get("method", ""),
        request_url=protocol.get("request_url", ""),
        headers=headers,
        body=(message.get("body") or "").encode("utf-8", "surrogatepass"),
        deadline=message.get("deadline", ""),
        call_type=message.get("type", "sync"),
    )


def json_answer(status: int, headers: Mapping[str, list[str]], body: bytes, method: str = "") -> bytes:
    """Return an answer in the format ``json``. It carries text: it cannot hold a body that is not UTF-8.

    Raises:
        ValueError: It is not UTF-8.
    """
    content_type = next((values[0] for name, values in headers.items() if name.lower() == "content-type"), "")
    message = {
        "body": body.decode(),
        "content_type": content_type,
        "protocol": {"status_code": status, "headers": dict(headers)},
    }
    text = json.dumps(message, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a header that is no UTF-8: its bytes are escaped
        return json.dumps(message).encode() + b"\n"


class HttpReader:
    """Calls of the format ``http``: HTTP/1.1 requests, one after another."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, list[str]]] | None = None
        self._body = bytearray()
        self._left = 0
        self._chunked = False
        self._in_trailer = False

    def feed(self, data: bytes) -> list[Call]:
        """Return the calls that are complete now."""
        self._buffer += data
        calls = []
        while (call := self._next()) is not None:
            calls.append(call)
        return calls

    @property
    def is_idle(self) -> bool:
        """True if no part of a call has arrived."""
        return self._head is None and not self._buffer.strip(_BLANK)

    def _next(self) -> Call | None:
        if self._head is None and not self._read_head():
            return None
        if not (self._read_chunks() if self._chunked else self._read_rest()):
            return None
        assert self._head is not None
        call = self.call(*self._head, bytes(self._body))
        self._head, self._chunked, self._in_trailer = None, False, False
        self._body.clear()
        return call

    def call(self, method: str, target: str, headers: Mapping[str, list[str]], body: bytes) -> Call:
        """Return the call of a request."""
        said = {name.lower(): values[0] for name, values in headers.items()}
        return Call(
            call_id=said.get("fn_call_id", ""),
            method=said.get("fn_method", method),
            request_url=said.get("fn_request_url", target),
            headers={name: values for name, values in headers.items() if not name.lower().startswith("fn_")},
            body=body,
            deadline=said.get("fn_deadline", ""),
        )

    def _read_head(self) -> bool:
        while self._buffer.startswith((b"\r", b"\n")):
            del self._buffer[:1]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._buffer[:end].decode("utf-8", _BYTES).split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3:
            raise FramingError(f"not a call in the format http: {lines[0]!r}")
        headers: dict[str, list[str]] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise FramingError(f"not a header: {line!r}")
            headers.setdefault(name.strip(), []).append(value.strip())
        said = {name.lower(): values[-1] for name, values in headers.items()}
        self._chunked = "chunked" in said.get("transfer-encoding", "").lower()
        self._left = 0 if self._chunked else _number(said.get("content-length", "0"), 10)
        self._head = words[0], words[1], headers
        return True

    def _read_rest(self) -> bool:
        taken = self._buffer[: self._left]
        self._body += taken
        self._left -= len(taken)
        del self._buffer[: len(taken)]
        return self._left == 0

    def _read_chunks(self) -> bool:
        while True:
            if self._left and not self._read_rest():
                return False
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            line = self._buffer[:end].decode("latin-1").strip()
            del self._buffer[: end + 2]
            if self._in_trailer:
                if not line:
                    return True
            elif line:  # an empty one ends a chunk's data
                self._left = _number(line.partition(";")[0], 16)
                self._in_trailer = self._left == 0


def _number(text: str, base: int) -> int:
    try:
        return int(text.strip(), base)
    except ValueError:
        raise FramingError(f"not a length: {text!r}") from None


def http_answer(status: int, headers: Mapping[str, list[str]], body: bytes, method: str = "") -> bytes:
    """Return an answer in the format ``http``; some statuses never have a body (RFC 9112, 6.3)."""
    if method == "HEAD" or status in _BODYLESS:
        body = b""
    lines = _head_lines(status, headers)
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", _BYTES) + body


def http_stream_head(status: int, headers: Mapping[str, list[str]], method: str = "") -> tuple[bytes, bool]:
    """Return the head of an answer whose body comes in pieces, and whether it may have a body."""
    has_body = method != "HEAD" and status not in _BODYLESS
    lines = _head_lines(status, headers)
    if status not in _BODYLESS:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", _BYTES), has_body


def http_chunk(data: bytes) -> bytes:
    """Return a piece of a body; nothing ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head_lines(status: int, headers: Mapping[str, list[str]]) -> list[str]:
    lines = [f"HTTP/1.1 {status} "]
    for name, values in headers.items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            lines += [f"{name}: {value}" for value in values]
    return lines


def cold_call(environment: Mapping[str, str], body: bytes) -> Call:
    """Return the one call of the format ``default``: its head is in the environment."""
    prefix = "FN_HEADER_"
    return Call(
        call_id=environment.get("FN_CALL_ID", ""),
        method=environment.get("FN_METHOD", ""),
        request_url=environment.get("FN_REQUEST_URL", ""),
        headers={name[len(prefix) :]: [value] for name, value in environment.items() if name.startswith(prefix)},
        body=body,
        deadline=environment.get("FN_DEADLINE", ""),
        call_type=environment.get("FN_TYPE", "sync"),
    )
