"""What runners and API nodes say to each other (nodes specification 2, 3), as bytes.

The messages are Fn's. Hearth's own nodes add fields to them, which others ignore: a lease and a count of deliveries to
a call that is handed out, how a log is encoded, many ended calls in one message.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from hearth.access.base import EndedCall
from hearth.models.app import App
from hearth.models.errors import HearthError
from hearth.models.message import InvalidMessage, decode_call, encode_call, identify_call
from hearth.models.route import HeaderMap, Route, parse_cpus
from hearth.models.times import ZERO, format_time, parse_time
from hearth.queues.base import Reserved

T = TypeVar("T")

BASE64: Final = "base64"


class _App(msgspec.Struct):
    name: str
    config: dict[str, str] | None = None
    created_at: str = format_time(ZERO)
    updated_at: str = format_time(ZERO)


class _AppAnswer(msgspec.Struct):
    app: _App


class _Route(msgspec.Struct):
    app_name: str
    path: str
    image: str
    memory: int
    type: str
    format: str
    timeout: int
    idle_timeout: int
    cpus: str = ""
    headers: HeaderMap | None = None
    config: dict[str, str] | None = None
    created_at: str = format_time(ZERO)
    updated_at: str = format_time(ZERO)


class _RouteAnswer(msgspec.Struct):
    route: _Route


class _Extras(msgspec.Struct):
    """What is added to a call that is handed out; ``lease_s`` seconds after it was taken its lease ends."""

    lease: str
    deliveries: int = 1
    lease_s: float = 0.0
    fault: str = ""


class _Calls(msgspec.Struct):
    calls: list[msgspec.Raw]


class _Handed(_Calls):
    waited_s: float = 0.0
    visibility_s: float = 0.0


class _Ended(msgspec.Struct):
    call: msgspec.Raw
    log: str = ""
    log_encoding: str = ""
    interrupted: bool = False


class _ManyEnded(msgspec.Struct):
    ended: list[_Ended]


class Release(msgspec.Struct):
    """A lease that is given back, and for how long its call is then hidden."""

    lease: str
    delay_s: float = 0.0


class Releases(msgspec.Struct):
    """Leases that are given back."""

    leases: list[Release]


class Leases(msgspec.Struct):
    """Leases to renew or to settle."""

    leases: list[str]


class _Done(msgspec.Struct):
    msg: str


class Held(msgspec.Struct):
    """For each lease of a request whether it was the current one."""

    held: list[bool]


class Found(msgspec.Struct):
    """For each call of a start how far it had come; empty where it may run now."""

    found: list[str]


def encode(message: Leases | Releases) -> bytes:
    """A message of this module."""
    return msgspec.json.encode(message)


def read_done(data: bytes) -> None:
    """An answer that says no more than that it was done.

    Raises:
        InvalidMessage: It comes from something else.
    """
    decode(data, _Done)


def reader_of_held(count: int) -> Callable[[bytes], list[bool]]:
    """Reads an answer on so many leases."""

    def read(data: bytes) -> list[bool]:
        held = decode(data, Held).held
        if len(held) != count:
            raise InvalidMessage(f"{count} leases, {len(held)} answers")
        return held

    return read


def decode(data: bytes, kind: type[T]) -> T:
    """A message of this shape.

    Raises:
        InvalidMessage: It is none.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise InvalidMessage(f"not understood: {exc}") from exc


def decode_app(data: bytes, name: str) -> App:
    """The app of an answer.

    Raises:
        InvalidMessage: It has none, or another one.
    """
    found = decode(data, _AppAnswer).app
    if found.name != name:
        raise InvalidMessage(f"asked for app {name!r}, got {found.name!r}")
    return App(
        name=name,
        config=found.config or {},
        created_at=_time(found.created_at),
        updated_at=_time(found.updated_at),
    )


def decode_route(data: bytes, app_name: str, path: str) -> Route:
    """The route of an answer.

    Raises:
        InvalidMessage: It has none, or another one.
    """
    found = decode(data, _RouteAnswer).route
    if (found.app_name, found.path) != (app_name, path):
        raise InvalidMessage(f"asked for route {app_name}{path}, got {found.app_name}{found.path}")
    try:
        cpu_milli = parse_cpus(found.cpus)
    except HearthError as exc:
        raise InvalidMessage(str(exc)) from exc
    return Route(
        app_name=app_name,
        path=path,
        image=found.image,
        memory=found.memory,
        cpu_milli=cpu_milli,
        headers=found.headers or {},
        type=found.type,
        format=found.format,
        timeout=found.timeout,
        idle_timeout=found.idle_timeout,
        config=found.config or {},
        created_at=_time(found.created_at),
        updated_at=_time(found.updated_at),
    )


def encode_handed(reserved: Sequence[Reserved], *, waited_s: float, now: float, visibility_s: float) -> bytes:
    """Calls that are handed out, each as Fn has it, with its lease.

    Args:
        reserved: The calls.
        waited_s: Seconds from the request to the moment at which they were taken, at least.
        now: That moment.
        visibility_s: Seconds for which a renewed lease lasts.
    """
    calls = [
        encode_call(one.call)[:-1]
        + b","
        + msgspec.json.encode(_Extras(one.lease, one.deliveries, max(0.0, one.until - now), one.fault))[1:]
        for one in reserved
    ]
    return b'{"calls":[%b],"waited_s":%b,"visibility_s":%b}' % (
        b",".join(calls),
        msgspec.json.encode(waited_s),
        msgspec.json.encode(visibility_s),
    )


def decode_handed(data: bytes, asked_at: float) -> tuple[list[Reserved], float]:
    """Calls that were handed out, and the visibility timeout.

    No clock is shared: a lease is counted from the moment at which it can have begun at the earliest.

    Args:
        data: The answer.
        asked_at: Loop time at which the request was sent.

    Raises:
        InvalidMessage: It is no such answer, or has no leases: it comes from a server that gives none.
    """
    handed = decode(data, _Handed)
    return [_reserved(bytes(raw), asked_at + handed.waited_s) for raw in handed.calls], handed.visibility_s


def encode_starts(calls: Sequence[bytes]) -> bytes:
    """Calls that are about to run."""
    return b'{"calls":[%b]}' % b",".join(calls)


def decode_starts(data: bytes) -> list[bytes] | None:
    """The calls of a batch of starts; ``None`` if it is no batch, but one call as Fn sends it."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=_Calls).calls]
    except (msgspec.MsgspecError, ValueError):
        return None


def encode_ended(one: EndedCall, *, interrupted: bool = False) -> bytes:
    """An ended call with its log; a log that is not UTF-8 is written as base64, and says so."""
    try:
        log, encoding = one.log.decode(), ""
    except UnicodeDecodeError:
        log, encoding = base64.b64encode(one.log).decode(), BASE64
    return msgspec.json.encode(_Ended(msgspec.Raw(encode_call(one.call)), log, encoding, interrupted))


def encode_many_ended(ended: Sequence[bytes]) -> bytes:
    """Ended calls, encoded one by one before, as one message."""
    return b'{"ended":[%b]}' % b",".join(ended)


def decode_many_ended(data: bytes) -> list[EndedCall] | None:
    """The calls of a batch; ``None`` if it is no batch.

    Raises:
        InvalidMessage: One of them is no call.
    """
    try:
        batch = msgspec.json.decode(data, type=_ManyEnded).ended
    except (msgspec.MsgspecError, ValueError):
        return None
    return [_to_ended(one) for one in batch]


def decode_ended(data: bytes) -> tuple[EndedCall, bool]:
    """One ended call, also without its wrapper; and whether nobody was there when it ended.

    Raises:
        InvalidMessage: It is none.
    """
    try:
        one = msgspec.json.decode(data, type=_Ended)
    except (msgspec.MsgspecError, ValueError):
        return EndedCall(decode_call(data), b""), False
    return _to_ended(one), one.interrupted


def _to_ended(one: _Ended) -> EndedCall:
    call = decode_call(bytes(one.call))
    if one.log_encoding != BASE64:
        return EndedCall(call, one.log.encode())
    try:
        return EndedCall(call, base64.b64decode(one.log, validate=True))
    except binascii.Error as exc:
        raise InvalidMessage(f"not a log: {exc}") from exc


def _reserved(raw: bytes, taken_at: float) -> Reserved:
    extras = decode(raw, _Extras)
    until = taken_at + extras.lease_s
    if not extras.fault:
        return Reserved(decode_call(raw), extras.lease, extras.deliveries, until)
    call = identify_call(raw)
    if call is None:
        raise InvalidMessage("a call without identity")
    return Reserved(call, extras.lease, extras.deliveries, until, extras.fault)


def _time(text: str) -> dt.datetime:
    try:
        return parse_time(text)
    except ValueError as exc:
        raise InvalidMessage(str(exc)) from exc
