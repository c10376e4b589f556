"""Records of calls and their logs in SQL."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa

from hearth.models import ids
from hearth.models.call import CANCELLED, FINAL, QUEUED, RUNNING, Call
from hearth.models.call_result import CallResult
from hearth.models.dead_letter import DeadLetter, DeadLetterCount
from hearth.models.errors import (
    CallEnded,
    CallLogNotFound,
    CallNotFound,
    DatastoreCannotSwap,
    DatastoreCannotUpdateCall,
    DatastoreEmptyCallID,
)
from hearth.models.function import ASYNC
from hearth.models.log_reader import PIECE_BYTES, LogReader, in_pieces
from hearth.models.times import EPOCH, format_time
from hearth.sql.coalesce import MOST, Coalescer, padded
from hearth.sql.database import Database, Done, Put, Read, Steps, Write
from hearth.sql.old_logs import OldLogs, first_id
from hearth.sql.query import ALL, Query, Row, number, param
from hearth.sql.schema.tables import NO_SUCCESS, calls, logs, results, stray_calls
from hearth.sql.upserts import ADD, ADD_DEAD_LETTERS, STORE, STORE_RESULTS, CallRow
from hearth.stores.records import dead_letters
from hearth.stores.records.base import CallFilter, DeadLetterFilter, RecordStore, Removed
from hearth.stores.records.lists import belongs_to_app, listing, merged, strays
from hearth.stores.records.rows import attempt_of, from_calls, from_dead_letters, from_results, to_call, to_result
from hearth.telemetry.node import Telemetry
from hearth.telemetry.tracing import Step, during

_NOT_ENDED: Final = frozenset({QUEUED, RUNNING})

_HAS_ENDED: Final = calls.c.status.not_in(sorted(_NOT_ENDED))
_OF_ANOTHER_APP: Final = sa.select(calls.c.id).where(calls.c.id == logs.c.id, sa.not_(belongs_to_app())).exists()
_LOG: Final = Query(
    sa.select(sa.func.substr(logs.c.log, number("start"), number("count")).label("piece")).where(
        logs.c.id == param("id"), logs.c.app_name == param("app"), sa.not_(_OF_ANOTHER_APP)
    )
)
_ENDED: Final = Query(
    sa.select(calls.c.id).where(
        calls.c.id == param("id"), calls.c.app_name == param("app"), _HAS_ENDED, belongs_to_app()
    )
)
_ONE: Final = Query(
    sa.select(calls).where(calls.c.id == param("id"), calls.c.app_name == param("app")).with_for_update()
)


def _count_queued(*filters: sa.ColumnElement[bool]) -> Query:
    queued = sa.select(calls.c.id).where(
        calls.c.app_name == param("app"), calls.c.status == QUEUED, NO_SUCCESS, *filters
    )
    return Query(sa.select(sa.func.count().label("count")).select_from(queued.limit(number("most")).subquery()))


_QUEUED: Final = _count_queued()
_QUEUED_OF_ONE: Final = _count_queued(calls.c.path == param("path"))
_SIZES: Final = (
    sa.select(
        calls.c.id,
        sum(
            [
                sa.func.coalesce(sa.func.length(column), sa.literal_column("0"))
                for column in (results.c.head, results.c.body)
            ],
            sa.func.coalesce(sa.func.length(logs.c.log), sa.literal_column("0")),
        ).label("size"),
    )
    .outerjoin(logs, logs.c.id == calls.c.id)
    .outerjoin(results, results.c.id == calls.c.id)
    .where(calls.c.app_name == param("app"), calls.c.id < param("cursor"))
    .order_by(calls.c.id.desc())
    .limit(number("most"))
    .with_hint(calls, "FORCE INDEX (calls_by_app)", "mysql")
    .subquery()
)
_SIZE: Final = Query(
    sa.select(
        sa.func.count().label("count"), sa.func.min(_SIZES.c.id).label("last"), sa.func.sum(_SIZES.c.size).label("size")
    )
)
_IS_STRAY: Final = sa.select(stray_calls.c.id).where(stray_calls.c.id == calls.c.id).exists()
_IS_OLD: Final = (calls.c.id < param("below"), _HAS_ENDED, sa.not_(_IS_STRAY))
_OLD: Final = Query(sa.select(calls.c.id).where(*_IS_OLD).order_by(calls.c.id).limit(number("most")))
_OLD_COUNT: Final = Query(sa.select(sa.func.count().label("count")).select_from(calls).where(*_IS_OLD))
_OLD_STRAYS: Final = Query(
    sa.select(stray_calls.c.id)
    .join(calls, calls.c.id == stray_calls.c.id)
    .where(stray_calls.c.created_at < param("before"), _HAS_ENDED)
    .order_by(stray_calls.c.id)
    .limit(number("most"))
)
_NTH: Final = Query(
    sa.select(calls.c.id)
    .where(calls.c.id < param("cursor"))
    .order_by(calls.c.id.desc())
    .limit(1)
    .offset(number("skip"))
)
_REMOVE: Final = [
    Query(sa.delete(table).where(table.c.id == param("id"))) for table in (results, logs, stray_calls, calls)
]
_RESULT: Final = Query(sa.select(results).where(results.c.id == param("id"), results.c.app_name == param("app")))
_EXPIRED: Final = Query(
    sa.select(results.c.id)
    .where(results.c.expires_at < param("now"))
    .order_by(results.c.expires_at, results.c.id)
    .limit(number("most"))
)
_REMOVE_RESULT: Final = Query(sa.delete(results).where(results.c.id == param("id")))
#: Ids that one look at the index passes.
STEP: Final = 10_000
#: Calls whose results and logs one query measures.
SIZES_AT_ONCE: Final = 1_000
#: Sorts behind every id.
_BEHIND: Final = "~"
_MS: Final = dt.timedelta(milliseconds=1)


#: Calls with their logs.
Ended = Sequence[tuple[Call, bytes | None]]


class _Stored(NamedTuple):
    """The progress of a stored call."""

    status: str
    completed_at: str
    attempt: int = 0


#: Tells whether a call that is stored gives way to the one given, whose attempt is the second argument.
_GivesWay = Callable[[_Stored, int], bool]


def _has_not_ended(stored: _Stored, attempt: int) -> bool:
    return stored.status in _NOT_ENDED and stored.attempt <= attempt


def _has_not_started(stored: _Stored, attempt: int) -> bool:
    if stored.status == RUNNING:
        return stored.attempt < attempt
    return stored.status == QUEUED and stored.attempt <= attempt


def _is_of_earlier_attempt(stored: _Stored, attempt: int) -> bool:
    return stored.status in _NOT_ENDED and stored.attempt < attempt


class SqlRecords(RecordStore):
    """Records in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._storing = telemetry.tracing.steps(Step("ds_insert_call"))
        self._storing_logs = telemetry.tracing.steps(Step("ds_insert_call"), Step("ds_insert_log"))
        # not present: what is submitted ends in another context than it begins
        self._submitting = telemetry.tracing.steps(Step("ds_insert_call", is_present=False))
        self._submitting_logs = telemetry.tracing.steps(
            Step("ds_insert_call", is_present=False), Step("ds_insert_log", is_present=False)
        )
        self._database = database
        self._old_logs = OldLogs(database)
        self._found: Coalescer[tuple[str, str], Call | None] = Coalescer(self._load)

    async def finish(self) -> None:
        """Wait for what was asked for."""
        await self._found.close()

    # -- writes ---------------------------------------------------------------------------------------------------

    async def put_calls(self, ended: Ended) -> list[bool]:
        """Store sync calls in one write; async calls by compare and swap."""
        has_logs = any(log is not None for _, log in ended)
        with during(self._storing_logs if has_logs else self._storing):
            if ASYNC in [call.type for call, _ in ended]:
                return await self._swap_and_put(ended)
            await self._database.write(STORE, *from_calls(ended))
        return [True] * len(ended)

    def submit(self, ended: Ended, done: Done) -> bool:
        """Hand sync calls over to the database."""
        if ASYNC in [call.type for call, _ in ended]:
            return False
        rows = from_calls({one[0].id: one for one in ended}.values())
        span = self._submitting_logs if rows.logs else self._submitting
        started = span.begin()

        def written(error: Exception | None) -> None:
            span.end(started, error)
            done(error)

        self._database.submit(STORE, rows, written)
        return True

    async def _swap_and_put(self, ended: Ended) -> list[bool]:
        swapped = [one for one in ended if one[0].type == ASYNC]
        others = [one for one in ended if one[0].type != ASYNC]

        def steps() -> Steps[dict[str, _Stored]]:
            kept = yield from _swap(swapped, _has_not_ended)
            if kept_results := from_results([call for call, _ in swapped if call.id not in kept]):
                yield Put(STORE_RESULTS, (kept_results,))
            if dead := from_dead_letters([call for call, _ in swapped if call.id not in kept]):
                yield Put(ADD_DEAD_LETTERS, (dead,))
            if others:
                yield Put(STORE, from_calls(others))
            return kept

        kept = await self._database.transaction(steps)
        # one that is stored as given may have been stored by an earlier try whose answer was lost
        lost = {call.id for call, _ in swapped if call.id in kept and not _is_same_end(kept[call.id], call)}
        # ... and more of its log may have come since
        if again := [one for one in swapped if one[0].id in kept and one[0].id not in lost]:
            rows = from_calls(again)
            await self._database.write(STORE, [], rows.strays, rows.logs)
        return [call.id not in lost for call, _ in ended]

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet."""
        rows = from_calls([(call, None) for call in accepted])
        with self._span("ds_insert_call"):
            await self._database.write(ADD, rows.calls, rows.strays)

    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Store the calls that have not been started before."""
        given = [(call, None) for call in starting]
        with self._span("ds_update_call"):
            kept = await self._database.transaction(lambda: _swap(given, _has_not_started))
        return [kept[call.id].status if call.id in kept else "" for call in starting]

    async def retry_calls(self, again: Ended) -> None:
        """Store the calls that have not come further, with the logs of their last attempts."""
        with self._span("ds_update_call"):
            await self._database.transaction(lambda: _swap(again, _is_of_earlier_attempt))

    async def cancel_call(self, app_name: str, call_id: str, end: Callable[[Call], Call]) -> Call:
        """Compare and swap."""

        def steps() -> Steps[Call]:
            found = yield Read(_ONE, {"id": call_id, "app": app_name})
            if not found:
                raise CallNotFound
            call = to_call(found[0])
            if call.status in FINAL:
                raise CallEnded(call.status)
            ended = end(call)
            yield Put(STORE, from_calls([(ended, None)]))
            if kept_results := from_results([ended]):
                yield Put(STORE_RESULTS, (kept_results,))
            return ended

        with self._span("ds_update_call"):
            return await self._database.transaction(steps)

    async def cancelled(self, call_ids: Sequence[str]) -> set[str]:
        """Read the status of some calls at a time."""
        found: set[str] = set()
        with self._span("ds_get_calls"):
            for start in range(0, len(call_ids), MOST):
                wanted = padded(call_ids[start : start + MOST])
                rows = await self._database.query(_cancelled_query(len(wanted)), **_numbered(wanted))
                found.update(row["id"] for row in rows)
        return found

    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap."""
        if (before.id, before.app_name) != (after.id, after.app_name):
            raise DatastoreCannotSwap("assertion error: 'from' and 'to' calls refer to different app/ID")

        def steps() -> Steps[None]:
            found = yield Read(_ONE, {"id": before.id, "app": before.app_name})
            if not found:
                raise CallNotFound
            if _compared(to_call(found[0])) != _compared(before):
                raise DatastoreCannotUpdateCall
            yield Put(STORE, from_calls([(after, None)]))

        with self._span("ds_update_call"):
            await self._database.transaction(steps)

    # -- reads ----------------------------------------------------------------------------------------------------

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """Read a call, together with others: many clients wait for the end of their calls at the same time."""
        if not call_id:
            raise DatastoreEmptyCallID
        with self._span("ds_get_call"):
            if (call := await self._found.run((call_id, app_name))) is None:
                raise CallNotFound
            return call

    async def _load(self, keys: list[tuple[str, str]]) -> Sequence[Call | None]:
        wanted = padded([call_id for call_id, _ in keys])
        stored = await self._database.query(_calls_query(len(wanted)), **_numbered(wanted))
        found = {(row["id"], row["app_name"]): to_call(row) for row in stored}
        return [found.get(key) for key in keys]

    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Read calls, newest first."""
        with self._span("ds_get_calls"):
            found = await self._ask(listing(which))
            if which.from_time is not None or which.to_time is not None:
                found = merged(found, await self._ask(strays(which)), which.per_page)
        return [to_call(row) for row in found]

    async def count_queued(self, app_name: str, most: int, path: str = "") -> int:
        """Count entries of the index by status; of one function, their rows are read."""
        with self._span("ds_get_calls"):
            if path:
                [found] = await self._database.query(_QUEUED_OF_ONE, app=app_name, most=most, path=path)
            else:
                [found] = await self._database.query(_QUEUED, app=app_name, most=most)
        return int(found["count"])

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Add up sizes from the newest call in steps, so that other reads have their turn."""
        size, cursor = 0, _BEHIND
        while size < most:
            with self._span("ds_get_calls"):
                [found] = await self._database.query(_SIZE, app=app_name, cursor=cursor, most=SIZES_AT_ONCE)
            size += int(found["size"] or 0)
            if found["count"] < SIZES_AT_ONCE:
                break
            cursor = found["last"]
        with self._span("ds_get_dead_letters"):
            return size + await dead_letters.bytes_of_dead_letters(self._database, app_name, most - size, SIZES_AT_ONCE)

    async def _ask(self, read: Read) -> list[Row]:
        return await self._database.query(read.query, **read.params)

    async def get_result(self, app_name: str, call_id: str) -> CallResult | None:
        """Read a result with its body."""
        with self._span("ds_get_result"):
            found = await self._database.query(_RESULT, id=call_id, app=app_name)
        return to_result(found[0]) if found else None

    async def get_log(self, app_name: str, call_id: str) -> LogReader:
        """Open a call's log; that of a call which has ended and has none is empty."""
        with self._span("ds_get_log"):
            piece = await self._piece(app_name, call_id, 0)
            if piece is None:
                if not await self._database.query(_ENDED, id=call_id, app=app_name):
                    raise CallLogNotFound
                piece = await self._piece(app_name, call_id, 0)  # it may have ended between the two
        return in_pieces(piece, functools.partial(self._piece, app_name, call_id))

    async def _piece(self, app_name: str, call_id: str, start: int) -> bytes | None:
        found = await self._database.query(_LOG, id=call_id, app=app_name, start=start + 1, count=PIECE_BYTES)
        return (found[0]["piece"] or b"") if found else None  # SQLite cuts NULL out of an empty value

    # -- dead letters ---------------------------------------------------------------------------------------------

    async def get_dead_letters(self, which: DeadLetterFilter) -> list[DeadLetter]:
        """Read dead letters, newest call first."""
        with self._span("ds_get_dead_letters"):
            return await dead_letters.list_dead_letters(self._database, which)

    async def get_dead_letter(self, app_name: str, call_id: str) -> tuple[DeadLetter, bytes]:
        """Read a dead letter and its payload."""
        with self._span("ds_get_dead_letters"):
            return await dead_letters.get_dead_letter(self._database, app_name, call_id)

    async def claim_dead_letter(self, app_name: str, call_id: str, redriven_as: str) -> str:
        """Compare and swap."""
        with self._span("ds_update_dead_letter"):
            return await dead_letters.claim_dead_letter(self._database, app_name, call_id, redriven_as)

    async def remove_dead_letter(self, app_name: str, call_id: str) -> bool:
        """Remove a dead letter."""
        with self._span("ds_remove_dead_letters"):
            return await dead_letters.remove_dead_letter(self._database, app_name, call_id)

    async def remove_dead_letters(self, before: dt.datetime, most: int) -> int:
        """Remove some old dead letters in one transaction."""
        with self._span("ds_remove_dead_letters"):
            return await dead_letters.remove_old_dead_letters(self._database, before, most)

    async def count_dead_letters(self) -> list[DeadLetterCount]:
        """Read an index."""
        with self._span("ds_get_dead_letters"):
            return await dead_letters.count_dead_letters(self._database)

    # -- sweeps ---------------------------------------------------------------------------------------------------

    async def remove_calls(self, before: dt.datetime, most: int) -> Removed:
        """Remove some old calls in one transaction, also those whose id tells another time."""
        bounds = {"below": first_id(before), "before": format_time(before), "most": most}

        def steps() -> Steps[int]:
            old = yield Read(_OLD, bounds)
            old_strays = yield Read(_OLD_STRAYS, bounds)
            gone = [{"id": row["id"]} for row in (*old, *old_strays)]
            if gone:
                for query in _REMOVE:
                    yield Write(query, gone)
            return len(gone)

        with self._span("ds_remove_calls"):
            return Removed(calls=await self._database.transaction(steps))

    async def remove_results(self, now: dt.datetime, most: int) -> int:
        """Remove some expired results in one transaction."""

        def steps() -> Steps[int]:
            gone = yield Read(_EXPIRED, {"now": format_time(now), "most": most})
            if gone:
                yield Write(_REMOVE_RESULT, [{"id": row["id"]} for row in gone])
            return len(gone)

        with self._span("ds_remove_calls"):
            return await self._database.transaction(steps)

    async def remove_logs(self, before: dt.datetime, most: int) -> Removed:
        """Remove some old logs in one transaction."""
        with self._span("ds_remove_calls"):
            return Removed(logs=await self._old_logs.remove(before, most))

    async def count_calls(self, before: dt.datetime) -> Removed:
        """Count old calls."""
        counted = await self._database.query(_OLD_COUNT, below=first_id(before))
        strays = await self._database.query(_OLD_STRAYS, before=format_time(before), most=ALL)
        return Removed(calls=counted[0]["count"] + len(strays))

    async def count_logs(self, before: dt.datetime, calls_before: dt.datetime | None = None) -> Removed:
        """Count old logs."""
        return Removed(logs=await self._old_logs.count(before, calls_before))

    async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
        """Add up sizes from the newest log."""
        return await self._old_logs.time_beyond(log_bytes)

    async def shrink(self) -> bool:
        """Return some free space of SQLite's file."""
        return await self._database.shrink()

    async def nth_newest_call(self, n: int) -> dt.datetime | None:
        """Walk the index of ids in steps, so that other reads have their turn."""
        cursor, left = _BEHIND, n
        while True:
            step = min(left, STEP)
            found = await self._database.query(_NTH, cursor=cursor, skip=step)
            if not found:
                return None
            cursor, left = found[0]["id"], left - step
            if not left:
                made_ms = ids.time_ms(cursor)
                return None if made_ms is None else EPOCH + made_ms * _MS + _MS
            left -= 1


def _swap(given: Ended, gives_way: _GivesWay) -> Steps[dict[str, _Stored]]:
    """Replace stored calls that give way to the ones given, add new ones; return those that stay, as stored."""
    attempts = {call.id: call.attempt for call, _ in given}
    rows = from_calls(given)
    found = yield from _locked(rows.calls)
    if missing := [row for row in rows.calls if row.id not in found]:
        # A row that is not there cannot be locked, so it is added first: then other transactions wait for it.
        yield Put(ADD, ([msgspec.structs.replace(row, status=QUEUED, details="") for row in missing], []))
        found |= yield from _locked(missing)
    kept = {call_id: stored for call_id, stored in found.items() if not gives_way(stored, attempts[call_id])}
    yield Put(STORE, rows.without(kept))
    return kept


def _locked(rows: Sequence[CallRow]) -> Steps[dict[str, _Stored]]:
    found: list[Row] = []
    for start in range(0, len(rows), MOST):
        wanted = padded([row.id for row in rows[start : start + MOST]])
        found += yield Read(_locked_query(len(wanted)), _numbered(wanted))
    return {row["id"]: _Stored(row["status"], row["completed_at"], attempt_of(row)) for row in found}


def _stored(call: Call) -> _Stored:
    return _Stored(call.status, format_time(call.completed_at), call.attempt)


def _is_same_end(stored: _Stored, call: Call) -> bool:
    """Return whether a call ended as it is stored. One that was cancelled is stored before it ends where it runs."""
    return stored == _stored(call) or stored.status == call.status == CANCELLED


def _numbered(call_ids: Sequence[str]) -> dict[str, str]:
    return {f"i{n}": call_id for n, call_id in enumerate(call_ids)}


# One query for each number of ids, of which there are few: compiling takes longer than to execute it.


@functools.cache
def _calls_query(size: int) -> Query:
    return Query(sa.select(calls).where(calls.c.id.in_([param(f"i{n}") for n in range(size)]), belongs_to_app()))


@functools.cache
def _cancelled_query(size: int) -> Query:
    query = sa.select(calls.c.id).where(calls.c.id.in_([param(f"i{n}") for n in range(size)]))
    return Query(query.where(calls.c.status == CANCELLED))


@functools.cache
def _locked_query(size: int) -> Query:
    query = sa.select(calls.c.id, calls.c.status, calls.c.completed_at, calls.c.details)
    return Query(
        query.where(calls.c.id.in_([param(f"i{n}") for n in range(size)])).order_by(calls.c.id).with_for_update()
    )


def _compared(call: Call) -> tuple[object, ...]:
    """Return what must be equal for a swap; times to the second."""
    times = [time.replace(microsecond=0) for time in (call.created_at, call.started_at, call.completed_at)]
    return (call.id, call.app_name, call.path, call.status, call.error, call.response_status, call.stats, *times)
