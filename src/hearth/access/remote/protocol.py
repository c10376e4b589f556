"""The messages between runners and API nodes (nodes specification 2, 3), encoded and decoded.

The messages are Fn's. Hearth's own nodes add fields to them, which others ignore: a lease and a count of deliveries to
a call that is handed out, how a log is encoded, many ended calls in one message.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from hearth.access.base import EndedCall
from hearth.models import idempotency
from hearth.models.app import App
from hearth.models.call import HeaderMap
from hearth.models.call_auth import Signature
from hearth.models.call_result import CallResult, HeaderFields
from hearth.models.delivery import Delivery
from hearth.models.errors import HearthError, InternalError, StoreUnavailable
from hearth.models.idempotency import Claim, KeyEnd, KeyState, StoredKey
from hearth.models.instances import Instances, KeptReady
from hearth.models.message import (
    INSIDE_BYTES,
    InvalidMessage,
    decode_call,
    decode_parts,
    encode_call,
    encode_plain,
    identify_call,
    join,
    split,
)
from hearth.models.principal import Role
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.models.route import Route, parse_cpus
from hearth.models.secret import ENV
from hearth.models.times import ZERO, format_time, parse_time
from hearth.models.token import Token
from hearth.queues.base import Reserved

T = TypeVar("T")

BASE64: Final = "base64"


class WithoutLeases(InternalError):
    """The API node hands out calls without leases, as Fn's do."""

    def __init__(self) -> None:
        super().__init__(
            "the API node gives no leases on async calls; bring it to this version, or use its own runners"
        )


#: As a node keeps a token: its SHA-256. No database is asked for anything else, such as a text with NUL.
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*\Z")]


class _Leased(msgspec.Struct):
    lease: str = ""


class _App(msgspec.Struct):
    name: str
    config: dict[str, str] | None = None
    created_at: str = format_time(ZERO)
    updated_at: str = format_time(ZERO)
    id: str = ""
    secrets: tuple[str, ...] = ()
    auth: str = ""
    quotas: Quotas = NO_QUOTAS
    syslog_url: str = ""


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
    secrets: tuple[str, ...] = ()
    secrets_as: str = ENV
    auth: str = ""
    signature: Signature | None = None
    concurrency: int = 1
    digest: str = ""
    min_instances: int = 0
    max_instances: int | None = None


class _RouteAnswer(msgspec.Struct):
    route: _Route


class _DeliveryAnswer(msgspec.Struct):
    """The same answer: its rules for async calls are fields of the route."""

    route: Delivery


class _Extras(msgspec.Struct):
    """Fields beside those of a call that is handed out. Its lease ends ``lease_s`` seconds after it was taken."""

    lease: str
    deliveries: int = 1
    lease_s: float = 0.0
    fault: str = ""
    payload_bytes: int = 0


class _Calls(msgspec.Struct):
    calls: list[msgspec.Raw]


class _Handed(_Calls):
    waited_s: float = 0.0
    visibility_s: float = 0.0
    leaves_out: bool = False


class _Result(msgspec.Struct, omit_defaults=True):
    """The result of a call; its body is base64."""

    status: int
    expires_at: str
    headers: HeaderFields = ()
    of_route: HeaderFields = ()
    waited_s: float = -1.0
    error: str = ""
    body: str = ""


class _Ended(msgspec.Struct, omit_defaults=True):
    call: msgspec.Raw
    log: str = ""
    log_encoding: str = ""
    interrupted: bool = False
    result: _Result | None = None


class _ManyEnded(msgspec.Struct):
    ended: list[_Ended]


class Release(msgspec.Struct):
    """A lease to release, and the seconds for which its call is then hidden."""

    lease: str
    delay_s: float = 0.0


class Releases(msgspec.Struct):
    """Leases to release."""

    leases: list[Release]


class Leases(msgspec.Struct):
    """Leases to renew or to acknowledge."""

    leases: list[str]


class _Retry(msgspec.Struct):
    """The line before the message of a call that runs again."""

    lease: str
    delay_s: float = 0.0
    log: str = ""
    log_encoding: str = ""


class _Done(msgspec.Struct):
    msg: str


class Held(msgspec.Struct):
    """For each lease of a request, whether it was the current one."""

    held: list[bool]


class Found(msgspec.Struct):
    """For each call of a batch of starts its status; empty if the call may run now."""

    found: list[str]


class CallIds(msgspec.Struct):
    """Calls that a runner runs, or those of them that were cancelled."""

    calls: list[str]


class WantedSecrets(msgspec.Struct):
    """The secrets that a runner needs, and the app that they belong to."""

    app_name: str
    app_id: str
    names: list[str]


class Ready(msgspec.Struct):
    """The functions that keep containers ready: see :class:`~hearth.models.instances.KeptReady`."""

    routes: list[tuple[str, str]]
    fns: list[str]


class Pinned(msgspec.Struct):
    """The digest of a function's image: see :class:`~hearth.models.image.Pin`."""

    app_name: _Name
    function: _Name
    image: _Name
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class WantedTokens(msgspec.Struct):
    """Tokens that callers have shown to a runner, by their digests."""

    digests: list[Digest]


class _Token(msgspec.Struct):
    id: str
    name: str
    role: Role
    apps: tuple[str, ...]
    digest: str
    created_at: str
    last_used_at: str
    expires_at: str


class _FoundToken(msgspec.Struct, omit_defaults=True):
    token: _Token | None = None
    is_unreadable: bool = False


class _TokensAnswer(msgspec.Struct):
    found: list[_FoundToken]


class _KeyEnd(msgspec.Struct, omit_defaults=True):
    """The end of the request that holds an idempotency key; without ``state`` it had no effect."""

    id: idempotency.Digest
    call_id: _Name
    ttl_s: idempotency.Seconds
    state: KeyState | None = None
    result: _Result | None = None


class KeyRequest(msgspec.Struct, omit_defaults=True):
    """A request about idempotency keys: a claim, the keys that are held for longer, or the end of a request."""

    claim: Claim | None = None
    renew: list[tuple[idempotency.Digest, _Name]] = []
    end: _KeyEnd | None = None


class _KeyAnswer(msgspec.Struct, omit_defaults=True):
    call_id: str
    fingerprint: str
    state: KeyState
    is_held: bool = False
    is_accepted: bool = False
    result: _Result | None = None


class Ended(msgspec.Struct):
    """The end of a request was stored, as it still held its idempotency key."""

    is_ended: bool


class Unreadable(msgspec.Struct):
    """A secret that cannot be given to a runner; without ``reason`` it does not exist."""

    name: str
    reason: str = ""


class GivenSecrets(msgspec.Struct):
    """The secrets of a runner's function, or the one that prevents its call."""

    values: dict[str, str] = {}
    versions: dict[str, str] = {}
    unavailable: Unreadable | None = None

    def __repr__(self) -> str:
        return f"<GivenSecrets {' '.join(self.versions)}>"


def encode(
    message: Leases | Releases | CallIds | WantedSecrets | GivenSecrets | WantedTokens | Pinned | KeyRequest,
) -> bytes:
    """Encode a message of this module."""
    return msgspec.json.encode(message)


def read_done(data: bytes) -> None:
    """Check the answer to a request that returns nothing.

    Raises:
        InvalidMessage: The answer is not that of an API node.
    """
    decode(data, _Done)


class _Drain(msgspec.Struct):
    drain: bool


def decode_drain(data: bytes) -> bool:
    """Decode the answer to a report: whether the node is to drain.

    Raises:
        InvalidMessage: The answer is not that of an API node.
    """
    return decode(data, _Drain).drain


def reader_of_held(count: int) -> Callable[[bytes], list[bool]]:
    """Return a decoder for the answer about ``count`` leases."""

    def read(data: bytes) -> list[bool]:
        held = decode(data, Held).held
        if len(held) != count:
            raise InvalidMessage(f"{count} leases, {len(held)} answers")
        return held

    return read


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a message of this type.

    Raises:
        InvalidMessage: The bytes are not such a message.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise InvalidMessage(f"not understood: {exc}") from exc


def decode_app(data: bytes, name: str) -> App:
    """Decode the answer with an app.

    Raises:
        InvalidMessage: The answer does not have the expected object.
    """
    found = decode(data, _AppAnswer).app
    if found.name != name:
        raise InvalidMessage(f"asked for app {name!r}, got {found.name!r}")
    return App(
        name=name,
        config=found.config or {},
        created_at=_time(found.created_at),
        updated_at=_time(found.updated_at),
        id=found.id,
        secrets=found.secrets,
        auth=found.auth,
        quotas=found.quotas,
        syslog_url=found.syslog_url,
    )


def decode_route(data: bytes, app_name: str, path: str) -> Route:
    """Decode the answer with a route.

    Raises:
        InvalidMessage: The answer does not have the expected object.
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
        secrets=found.secrets,
        secrets_as=found.secrets_as,
        auth=found.auth,
        signature=found.signature,
        concurrency=found.concurrency,
        instances=Instances(min_instances=found.min_instances, max_instances=found.max_instances),
        delivery=decode(data, _DeliveryAnswer).route,
        digest=found.digest,
    )


def decode_ready(data: bytes) -> KeptReady:
    """Decode the functions that keep containers ready.

    Raises:
        InvalidMessage: The answer does not have the expected object.
    """
    found = decode(data, Ready)
    return KeptReady(found.routes, found.fns)


def encode_tokens(found: Sequence[Token | StoreUnavailable | None]) -> bytes:
    """Encode tokens, whose values no node has; ``None`` for none, an error for one that cannot be read."""
    answers = [_FoundToken(is_unreadable=True) if isinstance(one, Exception) else _found(one) for one in found]
    return msgspec.json.encode(_TokensAnswer(answers))


def _found(token: Token | None) -> _FoundToken:
    if token is None:
        return _FoundToken()
    shown = _Token(
        id=token.id,
        name=token.name,
        role=token.role,
        apps=token.apps,
        digest=token.digest,
        created_at=format_time(token.created_at),
        last_used_at=format_time(token.last_used_at),
        expires_at=format_time(token.expires_at),
    )
    return _FoundToken(shown)


def decode_tokens(data: bytes, digests: Sequence[str]) -> list[Token | StoreUnavailable | None]:
    """Decode the answer about the tokens of these digests.

    Raises:
        InvalidMessage: The answer does not have the expected objects.
    """
    answers = decode(data, _TokensAnswer).found
    if len(answers) != len(digests):
        raise InvalidMessage(f"{len(digests)} tokens, {len(answers)} answers")
    return [_token(one, digest) for one, digest in zip(answers, digests, strict=True)]


def _token(answer: _FoundToken, digest: str) -> Token | StoreUnavailable | None:
    if answer.is_unreadable:
        return StoreUnavailable("the API node cannot read the stored token")
    found = answer.token
    if found is None:
        return None
    if found.digest != digest:
        raise InvalidMessage("asked for one token, got another")
    return Token(
        id=found.id,
        name=found.name,
        role=found.role,
        apps=found.apps,
        digest=digest,
        created_at=_time(found.created_at),
        last_used_at=_time(found.last_used_at),
        expires_at=_time(found.expires_at),
    )


def encode_handed(
    reserved: Sequence[Reserved], *, waited_s: float, now: float, visibility_s: float, behind: bool = False
) -> bytes:
    """Encode calls that are handed out, each in the form of Fn plus its lease.

    Args:
        reserved: The calls.
        waited_s: Seconds from the request to the moment at which they were taken, at least.
        now: That moment.
        visibility_s: Seconds for which a renewed lease lasts.
        behind: True if the runner reads large payloads behind the JSON.
    """
    calls, payloads = [], []
    for one in reserved:
        size = len(one.call.payload) if behind and len(one.call.payload) > INSIDE_BYTES else 0
        if size:
            payloads.append(one.call.payload)
        extras = _Extras(one.lease, one.deliveries, max(0.0, one.until - now), one.fault, size)
        calls.append(encode_plain(one.call, payload_bytes=size)[:-1] + b"," + msgspec.json.encode(extras)[1:])
    text = b'{"calls":[%b],"waited_s":%b,"visibility_s":%b,"leaves_out":true}' % (
        b",".join(calls),
        msgspec.json.encode(waited_s),
        msgspec.json.encode(visibility_s),
    )
    return join([text, b"\n", *payloads]) if payloads else text


def decode_handed(data: bytes, asked_at: float) -> tuple[list[Reserved], float, bool]:
    """Decode calls that were handed out, the visibility timeout, and whether the API node can leave apps out.

    The nodes share no clock, so a lease counts from the earliest moment at which it can have started.

    Args:
        data: The answer.
        asked_at: Loop time at which the request was sent.

    Raises:
        InvalidMessage: The bytes are not such an answer.
        WithoutLeases: The server gives no leases.
    """
    text, behind = split(data)
    handed = decode(text, _Handed)
    if any(not decode(bytes(raw), _Leased).lease for raw in handed.calls):
        raise WithoutLeases
    reserved = []
    for raw in handed.calls:
        extras = decode(bytes(raw), _Extras)
        reserved.append(_reserved(bytes(raw), extras, behind, asked_at + handed.waited_s))
        behind = behind[extras.payload_bytes :]
    return reserved, handed.visibility_s, handed.leaves_out


def encode_starts(calls: Sequence[bytes]) -> bytes:
    """Encode a batch of starts."""
    return b'{"calls":[%b]}' % b",".join(calls)


def decode_starts(data: bytes) -> list[bytes] | None:
    """Split a batch of starts into its calls; ``None`` for a single call as Fn sends it."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=_Calls).calls]
    except (msgspec.MsgspecError, ValueError):
        return None


def encode_ended(one: EndedCall, *, interrupted: bool = False) -> bytes:
    """Encode an ended call with its log, and a dead one with its payload.

    A log that is not UTF-8 is base64, and marked so.
    """
    log, encoding = _log_text(one.log)
    call = encode_plain(one.call if one.call.dead else msgspec.structs.replace(one.call, payload=b""))
    return msgspec.json.encode(_Ended(msgspec.Raw(call), log, encoding, interrupted, _result(one.call.result)))


def encode_key_end(end: KeyEnd) -> bytes:
    """Encode the end of the request that holds an idempotency key."""
    return encode(KeyRequest(end=_KeyEnd(end.id, end.call_id, end.ttl_s, end.state, _result(end.result))))


def to_key_end(found: _KeyEnd) -> KeyEnd:
    """Return the decoded end of a request.

    Raises:
        InvalidMessage: Its result is none.
    """
    result = None if found.result is None else _to_result(found.result)
    return KeyEnd(id=found.id, call_id=found.call_id, ttl_s=found.ttl_s, state=found.state, result=result)


def encode_key(key: StoredKey) -> bytes:
    """Encode an idempotency key as it is stored."""
    return msgspec.json.encode(
        _KeyAnswer(key.call_id, key.fingerprint, key.state, key.is_held, key.is_accepted, _result(key.result))
    )


def decode_key(data: bytes) -> StoredKey:
    """Decode an idempotency key as it is stored.

    Raises:
        InvalidMessage: The answer does not have the expected object.
    """
    found = decode(data, _KeyAnswer)
    return StoredKey(
        call_id=found.call_id,
        fingerprint=found.fingerprint,
        state=found.state,
        is_held=found.is_held,
        is_accepted=found.is_accepted,
        result=None if found.result is None else _to_result(found.result),
    )


def _result(result: CallResult | None) -> _Result | None:
    if result is None:
        return None
    return _Result(
        status=result.status,
        expires_at=format_time(result.expires_at),
        headers=result.headers,
        of_route=result.of_route,
        waited_s=result.waited_s,
        error=result.error,
        body=base64.b64encode(result.body).decode(),
    )


def _log_text(log: bytes) -> tuple[str, str]:
    try:
        return log.decode(), ""
    except UnicodeDecodeError:
        return base64.b64encode(log).decode(), BASE64


def _log_bytes(log: str, encoding: str) -> bytes:
    if encoding != BASE64:
        return log.encode()
    try:
        return base64.b64decode(log, validate=True)
    except binascii.Error as exc:
        raise InvalidMessage(f"not a log: {exc}") from exc


def encode_retry(lease: str, again: EndedCall, delay_s: float) -> bytes:
    """Encode a call that runs again, with the log of its last attempt."""
    head = msgspec.json.encode(_Retry(lease, delay_s, *_log_text(again.log)))
    return b"\n".join([head, encode_call(again.call)])


def decode_retry(data: bytes) -> tuple[str, EndedCall, float]:
    """Decode a call that runs again, with the lease of its last attempt and the seconds for which it is hidden.

    Raises:
        InvalidMessage: The bytes are not such a call.
    """
    line, _, message = data.partition(b"\n")
    head = decode(line, _Retry)
    ended = EndedCall(decode_call(message), _log_bytes(head.log, head.log_encoding))
    return head.lease, ended, max(0.0, head.delay_s)


def encode_many_ended(ended: Sequence[bytes]) -> bytes:
    """Join ended calls, each encoded before, into one message."""
    return b'{"ended":[%b]}' % b",".join(ended)


def decode_many_ended(data: bytes) -> list[EndedCall] | None:
    """Decode a batch of ended calls; ``None`` if the message is not a batch.

    Raises:
        InvalidMessage: One of them is not a call.
    """
    try:
        batch = msgspec.json.decode(data, type=_ManyEnded).ended
    except (msgspec.MsgspecError, ValueError):
        return None
    return [_to_ended(one) for one in batch]


def decode_ended(data: bytes) -> tuple[EndedCall, bool]:
    """Decode one ended call, with or without its wrapper, and whether it was interrupted.

    Raises:
        InvalidMessage: The bytes are not an ended call.
    """
    try:
        one = msgspec.json.decode(data, type=_Ended)
    except (msgspec.MsgspecError, ValueError):
        return EndedCall(decode_call(data), b""), False
    return _to_ended(one), one.interrupted


def _to_ended(one: _Ended) -> EndedCall:
    call = decode_call(bytes(one.call))
    if one.result is not None:
        call.result = _to_result(one.result)
    return EndedCall(call, _log_bytes(one.log, one.log_encoding))


def _to_result(found: _Result) -> CallResult:
    try:
        body = base64.b64decode(found.body, validate=True)
    except binascii.Error as exc:
        raise InvalidMessage(f"not a result: {exc}") from exc
    return CallResult(
        status=found.status,
        headers=found.headers,
        body=body,
        of_route=found.of_route,
        waited_s=found.waited_s,
        error=found.error,
        expires_at=_time(found.expires_at),
    )


def _reserved(raw: bytes, extras: _Extras, behind: memoryview, taken_at: float) -> Reserved:
    until = taken_at + extras.lease_s
    if not extras.fault:
        return Reserved(decode_parts(raw, behind), extras.lease, extras.deliveries, until)
    try:
        call = decode_parts(raw, behind)
    except InvalidMessage:  # from a node of an earlier version, which sends it as it is
        found = identify_call(raw)
        if found is None:
            raise
        call = found
    return Reserved(call, extras.lease, extras.deliveries, until, extras.fault)


def _time(text: str) -> dt.datetime:
    try:
        return parse_time(text)
    except ValueError as exc:
        raise InvalidMessage(str(exc)) from exc
