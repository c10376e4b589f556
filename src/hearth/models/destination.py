"""Destinations of async calls: where the record of a call that has ended is sent. Pure functions."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from hearth.models.call import QUEUED, SUCCESS, Call
from hearth.models.call_result import CallResult
from hearth.models.errors import InvalidDelivery
from hearth.models.function import ASYNC
from hearth.models.retry import FAILURES, RetryPolicy
from hearth.models.times import format_time

#: The format of the calls that send records, which no route has.
CALLBACK: Final = "callback"
#: The secrets of an app that sign what is sent: the present one, and the one before it.
KEY_NAMES: Final = ("CALLBACK_KEY", "CALLBACK_KEY_OLD")
#: The header that counts the destinations on the way to a call, and how many there may be.
DEPTH: Final = "Hearth-Callback-Depth"
MAX_DEPTH: Final = 8
#: Seconds for one attempt.
TIMEOUT_S: Final = 30
MAX_LENGTH: Final = 2048
#: Bytes of a result that is sent with the record; of a larger one, its address.
INSIDE_BYTES: Final = 64 * 1024
#: Eight attempts, from 2 seconds to an hour apart.
_RETRY: Final = RetryPolicy(attempts=8, backoff_s=2, factor=4, max_s=3600, on=FAILURES)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
#: Translates addresses of IPv4 (RFC 6052).
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def validate_destination(name: str, value: object) -> str:
    """Return a destination after checking it: a URL, or the app and the path of a route.

    Raises:
        InvalidDelivery: It is neither.
    """
    problem = InvalidDelivery(f"{name} must be an http or https URL, or APP/ROUTE, of at most {MAX_LENGTH} characters")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_LENGTH or not value.isascii() or not value.isprintable():
        raise problem
    if " " in value or '"' in value:
        raise problem
    if "://" not in value:
        app, slash, path = value.partition("/")
        if not app or not slash or not path or set("?#") & set(value):
            raise problem
        return value
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise problem from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid or parts.fragment:
        raise problem
    if parts.username is not None or parts.password is not None:
        raise InvalidDelivery(f"{name} must not contain a password: what is sent has a signature")
    return value


def is_url(destination: str) -> bool:
    """Return whether a destination is a URL, not a route."""
    return "://" in destination


def is_allowed(address: Address, allowed: Networks) -> bool:
    """Return whether a record may be sent to an address: a public one, or one of the allowed networks."""
    if any(address.version == network.version and address in network for network in allowed):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, allowed)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


def callback_of(message: Call, record: Call, result: CallResult | None, now: dt.datetime, base: str) -> Call | None:
    """Return the call that sends the record of a call that has ended; ``None`` if it has no destination.

    Args:
        message: The call as it was accepted.
        record: Its final record.
        result: Its result, if that is kept.
        now: The time.
        base: Begins the address of a result that is too large.
    """
    destination = message.on_success if record.status == SUCCESS else message.on_failure
    depth = _depth(message) + 1
    if not destination or depth > MAX_DEPTH:
        return None
    return Call(
        id=callback_id(message.id),
        app_name=message.app_name,
        app_id=message.app_id,
        path=f"{CALLBACK}:{message.path}",
        status=QUEUED,
        type=ASYNC,
        image=message.image,  # queues look for it at the beginning of a message
        format=CALLBACK,
        method="POST",
        url=destination,
        payload=msgspec.json.encode({"call": _record(record), "result": _result(record, result, base)}),
        headers={DEPTH: [str(depth)]},
        timeout=TIMEOUT_S,
        created_at=now,
        retry=_RETRY,
        attempt=1,
    )


def callback_again(dead: Call, app_id: str, call_id: str, now: dt.datetime) -> Call:
    """Return a call that sends the record of a call once more, without the record, which is its payload.

    Args:
        dead: The call that has not reached the destination.
        app_id: Of its app.
        call_id: Of the new call.
        now: The time.
    """
    return Call(
        id=call_id,
        app_name=dead.app_name,
        app_id=app_id,
        path=dead.path,
        status=QUEUED,
        type=ASYNC,
        image=dead.image,
        format=CALLBACK,
        method=dead.method,
        url=dead.url,
        headers={DEPTH: dead.headers[DEPTH]},
        timeout=TIMEOUT_S,
        created_at=now,
        retry=_RETRY,
        attempt=1,
        origin=f"redrive {dead.id}",
    )


def callback_id(call_id: str) -> str:
    """Return the id of the call that sends the record of another one."""
    return f"{call_id}-{CALLBACK}"


def _depth(message: Call) -> int:
    text = ",".join(message.headers.get(DEPTH, ["0"]))
    return int(text) if text.isdecimal() and len(text) < 3 else MAX_DEPTH


def _record(call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": call.id,
        "status": call.status,
        "app_name": call.app_name,
        "path": call.path,
        "created_at": format_time(call.created_at),
        "started_at": format_time(call.started_at),
        "completed_at": format_time(call.completed_at),
    }
    optional = {"error": call.error, "response_status": call.response_status, "attempt": call.attempt}
    return fields | {name: value for name, value in optional.items() if value}


def _result(call: Call, result: CallResult | None, base: str) -> dict[str, Any] | None:
    if result is None:
        return None
    fields: dict[str, Any] = {"status": result.status, "headers": result.headers}
    if result.error:
        return {**fields, "error": result.error}
    if len(result.body) > INSIDE_BYTES:
        where = f"{base}/v1/apps/{quote(call.app_name, safe='')}/calls/{call.id}/result"
        return {**fields, "bytes": len(result.body), "location": where}
    try:
        return {**fields, "body": result.body.decode()}
    except UnicodeDecodeError:
        return {**fields, "body_base64": base64.b64encode(result.body).decode()}
