"""The result of an async call: what a sync caller would have been answered. Pure functions."""

from __future__ import annotations

import datetime as dt

from hearth.contracts.base import Head
from hearth.models.call import Call
from hearth.models.call_result import CallResult, ResultLimits
from hearth.models.errors import ApiError, ResultTooLarge, ServerBusy, is_shortage

#: The error that callers see in place of errors that are not meant for them.
_INTERNAL = ApiError()


def answer_result(record: Call, head: Head | None, body: bytes, limits: ResultLimits, waited_s: float) -> CallResult:
    """Return the result of a call that was answered.

    Args:
        record: Its record, with the time of its end.
        head: Status and headers; ``None`` if the format has none.
        body: The body, or so much of it that it exceeds the limit.
        limits: What is kept of results.
        waited_s: Seconds that the call waited.
    """
    if len(body) > limits.max_bytes:
        return error_result(record, ResultTooLarge(limits.max_bytes), limits, waited_s)
    return CallResult(
        status=200 if head is None else head.status,
        headers=() if head is None else tuple(head.headers),
        body=body,
        of_route=record.result_headers,
        waited_s=waited_s,
        expires_at=_expiry(record, limits),
    )


def error_result(record: Call, error: Exception, limits: ResultLimits, waited_s: float = -1.0) -> CallResult:
    """Return the result of a call that failed: its error, as far as callers may see it."""
    if not isinstance(error, ApiError):
        error = ServerBusy() if is_shortage(error) else _INTERNAL
    return CallResult(
        status=error.code,
        headers=tuple(error.headers.items()),
        of_route=record.result_headers,
        waited_s=waited_s,
        error=error.message,
        expires_at=_expiry(record, limits),
    )


def _expiry(record: Call, limits: ResultLimits) -> dt.datetime:
    return record.completed_at + dt.timedelta(seconds=record.result_ttl or limits.ttl_s)
