"""The answer of a function: what its status means, and what of it the client gets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from hearth.contracts.base import HOP_BY_HOP, Head
from hearth.contracts.http_stream.request import PREFIX
from hearth.contracts.stdio.codec import Body, End, Event, InvalidOutput
from hearth.contracts.stdio.http import MAX_HEAD_BYTES, AnswerHead, HttpDecoder, read_head
from hearth.models.errors import ApiError, CallTimeout, FunctionRaised

#: The answers that leave the container as it was: the function ran, its kit reports an error, or its own timeout.
_RAN: Final = 200
_RAISED: Final = 502
_TIMED_OUT: Final = 504
_STATUS: Final = "Fn-Http-Status"
#: Fields of an answer that reach the client under their own names.
_KEPT: Final = frozenset({"Content-Type", "Content-Length"})
_NOT_SET: Final = HOP_BY_HOP | {"Content-Length", "Proxy-Authenticate", "Proxy-Authorization"}
_MAX_STATUS_DIGITS: Final = 3


class BodyTooLarge(InvalidOutput):
    """The body of an answer exceeds its limit. The rest of it was not read."""


class Limits(msgspec.Struct, frozen=True):
    """The largest answers that are passed on.

    Attributes:
        head_bytes: Of the head.
        body_bytes: Of the body.
    """

    head_bytes: int = MAX_HEAD_BYTES
    body_bytes: int = sys.maxsize

    @classmethod
    def of(cls, head_bytes: int, body_bytes: int) -> Limits:
        """Return the limits of an operator, where 0 means none; no head is larger than in any other format."""
        return cls(min(head_bytes or MAX_HEAD_BYTES, MAX_HEAD_BYTES), body_bytes or sys.maxsize)


NO_LIMITS: Final = Limits()


def for_client(answer: AnswerHead, *, is_plain: bool) -> Head:
    """Return what the client gets of the head of a function that ran.

    Raises:
        InvalidOutput: Its status for the client is none.
    """
    head = answer.head
    if is_plain:
        return head
    status, fields = _RAN, []
    names = {name for name, _ in head.headers}
    for name, value in head.headers:
        if name == _STATUS:
            status = _status(value)
        elif name.startswith(PREFIX):
            own = name.removeprefix(PREFIX)
            if own and own not in _NOT_SET:
                fields.append((own, value))
        elif name in _KEPT and PREFIX + name not in names - {f"{PREFIX}Content-Length"}:
            fields.append((name, value))
    return Head(status, fields)


def _status(value: str) -> int:
    """Return the status that a function asks for; 200 for what is no positive number, as Fn does."""
    if not (value.isascii() and value.isdigit() and value.strip("0")):
        return _RAN
    if len(value) > _MAX_STATUS_DIGITS or int(value) < _RAN:
        raise InvalidOutput(f"{_STATUS} {value[:_MAX_STATUS_DIGITS]!r} is not 200 to 999")
    return int(value)


def _read(block: bytes, is_plain: bool) -> tuple[AnswerHead, Head | None]:
    """Return a head, and what the client gets of it; ``None`` if the function did not run well."""
    answer = read_head(block)
    return answer, for_client(answer, is_plain=is_plain) if answer.head.status == _RAN else None


#: A function tends to begin its answers in the same way.
remembered = functools.lru_cache(maxsize=256)(_read)


class StreamDecoder(HttpDecoder):
    """Reads one answer, and judges it.

    Attributes:
        error: The error that the answer stands for, once its head was read; ``None`` if the function ran well.
        closes: The function closes the connection after this answer.
    """

    __slots__ = ("_endless", "_is_plain", "_room", "closes", "error")

    def __init__(self, *, is_plain: bool, limits: Limits) -> None:
        super().__init__(max_head_bytes=limits.head_bytes)
        self._is_plain = is_plain
        self._room = limits.body_bytes
        self._endless = False
        self.error: type[ApiError] | None = None
        self.closes = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete: of an error nothing but its end."""
        return self._judged(super().feed(data))

    def feed_eof(self) -> list[Event]:
        """Return the end of a body that has no other end than this."""
        if self._endless and not self._ended:
            self._ended = True
            return [End()]
        return super().feed_eof()

    def _begin_body(self, answer: AnswerHead) -> None:
        self.closes = answer.closes
        if answer.size is None and not answer.codings:  # RFC 9112 6.3: until the connection is closed
            self.closes = self._endless = True
            self._left = sys.maxsize
        else:
            super()._begin_body(answer)
        status = answer.head.status
        if status == _RAISED:
            self.error = FunctionRaised
        elif status == _TIMED_OUT:
            self.error = CallTimeout
        elif status != _RAN:
            raise InvalidOutput(f"status {status}")

    def _judged(self, events: Sequence[Event]) -> list[Event]:
        judged: list[Event] = []
        for event in events:
            if isinstance(event, Body):
                self._room -= len(event.data)
                if self._room < 0:
                    raise BodyTooLarge("body too large")
            if self.error is None and isinstance(event, Head):
                size = next((int(value) for name, value in event.headers if name == "Content-Length"), 0)
                if size > self._room:
                    raise BodyTooLarge("body too large")
                judged.append(for_client(AnswerHead(event, size), is_plain=self._is_plain))
            elif self.error is None or isinstance(event, End):
                judged.append(event)
        return judged
