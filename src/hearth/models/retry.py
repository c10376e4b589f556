"""Retries of async calls: when a failed call runs again, and its past attempts."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hearth.models.errors import InvalidDelivery

MAX_ATTEMPTS: Final = 20
MAX_BACKOFF_S: Final = 86_400
MAX_FACTOR: Final = 10
#: Characters of an error that the list of past attempts keeps.
MAX_ERROR: Final = 1000


class Failure(enum.StrEnum):
    """The ways in which an attempt fails."""

    ERROR = "error"  # there was no valid answer
    TIMEOUT = "timeout"
    STATUS_5XX = "status_5xx"  # the function answered so
    INTERRUPTED = "interrupted"  # its node died or was stopped; it may have run in part


FAILURES: Final = tuple(failure.value for failure in Failure)
FULL, NONE = "full", "none"
JITTERS: Final = (FULL, NONE)
_USUAL: Final = (Failure.ERROR.value, Failure.TIMEOUT.value, Failure.STATUS_5XX.value)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The rule for further attempts of a call.

    Attributes:
        attempts: How often the call is run at most.
        backoff_s: Seconds until the second attempt.
        factor: Multiplies the seconds for each further attempt.
        max_s: The most seconds between two attempts.
        jitter: ``full`` waits any time up to these seconds, ``none`` exactly as long.
        on: The failures after which the call runs again.
    """

    attempts: int = 1
    backoff_s: float = 1
    factor: float = 2
    max_s: float = 300
    jitter: str = FULL
    on: tuple[str, ...] = _USUAL


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A past attempt of a call. Times are texts, as in the record."""

    attempt: int
    node: str = ""
    started_at: str = ""
    completed_at: str = ""
    status: str = ""
    error: str = ""


def validate_retry(given: object) -> RetryPolicy:
    """Return a policy after checking it.

    Raises:
        InvalidDelivery: It is no object, or a value is out of range.
    """
    if not isinstance(given, dict):
        raise InvalidDelivery("retry must be an object, or null for none")
    fields: Mapping[str, Any] = {str(name).lower(): value for name, value in given.items() if value is not None}
    for name in fields:
        if name not in RetryPolicy.__struct_fields__:
            raise InvalidDelivery(f"retry: {name!r} is not one of {', '.join(RetryPolicy.__struct_fields__)}")
    attempts = fields.get("attempts", 1)
    if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
        raise InvalidDelivery(f"retry: attempts must be an integer from 1 to {MAX_ATTEMPTS}")
    for name, least, most in (("backoff_s", 0, MAX_BACKOFF_S), ("factor", 1, MAX_FACTOR), ("max_s", 0, MAX_BACKOFF_S)):
        value = fields.get(name, least)
        if type(value) not in (int, float) or not least <= value <= most:
            raise InvalidDelivery(f"retry: {name} must be a number from {least} to {most}")
    if fields.get("jitter", FULL) not in JITTERS:
        raise InvalidDelivery(f"retry: jitter must be one of {', '.join(JITTERS)}")
    on = fields.get("on", list(_USUAL))
    if not isinstance(on, list) or not on or not all(failure in FAILURES for failure in on):
        raise InvalidDelivery(f"retry: on must be a list with at least one of {', '.join(FAILURES)}")
    return RetryPolicy(**{**fields, "on": tuple(dict.fromkeys(on))})
