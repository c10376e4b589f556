"""Calls and logs in SQL."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from hearth.datastore import rows
from hearth.datastore.base import CallFilter, Datastore
from hearth.models.call import QUEUED, RUNNING, Call
from hearth.models.errors import (
    CallLogNotFound,
    CallNotFound,
    DatastoreCannotSwap,
    DatastoreCannotUpdateCall,
    DatastoreEmptyCallID,
)
from hearth.models.route import ASYNC
from hearth.models.times import format_time
from hearth.sql import strays, upsert
from hearth.sql.gathered import Gathered, padded
from hearth.sql.query import ALL, Query, Question, Row, page_size, param
from hearth.sql.reads import Reads
from hearth.sql.tables import calls, logs, stray_calls
from hearth.sql.transactions import Transactions, repeated
from hearth.sql.writes import Batches, Stored, Swap, Writes

_LOG: Final = Query(sa.select(logs.c.log).where(logs.c.id == param("id"), logs.c.app_name == param("app")))
_NOT_STARTED: Final = frozenset({QUEUED})
_NOT_ENDED: Final = frozenset({QUEUED, RUNNING})
_ENDED: Final = Query(
    sa.select(calls.c.id).where(
        calls.c.id == param("id"), calls.c.app_name == param("app"), calls.c.status.not_in(sorted(_NOT_ENDED))
    )
)


class SqlCalls(Datastore):
    """The part of a datastore that keeps calls and their logs.

    Lists come in the order of the ids from an index. A bound on ``created_at`` becomes one on the id, which begins with
    the time; calls whose id tells another time than their ``created_at`` are listed apart, see ``sql.strays``.
    """

    def __init__(self, db: Transactions, reads: Reads, batches: Batches) -> None:
        self._db = db
        self._reads = reads
        self._batches = batches
        self._found: Gathered[tuple[str, str], Call | None] = Gathered(self._load)
        self._replace_call = upsert.replacing(db.dialect, calls)
        self._add_call = upsert.adding(db.dialect, calls)
        self._replace_stray = upsert.replacing(db.dialect, stray_calls)
        self._add_stray = upsert.adding(db.dialect, stray_calls)
        self._replace_log = upsert.replacing(db.dialect, logs)

    async def close(self) -> None:
        """Wait until what was asked is answered."""
        await self._found.close()

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """A call's record."""
        if not call_id:
            raise DatastoreEmptyCallID
        if (call := await self._found.do((call_id, app_name))) is None:
            raise CallNotFound
        return call

    async def _load(self, keys: list[tuple[str, str]]) -> Sequence[Call | Exception | None]:
        """Many who wait for the end of their calls ask at the same time."""
        ids = padded([call_id for call_id, _ in keys])
        stored = await self._reads.rows(_calls_query(len(ids)), **{f"i{n}": call_id for n, call_id in enumerate(ids)})
        found = {(row["id"], row["app_name"]): rows.read(rows.to_call, row) for row in stored}
        return [found.get(key) for key in keys]

    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Calls, newest first."""
        found = await self._ask(self.listing(which))
        if which.from_time is not None or which.to_time is not None:
            found = _merged(found, await self._ask(_strays(which)), which.per_page)
        return [rows.to_call(row) for row in found]

    async def _ask(self, question: Question) -> list[Row]:
        return await self._reads.rows(question.query, **question.params)

    @staticmethod
    def listing(which: CallFilter) -> Question:
        """Asks for a list of calls, without those that are listed apart where a time bounds it."""
        bounds = _bounds(which)
        if which.from_time is not None:
            bounds["since"] = strays.first_id(which.from_time)
        if below := _below(which):
            bounds["below"] = below
        return _page(_listing_query(frozenset(bounds)), bounds, which)

    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        """Store calls and their logs in one transaction."""
        others, more = self._rows([one for one in ended if one[0].type != ASYNC])
        writes = [(self._replace_call, others), *more]
        if len(others) == len(ended):
            await self._batches.write(writes)
            return [True] * len(ended)
        records, also = self._rows([one for one in ended if one[0].type == ASYNC])
        kept = await self._batches.swap(Swap(records, _NOT_ENDED, also), writes)
        # one that is stored as given may have been stored by an earlier try whose answer was lost
        lost = {row["id"] for row in records if kept.get(row["id"], _stored(row)) != _stored(row)}
        await self._complete_logs([one for one in ended if one[0].id in kept and one[0].id not in lost])
        return [call.id not in lost for call, _ in ended]

    async def _complete_logs(self, again: Sequence[tuple[Call, bytes | None]]) -> None:
        """Of a call that is stored as given, more of its log may have come."""
        _, writes = self._rows(again)
        if again:
            await self._batches.write(writes)

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet."""
        records = [rows.from_call(call) for call in _sorted(accepted)]
        await self._batches.write([(self._add_call, records), (self._add_stray, strays.among(records))])

    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Store the calls that have not been started before."""
        records, also = self._rows([(call, None) for call in starting])
        kept = await self._batches.swap(Swap(records, _NOT_STARTED, also))
        return [kept[call.id].status if call.id in kept else "" for call in starting]

    def _rows(self, some: Sequence[tuple[Call, bytes | None]]) -> tuple[list[dict[str, Any]], Writes]:
        """Calls as rows, and what is to be written with them."""
        records = [rows.from_call(call) for call in _sorted([call for call, _ in some])]
        # most logs are empty, and a row for each would be half of the work of keeping calls
        texts = [{"id": call.id, "app_name": call.app_name, "log": log} for call, log in some if log]
        texts.sort(key=operator.itemgetter("id"))
        return records, [(self._replace_stray, strays.among(records)), (self._replace_log, texts)]

    @repeated
    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap."""
        if (before.id, before.app_name) != (after.id, after.app_name):
            raise DatastoreCannotSwap("assertion error: 'from' and 'to' calls refer to different app/ID")
        query = sa.select(calls).where(calls.c.id == before.id, calls.c.app_name == before.app_name)
        record = rows.from_call(after)
        async with self._db.writing() as db:
            row = (await db.execute(query.with_for_update())).mappings().one_or_none()
            if row is None:
                raise CallNotFound
            if _compared(rows.to_call(dict(row))) != _compared(before):
                raise DatastoreCannotUpdateCall
            await db.execute(sa.update(calls).where(calls.c.id == after.id).values(**record))
            if astray := strays.among([record]):
                await db.execute(self._replace_stray, astray)

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log; that of a call which has ended and has none is empty."""
        found = await self._reads.rows(_LOG, id=call_id, app=app_name)
        if not found:
            if not await self._reads.rows(_ENDED, id=call_id, app=app_name):
                raise CallLogNotFound
            found = await self._reads.rows(_LOG, id=call_id, app=app_name)  # it may have ended between the two
        text: bytes = found[0]["log"] if found else b""
        return text


def _strays(which: CallFilter) -> Question:
    """Asks for those of a list that the bounds on the id may have left out."""
    bounds = _bounds(which)
    if which.cursor:
        bounds["below"] = which.cursor
    return _page(_strays_query(frozenset(bounds)), bounds, which)


def _bounds(which: CallFilter) -> dict[str, Any]:
    """What a list asks for, by the names of parameters."""
    bounds = {"app": which.app_name, "path": which.path}
    if which.from_time is not None:
        bounds["after"] = format_time(which.from_time)
    if which.to_time is not None:
        bounds["before"] = format_time(which.to_time)
    return {name: value for name, value in bounds.items() if value}


def _page(query: Query, bounds: dict[str, Any], which: CallFilter) -> Question:
    return Question(query, {**bounds, "most": which.per_page if which.per_page > 0 else ALL})


# One query for each number of ids and set of bounds, of which there are few: to put one into words takes longer than to
# ask it.


@functools.cache
def _calls_query(size: int) -> Query:
    return Query(sa.select(calls).where(calls.c.id.in_([param(f"i{n}") for n in range(size)])))


@functools.cache
def _listing_query(bounds: frozenset[str]) -> Query:
    query = sa.select(calls)
    if "app" in bounds:  # MariaDB would rather sort half of the table than walk it in the order of the answer
        index = "calls_by_path" if "path" in bounds else "calls_by_app"
        query = query.with_hint(calls, f"FORCE INDEX ({index})", "mysql")
    conditions = {
        "app": calls.c.app_name == param("app"),
        "path": calls.c.path == param("path"),
        "since": calls.c.id >= param("since"),
        "below": calls.c.id < param("below"),
        "after": calls.c.created_at > param("after"),
        "before": calls.c.created_at < param("before"),
    }
    query = query.where(*[condition for name, condition in conditions.items() if name in bounds])
    return Query(query.order_by(calls.c.id.desc()).limit(page_size()))


@functools.cache
def _strays_query(bounds: frozenset[str]) -> Query:
    """What can be asked of the notes is not asked of the calls, so that no database begins with the larger table."""
    query = sa.select(calls).join(stray_calls, stray_calls.c.id == calls.c.id)
    conditions = {
        "app": stray_calls.c.app_name == param("app"),
        "path": calls.c.path == param("path"),
        "below": stray_calls.c.id < param("below"),
        "after": sa.and_(stray_calls.c.created_at > param("after"), calls.c.created_at > param("after")),
        "before": sa.and_(stray_calls.c.created_at < param("before"), calls.c.created_at < param("before")),
    }
    query = query.where(*[condition for name, condition in conditions.items() if name in bounds])
    return Query(query.order_by(stray_calls.c.id.desc()).limit(page_size()))


def _below(which: CallFilter) -> str:
    """One bound above the ids: of two, SQLite would begin at the one and skip rows down to the other."""
    bounds = [which.cursor] if which.cursor else []
    if which.to_time is not None:
        bounds.append(strays.last_id(which.to_time))
    return min(bounds, default="")


def _merged(found: list[Row], more: list[Row], per_page: int) -> list[Row]:
    if not more:
        return found
    both = {row["id"]: row for row in (*found, *more)}
    newest = sorted(both.values(), key=operator.itemgetter("id"), reverse=True)
    return newest[:per_page] if per_page > 0 else newest


def _sorted(some: Sequence[Call]) -> list[Call]:
    """In one order for all: two transactions that hold rows of each other would wait for ever."""
    return sorted(some, key=operator.attrgetter("id"))


def _stored(row: Mapping[str, Any]) -> Stored:
    return Stored(row["status"], row["completed_at"])


def _compared(call: Call) -> tuple[object, ...]:
    """What must be equal for a swap; times to the second."""
    times = [time.replace(microsecond=0) for time in (call.created_at, call.started_at, call.completed_at)]
    return (call.id, call.app_name, call.path, call.status, call.error, call.stats, *times)
