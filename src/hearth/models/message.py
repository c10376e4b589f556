"""A call as a message: the JSON that queues keep and nodes send each other (API specification 2.4)."""

from __future__ import annotations

import base64
import binascii

import msgspec

from hearth.models.call import Call, Stat
from hearth.models.errors import HearthError, InvalidCPUs
from hearth.models.route import ASYNC, DEFAULT, SYNC, HeaderMap, format_cpus, parse_cpus
from hearth.models.times import ZERO, format_time, parse_time


class InvalidMessage(HearthError):
    """The bytes are no call."""


class _Stat(msgspec.Struct):
    timestamp: str
    metrics: dict[str, int]


class _Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    id: str
    app_name: str
    path: str
    status: str = ""
    image: str = ""
    delay: int = 0
    type: str = SYNC
    format: str = DEFAULT
    payload: str = ""
    payload_encoding: str = ""
    url: str = ""
    method: str = ""
    priority: int | None = None
    timeout: int = 0
    idle_timeout: int = 0
    memory: int = 0
    cpus: str = ""
    config: dict[str, str] | None = None
    headers: HeaderMap | None = None
    created_at: str = format_time(ZERO)
    started_at: str = format_time(ZERO)
    completed_at: str = format_time(ZERO)
    stats: list[_Stat] | None = None
    error: str = ""


class _Identity(msgspec.Struct, kw_only=True):
    id: str
    app_name: str
    path: str
    created_at: str = format_time(ZERO)


def encode_call(call: Call) -> bytes:
    """A call with all its fields. A payload that is not UTF-8 is written as base64, and says so."""
    try:
        payload, encoding = call.payload.decode(), ""
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(call.payload).decode(), "base64"
    return msgspec.json.encode(
        _Message(
            id=call.id,
            app_name=call.app_name,
            path=call.path,
            status=call.status,
            image=call.image,
            delay=call.delay,
            type=call.type,
            format=call.format,
            payload=payload,
            payload_encoding=encoding,
            url=call.url,
            method=call.method,
            priority=call.priority,
            timeout=call.timeout,
            idle_timeout=call.idle_timeout,
            memory=call.memory,
            cpus=format_cpus(call.cpu_milli),
            config=call.config,
            headers=call.headers,
            created_at=format_time(call.created_at),
            started_at=format_time(call.started_at),
            completed_at=format_time(call.completed_at),
            stats=[_Stat(format_time(stat.timestamp), stat.metrics) for stat in call.stats] or None,
            error=call.error,
        )
    )


def decode_call(data: bytes) -> Call:
    """The call that these bytes are; also of messages that Fn wrote.

    Raises:
        InvalidMessage: They are none.
    """
    try:
        message = msgspec.json.decode(data, type=_Message)
        call = _to_call(message)
    except (msgspec.MsgspecError, ValueError, InvalidCPUs) as exc:
        raise InvalidMessage(f"not a call: {exc}") from exc
    if not (call.id and call.app_name and call.path):
        raise InvalidMessage("not a call: without id, app or path")
    return call


def identify_call(data: bytes) -> Call | None:
    """Which call this message is for, where the rest of it means nothing here: of another version, or damaged."""
    try:
        found = msgspec.json.decode(data, type=_Identity)
        created_at = parse_time(found.created_at)
    except (msgspec.MsgspecError, ValueError):
        return None
    if not (found.id and found.app_name and found.path):
        return None
    return Call(id=found.id, app_name=found.app_name, path=found.path, type=ASYNC, created_at=created_at)


def _to_call(message: _Message) -> Call:
    return Call(
        id=message.id,
        app_name=message.app_name,
        path=message.path,
        status=message.status,
        image=message.image,
        delay=max(0, message.delay),
        type=message.type,
        format=message.format or DEFAULT,
        payload=_payload(message),
        url=message.url,
        method=message.method,
        priority=min(2, max(0, message.priority or 0)),
        timeout=message.timeout,
        idle_timeout=message.idle_timeout,
        memory=message.memory,
        cpu_milli=parse_cpus(message.cpus),
        config=message.config or {},
        headers=message.headers or {},
        created_at=parse_time(message.created_at),
        started_at=parse_time(message.started_at),
        completed_at=parse_time(message.completed_at),
        stats=[Stat(parse_time(stat.timestamp), stat.metrics) for stat in message.stats or []],
        error=message.error,
    )


def _payload(message: _Message) -> bytes:
    if message.payload_encoding == "":
        return message.payload.encode()
    if message.payload_encoding != "base64":
        raise InvalidMessage(f"not a call: payload_encoding {message.payload_encoding!r}")
    try:
        return base64.b64decode(message.payload, validate=True)
    except binascii.Error as exc:
        raise InvalidMessage(f"not a call: {exc}") from exc
