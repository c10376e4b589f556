"""The time at which an async call may start: as its request and the rules of its function say."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import Final

from hearth.models.call import Call
from hearth.models.delivery import MAX_DELAY_S, Delivery
from hearth.models.errors import InvalidDelay
from hearth.models.times import parse_time

_DELAY: Final = "Fn-Delay"
_NOT_BEFORE: Final = "Fn-Not-Before"
_SECOND: Final = dt.timedelta(seconds=1)


def deliver(record: Call, rules: Delivery, fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Set how a new call is delivered.

    Args:
        record: The call.
        rules: The rules of its function.
        fields: The header fields that its route adds to each answer.

    Raises:
        InvalidDelay: Its request names no time at which it may start.
    """
    delay_call(record, rules)
    record.result_ttl = rules.result_ttl_s or 0
    record.retry, record.dead_letters = rules.retry, rules.dead_letters
    record.max_queued, record.max_concurrent = rules.max_queued or 0, rules.max_concurrent_async or 0
    record.on_success, record.on_failure = rules.on_success or "", rules.on_failure or ""
    record.attempt = 0 if rules.retry is None else 1
    record.result_headers = tuple((name.decode(), value.decode()) for name, value in fields)


def delay_call(record: Call, rules: Delivery) -> None:
    """Set when a new call may start, and until when it must.

    Raises:
        InvalidDelay: Its request names no such time.
    """
    headers = record.headers
    if _DELAY in headers:
        record.delay = _seconds(", ".join(headers[_DELAY]))
    elif _NOT_BEFORE in headers:
        record.delay = _seconds_until(", ".join(headers[_NOT_BEFORE]), record.created_at)
    if rules.expires_s is not None:
        record.expires_at = record.created_at + rules.expires_s * _SECOND


def _seconds(text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_DELAY_S:
        raise InvalidDelay(_DELAY, f"a number of seconds from 0 to {MAX_DELAY_S}")
    return math.ceil(seconds)


def _seconds_until(text: str, now: dt.datetime) -> int:
    problem = InvalidDelay(_NOT_BEFORE, f"an RFC 3339 time, at most {MAX_DELAY_S} seconds from now")
    try:
        seconds = (parse_time(text) - now) / _SECOND if text else math.inf
    except ValueError:
        raise problem from None
    if seconds > MAX_DELAY_S:
        raise problem
    return max(0, math.ceil(seconds))
