"""Reads one JSON answer from a stream that goes on after it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from hearth.contracts.base import HOP_BY_HOP, Head
from hearth.contracts.stdio.codec import Body, Decoder, End, Event, InvalidOutput, is_surplus
from hearth.contracts.stdio.fields import (
    BODILESS,
    MAX_FIELDS,
    decode_lossy,
    field_name,
    from_unicode,
    has_control,
    well_formed,
)
from hearth.contracts.stdio.json_scan import AnswerScanner

#: Default limit on the bytes of one answer.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

#: An answer that comes in one piece of up to so many bytes is decoded at once.
_WHOLE_BYTES: Final = 256 * 1024
_BLANKS: Final = b" \t\r\n"
_DECODER: Final = msgspec.json.Decoder()


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The content of a function's object, checked; absent members have their defaults.

    Attributes:
        status: 0 where the function gave none.
        headers: Names as the function spelt them.
    """

    body: str = ""
    content_type: str = ""
    has_protocol: bool = False
    status: int = 0
    headers: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)


class JsonDecoder(Decoder):
    """Reads one object (or ``null``), in time linear in its size however it is cut into pieces.

    Args:
        shows_body: Whether the body is wanted; the head tells its length either way.
        max_answer_bytes: Limit on the object's text.
    """

    __slots__ = ("_ended", "_limit", "_scanner", "_shows_body")

    def __init__(self, *, shows_body: bool = True, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._shows_body = shows_body
        self._limit = max_answer_bytes
        self._scanner: AnswerScanner | None = None
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """Return no event until the object is complete, then the whole answer."""
        if self._ended:
            return [End(surplus=True)] if is_surplus(data) else []
        scanner = self._scanner
        if scanner is None:
            data = data.lstrip(_BLANKS)
            if not data:
                return []
            whole = data.rstrip(_BLANKS)
            if len(whole) <= min(self._limit, _WHOLE_BYTES) and (value := _decode_whole(whole)) is not _NOT_WHOLE:
                return self._finish(value, None, b"")
            scanner = self._scanner = AnswerScanner()
        rest = scanner.feed(data)
        if scanner.size > self._limit:
            raise InvalidOutput(f"answer larger than {self._limit} bytes")
        if rest is None:
            return []
        return self._finish(_decode(scanner.outline), scanner.body, rest)

    def feed_eof(self) -> list[Event]:
        """Return no event after the end; before it, the answer is cut off."""
        if not self._ended:
            raise InvalidOutput("output ended before the end of the JSON object")
        return []

    @property
    def started(self) -> bool:
        """True once any byte of this answer other than whitespace has arrived."""
        return self._ended or self._scanner is not None

    def _finish(self, value: object, taken_out: list[bytes] | None, rest: bytes) -> list[Event]:
        """Return the events of a value; the text of its body is apart if it came in pieces."""
        head, body = _answer(value, taken_out)
        events: list[Event] = [head]
        if self._shows_body:
            events += [Body(piece) for piece in body if piece]
        events.append(End(surplus=is_surplus(rest)))
        self._ended = True
        self._scanner = None
        return events


def read_whole(data: bytes, *, shows_body: bool) -> tuple[Head, bytes] | None:
    """Return the answer and its body, if the bytes are exactly one object that is an answer, and blanks around it."""
    value = _decode_whole(data.strip(_BLANKS))
    if value is _NOT_WHOLE:
        return None
    try:
        head, body = _answer(value, None)
    except InvalidOutput:
        return None
    return head, b"".join(body) if shows_body else b""


def _answer(value: object, taken_out: list[bytes] | None) -> tuple[Head, list[bytes]]:
    """Return the head and the pieces of the body; the text of a body that came in pieces is apart."""
    answer = _check(value)
    headers = _response_headers(answer)
    if answer.status in BODILESS:
        return Head(answer.status, headers, answer), []
    body = [well_formed(answer.body).encode()] if taken_out is None else taken_out
    headers.append(("Content-Length", str(sum(map(len, body)))))
    return Head(answer.status or 200, headers, answer), body


_NOT_WHOLE: Final = object()


def _decode_whole(data: bytes) -> object:
    """Return the value, if the bytes are exactly one object: the usual case, and the cheap one."""
    if not (data.startswith(b"{") and data.endswith(b"}")):
        return _NOT_WHOLE
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOT_WHOLE


def _decode(text: bytearray) -> object:
    """Return the value of a text that ends where its object ends; invalid characters are replaced."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InvalidOutput("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_leniently(text)


def _decode_leniently(text: bytearray) -> object:
    """Decode like :func:`_decode`, but let bytes that are not UTF-8 and lone surrogates through."""
    try:
        return json.loads(decode_lossy(text), parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidOutput("nested too deeply") from None
    except ValueError as exc:
        raise InvalidOutput(str(exc)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: object) -> Answer:
    """Return the answer of a value, with the types of its members checked."""
    members = _members(value, "answer")
    protocol = members.get("protocol")
    inner = _members(protocol, "protocol")
    status = inner.get("status_code")
    if status is None:
        status = 0
    if type(status) is not int:  # a bool is an int, too
        raise InvalidOutput("status_code is not an integer")
    if status and not 200 <= status <= 999:
        raise InvalidOutput("status_code is not in 200..999")
    return Answer(_text(members, "body"), _text(members, "content_type"), protocol is not None, status, _headers(inner))


def _members(value: object, what: str) -> dict[str, Any]:
    """Return an object's members by lower-case name, the last of a name winning; none for null."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidOutput(f"{what} is not an object")
    return {name.lower(): member for name, member in value.items()}


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidOutput(f"{name} is not a string")
    return value


def _headers(protocol: Mapping[str, Any]) -> dict[str, list[str]]:
    value = protocol.get("headers")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidOutput("headers is not an object")
    for name, texts in value.items():
        if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            raise InvalidOutput(f"header {name[:64]!r} is not a list of strings")
    return {well_formed(name): [well_formed(text) for text in texts or ()] for name, texts in value.items()}


def _response_headers(answer: Answer) -> list[tuple[str, str]]:
    """Return the headers for the client; the answer's own content type wins."""
    headers = []
    for raw, texts in answer.headers.items():
        name = field_name(raw)
        if not name:
            raise InvalidOutput(f"malformed header name {raw[:64]!r}")
        if name in HOP_BY_HOP or name == "Content-Length" or (name == "Content-Type" and answer.content_type):
            continue
        headers += [(name, _field_value(name, text)) for text in texts]
    if len(headers) > MAX_FIELDS:
        raise InvalidOutput(f"more than {MAX_FIELDS} header fields")
    if answer.content_type:
        headers.append(("Content-Type", _field_value("Content-Type", answer.content_type)))
    return headers


def _field_value(name: str, text: str) -> str:
    if has_control(text):
        raise InvalidOutput(f"control character in header {name!r}")
    return from_unicode(text.strip(" \t"))
