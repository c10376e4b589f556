"""Records of calls as rows, and back. Samples are JSON text; what an older version left NULL reads as empty."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Container, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from hearth.models.call import STAT_NAMES, Call, Stat
from hearth.models.call_result import CallResult, HeaderFields
from hearth.models.dead_letter import DeadLetter
from hearth.models.ids import LENGTH, first_of, time_ms
from hearth.models.message import InvalidMessage, decode_call, encode_plain
from hearth.models.retry import Attempt
from hearth.models.times import EPOCH, format_time, parse_time
from hearth.sql.fields import MAX_AMOUNT, Fields, json, report
from hearth.sql.query import Row
from hearth.sql.time_index import APART_MS
from hearth.sql.upserts import CallRow, DeadLetterRow, LogRow, ResultRow, StrayRow

_MS: Final = dt.timedelta(milliseconds=1)
_APART: Final = APART_MS * _MS
#: Characters of a time as text up to its seconds.
_SECOND_LENGTH: Final = 19
_SAMPLES: Final = msgspec.json.Decoder()


class _Details(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields of a record that most calls do not have, as JSON."""

    result_digest: str = ""
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    trigger_id: str = ""
    origin: str = ""
    dead: bool = False
    on_failure: str = ""


class _ResultHead(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A result without its body, as JSON."""

    status: int
    headers: HeaderFields = ()
    of_route: HeaderFields = ()
    waited_s: float = -1.0
    error: str = ""


_DETAILS: Final = msgspec.json.Decoder(_Details)
#: The details of most calls with a policy of retries, each time that they are stored: it is their first attempt.
_FIRST_ATTEMPT: Final = json(_Details(attempt=1))
_HEAD: Final = msgspec.json.Decoder(_ResultHead)


class Parts(NamedTuple):
    """The rows of some calls."""

    calls: list[CallRow]
    strays: list[StrayRow]
    logs: list[LogRow]

    def without(self, call_ids: Container[str]) -> Parts:
        """Return the rows of all other calls."""
        return Parts(
            [row for row in self.calls if row.id not in call_ids],
            [row for row in self.strays if row.id not in call_ids],
            [row for row in self.logs if row.id not in call_ids],
        )


def from_calls(ended: Iterable[tuple[Call, bytes | None]]) -> Parts:
    """Return calls with their logs as rows.

    All are in one order: two transactions that hold rows of each other would wait for ever.
    """
    parts = Parts([], [], [])
    for call, log in sorted(ended, key=lambda one: one[0].id):
        created_at = format_time(call.created_at)
        row = CallRow(
            call.id,
            call.app_name,
            call.path,
            call.status,
            created_at,
            format_time(call.started_at),
            format_time(call.completed_at),
            json(call.stats) if call.stats else "",
            _storable(call.error) if call.error else "",
            call.app_id,
            str(call.response_status) if call.response_status else "",
            _details(call),
        )
        parts.calls.append(row)
        first, last = _surely_found(created_at[:_SECOND_LENGTH])
        if not (first <= call.id < last and len(call.id) == LENGTH) and _is_stray(call):
            parts.strays.append(StrayRow(call.id, call.app_name, created_at))
        if log:  # most logs are empty, and a row for each would be half of the work of storing calls
            parts.logs.append(LogRow(call.id, call.app_name, log))
    return parts


@functools.lru_cache(maxsize=16)
def _surely_found(second: str) -> tuple[str, str]:
    """Return the ids between which no call of a second is a stray one: their times are that second's.

    Calls of one second share that, and reading the time in an id takes a while.
    """
    begin_ms = (parse_time(f"{second}.000Z") - EPOCH) // _MS
    return first_of(begin_ms), first_of(begin_ms + APART_MS)


def _is_stray(call: Call) -> bool:
    """Return whether the id of a call tells another time than its creation."""
    made_ms = time_ms(call.id)
    return made_ms is None or not -_APART <= call.created_at - (EPOCH + made_ms * _MS) <= _APART


def _details(call: Call) -> str:
    if not (call.attempts or call.result_digest or call.trigger_id or call.origin or call.dead or call.on_failure):
        if not call.attempt:
            return ""
        if call.attempt == 1:
            return _FIRST_ATTEMPT
    return json(
        _Details(
            result_digest=call.result_digest,
            attempt=call.attempt,
            attempts=call.attempts,
            trigger_id=call.trigger_id,
            origin=call.origin,
            dead=call.dead,
            on_failure=call.on_failure,
        )
    )


def attempt_of(row: Row) -> int:
    """Return the number of the attempt that a row is about; 0 if its call has no policy of retries."""
    fields = Fields(row)
    if fields.text("details") == _FIRST_ATTEMPT:
        return 1
    details = fields.object("details", _DETAILS)
    return 0 if details is None else details.attempt


def from_results(ended: Iterable[Call]) -> list[ResultRow]:
    """Return the results of calls as rows, in one order."""
    return [_result_row(call, call.result) for call in sorted(ended, key=lambda one: one.id) if call.result is not None]


def _result_row(call: Call, result: CallResult) -> ResultRow:
    return ResultRow(call.id, call.app_name, format_time(result.expires_at), *from_result(result))


def from_result(result: CallResult) -> tuple[str, bytes]:
    """Return the head of a result as a text, and its body."""
    head = _ResultHead(
        status=result.status,
        headers=result.headers,
        of_route=result.of_route,
        waited_s=result.waited_s,
        error=_storable(result.error),
    )
    return json(head), result.body


def from_dead_letters(ended: Iterable[Call]) -> list[DeadLetterRow]:
    """Return the dead letters among calls that have ended as rows, in one order."""
    return [_dead_letter_row(call) for call in sorted(ended, key=lambda one: one.id) if call.dead]


def _dead_letter_row(call: Call) -> DeadLetterRow:
    head = msgspec.structs.replace(call, payload=b"", config={}, error=_storable(call.error), stats=[])
    died_at = format_time(call.completed_at)
    return DeadLetterRow(
        call.id, call.app_name, call.path, died_at, "", _storable(encode_plain(head).decode()), call.payload
    )


def to_dead_letter(row: Row) -> DeadLetter | None:
    """Return a row as a dead letter; ``None`` if it cannot be read."""
    fields = Fields(row)
    try:
        call = decode_call(fields.text("head").encode())
    except InvalidMessage as exc:
        report(f"dead letter {fields.text('id')}", [str(exc)])
        return None
    return DeadLetter(call, int(row["size"]), fields.text("redriven_as"))


def to_result(row: Row) -> CallResult | None:
    """Return a row as a result; ``None`` if it cannot be read. Its columns are ``id expires_at head body``."""
    fields = Fields(row)
    head, expires_at = fields.object("head", _HEAD), fields.time("expires_at")
    if fields.unreadable or head is None:
        report(f"result {fields.text('id')}", fields.unreadable)
        return None
    return CallResult(
        status=head.status,
        headers=head.headers,
        body=bytes(row["body"]),
        of_route=head.of_route,
        waited_s=head.waited_s,
        error=head.error,
        expires_at=expires_at,
    )


def to_call(row: Row) -> Call:
    """Return a row as a call's record. Columns that cannot be read are empty."""
    fields = Fields(row)
    call = Call(
        id=fields.text("id"),
        app_name=fields.text("app_name"),
        path=fields.text("path"),
        status=fields.text("status"),
        created_at=fields.time("created_at"),
        started_at=fields.time("started_at"),
        completed_at=fields.time("completed_at"),
        stats=_stats(fields.text("stats")),
        error=fields.text("error"),
        app_id=fields.text("app_id"),
        response_status=fields.number("response_status", 0),
    )
    if (details := fields.object("details", _DETAILS)) is not None:
        call.result_digest = details.result_digest
        call.attempt, call.attempts = details.attempt, details.attempts
        call.trigger_id, call.origin, call.dead = details.trigger_id, details.origin, details.dead
        call.on_failure = details.on_failure
    if fields.unreadable:
        report(f"call {call.id}", fields.unreadable)
    return call


def _stats(text: str) -> list[Stat]:
    """Return the samples of a record. What is none is left out: no call, and no list, fails because of it."""
    if not text:
        return []
    try:
        samples = _SAMPLES.decode(text)
    except ValueError:
        return []
    found = [_sample(sample) for sample in samples] if isinstance(samples, list) else []
    return [sample for sample in found if sample is not None]


def _sample(sample: Any) -> Stat | None:
    if not isinstance(sample, dict) or not isinstance(sample.get("timestamp"), str):
        return None
    try:
        timestamp = parse_time(sample["timestamp"])
    except ValueError:
        return None
    metrics = sample.get("metrics")
    given = metrics if isinstance(metrics, dict) else {}
    return Stat(timestamp, {name: int(given[name]) for name in STAT_NAMES if _is_amount(given.get(name))})


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_AMOUNT


def _storable(text: str) -> str:
    """Return a text that every database takes: a function's error may hold what PostgreSQL's texts cannot."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
