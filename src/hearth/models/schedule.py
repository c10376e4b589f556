"""Schedules of an app: functions that Hearth calls at certain times."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hearth.models.call import HeaderMap
from hearth.models.errors import InvalidSchedule
from hearth.models.route import clean_path
from hearth.models.times import ZERO
from hearth.models.timing import Timing, validate_timing

MAX_NAME: Final = 128
MAX_PAYLOAD_BYTES: Final = 65_536
MAX_HEADERS: Final = 50
MAX_HEADER_BYTES: Final = 8_192
#: Firing times that an answer shows.
SHOWN: Final = 5

#: Tells a function which schedule called it, and for which time.
NAME_HEADER: Final = "Fn-Schedule"
TIME_HEADER: Final = "Fn-Schedule-Time"
#: Begins the origin of a call that a schedule has made.
ORIGIN: Final = "schedule"

SKIP, ONCE, ALL, ALLOW = "skip", "once", "all", "allow"
#: What happens to firing times at which no node was there.
IF_MISSED: Final = (SKIP, ONCE, ALL)
#: What happens at a firing time if the last call has not ended.
OVERLAPS: Final = (ALLOW, SKIP)

#: The fields of a schedule that are texts, besides its name and its function, and all that can be set.
SETTABLE_TEXTS: Final = (*Timing.__struct_fields__, "payload", "if_missed", "overlap")
SETTABLE: Final = (*SETTABLE_TEXTS, "headers", "enabled")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as its users write it.

    Attributes:
        function: The path of a route, or the id of a fn.
        payload: The body of each call.
        headers: The headers of each call.
        enabled: It fires.
        if_missed: One of :data:`IF_MISSED`.
        overlap: One of :data:`OVERLAPS`.
    """

    function: str
    timing: Timing = Timing()
    payload: str = ""
    headers: HeaderMap = {}
    enabled: bool = True
    if_missed: str = ONCE
    overlap: str = ALLOW

    @property
    def is_of_route(self) -> bool:
        """Return whether it calls a route. Ids of fns have no slash."""
        return self.function.startswith("/")


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A stored schedule.

    Attributes:
        app_id: The identity of the app; empty if the app has none.
        id: The identity of the schedule: one that is deleted and created again has another one.
        anchor: Where intervals begin to count: when the timing was set.
        next_at: The next firing time; all before it are dealt with. ``ZERO``: there is none.
        seen_at: The clock of the node that computed ``next_at``.
        last_due: The newest firing time that was dealt with; ``ZERO``: there was none.
        last_call: The id of the newest call.
    """

    app_name: str
    app_id: str
    name: str
    id: str
    definition: Definition
    anchor: dt.datetime
    next_at: dt.datetime = ZERO
    seen_at: dt.datetime = ZERO
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO
    last_due: dt.datetime = ZERO
    last_call: str = ""

    def coming(self, now: dt.datetime, most: int = SHOWN) -> list[dt.datetime]:
        """Return the next firing times; none if it is disabled."""
        if self.next_at == ZERO:
            return []
        return [self.next_at, *self.definition.timing.coming(self.next_at, self.anchor, most - 1)]


class FiringState(enum.StrEnum):
    """The life of one firing: claimed, then one of the others."""

    CLAIMED = "claimed"  # a node makes the call
    ACCEPTED = "accepted"  # the call is in the queue
    SKIPPED = "skipped"  # the last call had not ended
    FAILED = "failed"  # there can be no such call


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One firing time of a schedule that was dealt with.

    Attributes:
        call_id: The id of its call, which never changes: a call that is enqueued again runs once.
        claimed_at: When a node last claimed it.
        error: Why it failed.
    """

    schedule_id: str
    due: dt.datetime
    app_name: str
    call_id: str
    state: FiringState
    claimed_at: dt.datetime
    error: str = ""


def schedule_of(
    definition: Definition,
    app_name: str,
    app_id: str,
    name: str,
    stored: Schedule | None,
    new_id: str,
    now: dt.datetime,
) -> Schedule:
    """Return a new schedule, or a stored one with a new definition.

    The next firing time stays if neither the timing nor whether it is enabled changes. Otherwise it is the next one
    from now on: what fell into the time before is not missed.
    """
    known = stored.definition if stored is not None else None
    same_timing = known is not None and known.timing == definition.timing
    if stored is not None and same_timing:
        anchor = stored.anchor
    else:
        anchor = now
    next_at = ZERO
    if stored is not None and known is not None and same_timing and known.enabled == definition.enabled:
        next_at = stored.next_at
    elif definition.enabled:
        next_at = definition.timing.after(now, anchor) or ZERO
    return Schedule(
        app_name=app_name,
        app_id=app_id,
        name=name,
        id=new_id if stored is None else stored.id,
        definition=definition,
        anchor=anchor,
        next_at=next_at,
        seen_at=now,
        created_at=now if stored is None else stored.created_at,
        updated_at=now,
        last_due=ZERO if stored is None else stored.last_due,
        last_call="" if stored is None else stored.last_call,
    )


def validate_schedule_name(name: str) -> None:
    """Check the name of a schedule.

    Raises:
        InvalidSchedule: It has other characters than names have, or too many.
    """
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise InvalidSchedule(
            f"name: it must have 1 to {MAX_NAME} letters, digits, dots, underscores and dashes, and begin with one of "
            "the first two"
        )


def definition_of(given: Mapping[str, Any], now: dt.datetime) -> Definition:
    """Return a definition from its fields, as clients and files write them.

    Args:
        given: The fields by name. Unknown ones are ignored.
        now: The present time.

    Raises:
        InvalidSchedule: Names the field and says what is wrong.
    """
    route, fn_id = text_of(given, "route"), text_of(given, "fn_id")
    if bool(route) == bool(fn_id):
        raise InvalidSchedule("exactly one of route and fn_id is needed")
    if "/" in fn_id or "\0" in fn_id + route:
        raise InvalidSchedule(f"{'fn_id' if fn_id else 'route'}: there is no such function")
    if type(enabled := given.get("enabled", True)) is not bool:
        raise InvalidSchedule("enabled: it must be true or false")
    timing = Timing(**{name: text_of(given, name) for name in Timing.__struct_fields__})
    payload = text_of(given, "payload")
    if len(payload.encode()) > MAX_PAYLOAD_BYTES:
        raise InvalidSchedule(f"payload: it must have at most {MAX_PAYLOAD_BYTES} bytes")
    return Definition(
        function=fn_id or clean_path(route),
        timing=validate_timing(timing, now),
        payload=payload,
        headers=_headers_of(given.get("headers", {})),
        enabled=enabled,
        if_missed=_choice(given, "if_missed", IF_MISSED, ONCE),
        overlap=_choice(given, "overlap", OVERLAPS, ALLOW),
    )


def text_of(given: Mapping[str, Any], name: str) -> str:
    """Return a field that is a text; empty if it is missing.

    Raises:
        InvalidSchedule: It is no text, or no valid Unicode.
    """
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InvalidSchedule(f"{name}: it must be a string")
    if _SURROGATE.search(value):
        raise InvalidSchedule(f"{name}: it must be valid Unicode")
    return value


def _choice(given: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    value = text_of(given, name) or default
    if value not in choices:
        raise InvalidSchedule(f"{name}: it must be one of {', '.join(choices)}")
    return value


def _headers_of(given: object) -> HeaderMap:
    """Return headers; a single value may stand for a list of one."""
    problem = InvalidSchedule("headers: they must be an object of strings, or of lists of strings")
    if not isinstance(given, dict):
        raise problem
    found: HeaderMap = {}
    size = 0
    for name, values in given.items():
        listed = [values] if isinstance(values, str) else values
        if not isinstance(listed, list) or not all(isinstance(value, str) for value in listed):
            raise problem
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            raise InvalidSchedule(f"headers: {str(name)[:64]!r} is no name of a header")
        if name.lower() in (NAME_HEADER.lower(), TIME_HEADER.lower()):
            raise InvalidSchedule(f"headers: Hearth itself sets {name}")
        if any(_NO_VALUE.search(value) for value in listed):
            raise InvalidSchedule(f"headers: the value of {name} contains a control character")
        size += sum(len(name) + len(value.encode()) for value in listed)
        found[name] = list(listed)
    if sum(map(len, found.values())) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise InvalidSchedule(f"headers: they must be at most {MAX_HEADERS}, with {MAX_HEADER_BYTES} bytes together")
    return found
