"""A call as a message, for queues and between nodes (API specification 2.4).

A message is JSON, as Fn writes it. A large payload follows the JSON unchanged, because converting it would block the
event loop. Such a message starts with a byte that starts no JSON, followed by the JSON, which contains the length of
the payload, a line feed, and the payload::

    0x01 {"id":"01C5...","payload_bytes":4194304,...} 0x0a ...

Several messages in one text share one JSON; their payloads follow in order.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from hearth.models.call import Call, HeaderMap, Stat
from hearth.models.call_result import HeaderFields
from hearth.models.errors import HearthError, InvalidCPUs
from hearth.models.function import ASYNC, DEFAULT, SYNC
from hearth.models.retry import Attempt, RetryPolicy
from hearth.models.route import format_cpus, parse_cpus
from hearth.models.secret import ENV
from hearth.models.times import ZERO, format_time, parse_time

#: The first byte of a message whose payloads follow its JSON.
_BEHIND: Final = b"\x01"
_END_OF_JSON: Final = b"\n"
#: A payload up to this size is part of the JSON, where every version of Hearth, and Fn, finds it.
INSIDE_BYTES: Final = 64 * 1024

#: Stands for no policy of retries; this one is not written.
_NO_POLICY: Final = msgspec.Raw(b"null")
_USUAL_POLICY: Final = msgspec.to_builtins(RetryPolicy())


class InvalidMessage(HearthError):
    """The bytes are not a call."""


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
    payload_bytes: int = 0
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
    app_id: str = ""
    response_status: int = 0
    secrets: list[str] | None = None
    secrets_as: str = ENV
    result_ttl: int = 0
    result_headers: HeaderFields = ()
    result_digest: str = ""
    retry: msgspec.Raw = _NO_POLICY
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    earlier_deliveries: int = 0
    expires_at: str = format_time(ZERO)
    trigger_id: str = ""
    syslog_url: str = ""
    origin: str = ""
    dead_letters: bool | None = None
    dead: bool = False
    unreadable: bool = False
    max_queued: int = 0
    max_concurrent: int = 0
    max_instances: int = 0
    on_success: str = ""
    on_failure: str = ""


class _Identity(msgspec.Struct, kw_only=True):
    id: str
    app_name: str
    path: str
    created_at: str = format_time(ZERO)
    app_id: str = ""
    result_digest: str = ""
    attempt: int = 0
    origin: str = ""


def encode_call(call: Call) -> bytes:
    """Return a call with all its fields as a message."""
    if len(call.payload) <= INSIDE_BYTES:
        return encode_plain(call)
    return join([encode_plain(call, payload_bytes=len(call.payload)), _END_OF_JSON, call.payload])


def encode_plain(call: Call, *, payload_bytes: int = 0) -> bytes:
    """Return a call as JSON alone. A payload that is not UTF-8 is written as base64, with its encoding noted.

    Args:
        call: The call.
        payload_bytes: If not 0, the payload is left out: this many bytes of it follow the JSON.
    """
    payload, encoding = ("", "") if payload_bytes else _text(call.payload)
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
            payload_bytes=payload_bytes,
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
            app_id=call.app_id,
            response_status=call.response_status,
            secrets=call.secrets or None,
            secrets_as=call.secrets_as,
            result_ttl=call.result_ttl,
            result_headers=call.result_headers,
            result_digest=call.result_digest,
            retry=_NO_POLICY if call.retry is None else _policy_text(call.retry),
            attempt=call.attempt,
            attempts=call.attempts,
            earlier_deliveries=call.earlier_deliveries,
            expires_at=format_time(call.expires_at),
            trigger_id=call.trigger_id,
            syslog_url=call.syslog_url,
            origin=call.origin,
            dead_letters=call.dead_letters,
            dead=call.dead,
            unreadable=call.unreadable,
            max_queued=call.max_queued,
            max_concurrent=call.max_concurrent,
            max_instances=call.max_instances,
            on_success=call.on_success,
            on_failure=call.on_failure,
        )
    )


def join(parts: Sequence[bytes]) -> bytes:
    """Return JSON and what follows it as one text."""
    return b"".join([_BEHIND, *parts])


def split(data: bytes) -> tuple[bytes, memoryview]:
    """Return the JSON of a text, and what follows it."""
    if not data.startswith(_BEHIND):
        return data, memoryview(b"")
    end = data.find(_END_OF_JSON)
    return data[1 : end if end > 0 else len(data)], memoryview(data)[end + 1 if end > 0 else len(data) :]


def decode_call(data: bytes) -> Call:
    """Return the call of a message; Fn's messages are read, too.

    Raises:
        InvalidMessage: The bytes are not a call.
    """
    text, behind = split(data)
    return decode_parts(text, behind)


def decode_parts(text: bytes, behind: memoryview) -> Call:
    """Return a call from its JSON, and from what follows the JSON and starts with the payload.

    Raises:
        InvalidMessage: The bytes are not a call.
    """
    try:
        message = msgspec.json.decode(text, type=_Message)
        call = _to_call(message)
    except (msgspec.MsgspecError, ValueError, InvalidCPUs) as exc:
        raise InvalidMessage(f"not a call: {exc}") from exc
    if not (call.id and call.app_name and call.path):
        raise InvalidMessage("not a call: without id, app or path")
    if message.payload_bytes:
        call.payload = bytes(behind[: message.payload_bytes])
        if len(call.payload) != message.payload_bytes:
            raise InvalidMessage(f"not a call: {len(call.payload)} of {message.payload_bytes} bytes of payload")
    return call


def identify_call(data: bytes) -> Call | None:
    """Return the call that a message names, even if the rest cannot be read: of another version, or damaged."""
    try:
        found = msgspec.json.decode(split(data)[0], type=_Identity)
        created_at = parse_time(found.created_at)
    except (msgspec.MsgspecError, ValueError):
        return None
    if not (found.id and found.app_name and found.path):
        return None
    return Call(
        id=found.id,
        app_name=found.app_name,
        path=found.path,
        type=ASYNC,
        created_at=created_at,
        app_id=found.app_id,
        result_digest=found.result_digest,
        attempt=found.attempt,
        origin=found.origin,
    )


# Many calls have one of few policies: each is written and read once.


@functools.lru_cache(maxsize=256)
def _policy_text(policy: RetryPolicy) -> msgspec.Raw:
    """Write what differs from the defaults: a whole policy would be a fifth of most messages."""
    given = {name: value for name, value in msgspec.to_builtins(policy).items() if value != _USUAL_POLICY[name]}
    return msgspec.Raw(msgspec.json.encode(given))


@functools.lru_cache(maxsize=256)
def _policy(text: bytes) -> RetryPolicy | None:
    return msgspec.json.decode(text, type=RetryPolicy | None)


def _text(payload: bytes) -> tuple[str, str]:
    """Return the payload as it stands in JSON, and its encoding."""
    try:
        return payload.decode(), ""
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode(), "base64"


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
        app_id=message.app_id,
        response_status=message.response_status,
        secrets=message.secrets or [],
        secrets_as=message.secrets_as,
        result_ttl=max(0, message.result_ttl),
        result_headers=message.result_headers,
        result_digest=message.result_digest,
        retry=None if message.retry is _NO_POLICY else _policy(bytes(message.retry)),
        attempt=message.attempt,
        attempts=message.attempts,
        earlier_deliveries=max(0, message.earlier_deliveries),
        expires_at=parse_time(message.expires_at),
        trigger_id=message.trigger_id,
        syslog_url=message.syslog_url,
        origin=message.origin,
        dead_letters=message.dead_letters,
        dead=message.dead,
        unreadable=message.unreadable,
        max_queued=max(0, message.max_queued),
        max_concurrent=max(0, message.max_concurrent),
        max_instances=max(0, message.max_instances),
        on_success=message.on_success,
        on_failure=message.on_failure,
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
