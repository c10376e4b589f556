"""The time at which an async call may start: as its request and the rules of its function say."""

from __future__ import annotations

import datetime as dt
import math
from typing import Final

from hearth.models.call import Call
from hearth.models.delivery import MAX_DELAY_S, Delivery
from hearth.models.errors import InvalidDelay
from hearth.models.times import parse_time

_DELAY: Final = "Fn-Delay"
_NOT_BEFORE: Final = "Fn-Not-Before"
_SECOND: Final = dt.timedelta(seconds=1)


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
