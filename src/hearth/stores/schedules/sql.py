"""Schedules in SQL."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from hearth.models.errors import MAX_SCHEDULES, AppsNotFound, SchedulesNotFound, SchedulesTooMany
from hearth.models.schedule import Definition, Firing, FiringState, Schedule
from hearth.models.times import ZERO, format_time
from hearth.sql.coalesce import MOST, padded
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields, report
from hearth.sql.query import Query, Row, number, param
from hearth.sql.schema.tables import apps, firings, schedules
from hearth.stores.schedules.base import Change, Claim, ScheduleStore
from hearth.telemetry.node import Telemetry

_APP: Final = sa.select(apps.c.id).where(apps.c.name == param("app"))
_READ_APP: Final = Query(_APP)
_LOCK_APP: Final = Query(_APP.with_for_update())
_OF_APP: Final = sa.and_(schedules.c.app_name == param("app"), schedules.c.app_id == param("app_id"))
_LIST: Final = Query(sa.select(schedules).where(_OF_APP).order_by(schedules.c.name))
_COUNT: Final = Query(sa.select(sa.func.count().label("amount")).select_from(schedules).where(_OF_APP))
_NAMED: Final = sa.and_(schedules.c.app_name == param("app"), schedules.c.name == param("name"))
_READ: Final = Query(sa.select(schedules).where(_NAMED))
_LOCK: Final = Query(sa.select(schedules).where(_NAMED).with_for_update())
_BY_ID: Final = Query(sa.select(schedules).where(schedules.c.id == param("key_id")))
_IS: Final = schedules.c.id == param("key_id")
_COLUMNS: Final = tuple([column.name for column in schedules.columns if not column.primary_key])
_INSERT: Final = Query(sa.insert(schedules))
_UPDATE: Final = Query(sa.update(schedules).where(_IS), _COLUMNS)
_MOVE: Final = Query(sa.update(schedules).where(_IS), ("next_at", "seen_at", "last_due", "last_call"))
_DELETE: Final = Query(sa.delete(schedules).where(_IS))
_NEXT: Final = Query(
    sa.select(schedules.c.next_at).where(schedules.c.next_at.is_not(None)).order_by(schedules.c.next_at).limit(1)
)
_DUE: Final = Query(
    sa.select(schedules)
    .where(schedules.c.next_at <= param("now"))
    .order_by(schedules.c.next_at, schedules.c.id)
    .limit(number("most"))
)
_AHEAD: Final = Query(sa.select(schedules).where(schedules.c.seen_at > param("now")).limit(number("most")))
_IS_FIRING: Final = sa.and_(firings.c.schedule_id == param("key_id"), firings.c.due == param("key_due"))
_INSERT_FIRING: Final = Query(sa.insert(firings))
_SETTLE: Final = Query(sa.update(firings).where(_IS_FIRING), ("state", "error"))
_TAKE: Final = Query(sa.update(firings).where(_IS_FIRING), ("claimed_at",))
_LOCK_FIRING: Final = Query(sa.select(firings).where(_IS_FIRING).with_for_update())
_DELETE_FIRING: Final = Query(sa.delete(firings).where(_IS_FIRING))
_DELETE_FIRINGS: Final = Query(sa.delete(firings).where(firings.c.schedule_id == param("key_id")))
_OLD: Final = sa.and_(firings.c.state == param("state"), firings.c.claimed_at < param("before"))
_OLD_FIRINGS: Final = Query(sa.select(firings).where(_OLD).order_by(firings.c.claimed_at).limit(number("most")))
_SETTLED: Final = (FiringState.ACCEPTED, FiringState.SKIPPED, FiringState.FAILED)
_DEFINITION: Final = msgspec.json.Decoder(Definition)
#: For a row that cannot be read: it never fires.
_UNREADABLE: Final = Definition(function="")


class SqlSchedules(ScheduleStore):
    """Schedules in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def put_schedule(self, app_name: str, name: str, change: Change) -> Schedule:
        """Store it while nobody else changes the app, or fires the schedule."""

        def steps() -> Steps[Schedule]:
            app_id = _id_of((yield Read(_LOCK_APP, {"app": app_name})))
            found = [_schedule(row) for row in (yield Read(_LOCK, {"app": app_name, "name": name}))]
            foreign = [{"key_id": stored.id} for stored in found if stored.app_id != app_id]
            if foreign:  # of an app that another server deleted
                yield Write(_DELETE, foreign)
                yield Write(_DELETE_FIRINGS, foreign)
            known = next((stored for stored in found if stored.app_id == app_id), None)
            made = change(app_id, known)
            if known is not None:
                yield Write(_UPDATE, [{**_row(made), "key_id": known.id}])
                return made
            (count,) = yield Read(_COUNT, {"app": app_name, "app_id": app_id})
            if int(count["amount"]) >= MAX_SCHEDULES:
                raise SchedulesTooMany
            yield Write(_INSERT, [_row(made)])
            return made

        with self._span("ds_put_schedule"):
            return await self._database.transaction(steps)

    async def list_schedules(self, app_name: str) -> list[Schedule]:
        """Read the schedules of the app that has this name now."""

        def steps() -> Steps[list[Schedule]]:
            app_id = _id_of((yield Read(_READ_APP, {"app": app_name})))
            return [_schedule(row) for row in (yield Read(_LIST, {"app": app_name, "app_id": app_id}))]

        with self._span("ds_get_schedules"):
            return await self._database.transaction(steps)

    async def get_schedule(self, app_name: str, name: str) -> Schedule:
        """Read a schedule of the app that has this name now."""

        def steps() -> Steps[Schedule]:
            app_id = _id_of((yield Read(_READ_APP, {"app": app_name})))
            return _one_of(app_id, (yield Read(_READ, {"app": app_name, "name": name})))

        with self._span("ds_get_schedule"):
            return await self._database.transaction(steps)

    async def remove_schedule(self, app_name: str, name: str) -> None:
        """Delete it if the app that has this name now has it."""

        def steps() -> Steps[None]:
            app_id = _id_of((yield Read(_LOCK_APP, {"app": app_name})))
            found = _one_of(app_id, (yield Read(_LOCK, {"app": app_name, "name": name})))
            yield Write(_DELETE, [{"key_id": found.id}])
            yield Write(_DELETE_FIRINGS, [{"key_id": found.id}])

        with self._span("ds_remove_schedule"):
            await self._database.transaction(steps)

    async def next_due(self) -> dt.datetime | None:
        """Read the beginning of an index."""
        with self._span("ds_get_schedules_due"):
            found = await self._database.query(_NEXT)
        return Fields(found[0]).time("next_at") if found else None

    async def due_schedules(self, now: dt.datetime, most: int) -> list[Schedule]:
        """Read the beginning of an index."""
        with self._span("ds_get_schedules_due"):
            found = await self._database.query(_DUE, now=format_time(now), most=most)
        return [_schedule(row) for row in found]

    async def schedules_ahead(self, now: dt.datetime, most: int) -> list[Schedule]:
        """Compare all rows: this is asked for when a clock was set back only."""
        with self._span("ds_get_schedules_due"):
            found = await self._database.query(_AHEAD, now=format_time(now), most=most)
        return [_schedule(row) for row in found]

    async def claim_firings(self, claims: Sequence[Claim]) -> list[list[Firing]]:
        """Compare and swap the next firing times, some schedules in one transaction."""
        found: list[list[Firing]] = []
        for begin in range(0, len(claims), MOST):
            found += await self._claim(claims[begin : begin + MOST])
        return found

    async def _claim(self, claims: Sequence[Claim]) -> list[list[Firing]]:
        first = min((firing.due for claim in claims for firing in claim.firings), default=ZERO)

        def steps() -> Steps[list[list[Firing]]]:
            ids = [claim.seen.id for claim in claims]
            stored = {row["id"]: row["next_at"] for row in (yield _locked(ids))}
            known = {(row["schedule_id"], row["due"]) for row in (yield _fired(ids, first))} if first != ZERO else set()
            ours: list[list[Firing]] = []
            moves: list[dict[str, Any]] = []
            for claim in claims:
                seen = claim.seen
                if seen.id not in stored or stored[seen.id] != _time(seen.next_at):
                    ours.append([])
                    continue
                new = [firing for firing in claim.firings if (firing.schedule_id, format_time(firing.due)) not in known]
                moves.append(_move(claim, new))
                ours.append(new)
            if rows := [_firing_row(firing) for new in ours for firing in new]:
                yield Write(_INSERT_FIRING, rows)
            if moves:
                yield Write(_MOVE, moves)
            return ours

        with self._span("ds_claim_firings"):
            return await self._database.transaction(steps)

    async def settle_firings(self, firings: Sequence[Firing]) -> None:
        """Write states and errors in one transaction, in one order."""
        rows = [
            {"key_id": firing.schedule_id, "key_due": format_time(firing.due), "state": firing.state.value}
            | {"error": firing.error}
            for firing in sorted(firings, key=lambda firing: (firing.schedule_id, firing.due))
        ]

        def steps() -> Steps[None]:
            yield Write(_SETTLE, rows)

        if rows:
            with self._span("ds_settle_firings"):
                await self._database.transaction(steps)

    async def stale_firings(self, before: dt.datetime, most: int) -> list[Firing]:
        """Read the claimed ones by time."""
        with self._span("ds_get_firings"):
            found = await self._database.query(
                _OLD_FIRINGS, state=FiringState.CLAIMED.value, before=format_time(before), most=most
            )
        return [_firing(row) for row in found]

    async def take_over(self, firing: Firing, now: dt.datetime) -> Schedule | None:
        """Compare and swap the time of the claim."""
        key = {"key_id": firing.schedule_id, "key_due": format_time(firing.due)}

        def steps() -> Steps[Schedule | None]:
            found = [_firing(row) for row in (yield Read(_LOCK_FIRING, key))]
            if found != [firing]:
                return None
            stored = yield Read(_BY_ID, {"key_id": firing.schedule_id})
            if not stored:
                yield Write(_DELETE_FIRING, [key])
                return None
            yield Write(_TAKE, [{**key, "claimed_at": format_time(now)}])
            return _schedule(stored[0])

        with self._span("ds_claim_firings"):
            return await self._database.transaction(steps)

    async def remove_firings(self, before: dt.datetime, most: int) -> int:
        """Read the keys of some, then delete these."""

        def steps() -> Steps[int]:
            found: list[Row] = []
            for state in _SETTLED:
                params = {"state": state.value, "before": format_time(before), "most": most - len(found)}
                found += yield Read(_OLD_FIRINGS, params)
            if found:
                yield Write(_DELETE_FIRING, [{"key_id": row["schedule_id"], "key_due": row["due"]} for row in found])
            return len(found)

        with self._span("ds_remove_firings"):
            return await self._database.transaction(steps)


def _locked(ids: Iterable[str]) -> Read:
    """Read, and lock, at most 64 schedules."""
    wanted = padded(ids)
    return Read(_lock_query(len(wanted)), {f"i{n}": one for n, one in enumerate(wanted)})


def _fired(ids: Iterable[str], first: dt.datetime) -> Read:
    """Read the firings of at most 64 schedules from a time on."""
    wanted = padded(ids)
    return Read(
        _fired_query(len(wanted)), {f"i{n}": one for n, one in enumerate(wanted)} | {"first": format_time(first)}
    )


@functools.cache
def _lock_query(size: int) -> Query:
    wanted = schedules.c.id.in_([param(f"i{n}") for n in range(size)])
    return Query(
        sa.select(schedules.c.id, schedules.c.next_at).where(wanted).order_by(schedules.c.id).with_for_update()
    )


@functools.cache
def _fired_query(size: int) -> Query:
    wanted = firings.c.schedule_id.in_([param(f"i{n}") for n in range(size)])
    return Query(sa.select(firings.c.schedule_id, firings.c.due).where(wanted, firings.c.due >= param("first")))


def _id_of(found: Sequence[Row]) -> str:
    """Return the id of the app that was read; empty if it has none."""
    if not found:
        raise AppsNotFound
    return str(found[0]["id"] or "")


def _one_of(app_id: str, found: Sequence[Row]) -> Schedule:
    for row in found:
        if (schedule := _schedule(row)).app_id == app_id:
            return schedule
    raise SchedulesNotFound


def _move(claim: Claim, new: Sequence[Firing]) -> dict[str, Any]:
    seen = claim.seen
    called = [firing for firing in new if firing.state is FiringState.CLAIMED]
    return {
        "key_id": seen.id,
        "next_at": _time(claim.next_at),
        "seen_at": format_time(claim.now),
        "last_due": format_time(new[-1].due if new else seen.last_due),
        "last_call": called[-1].call_id if called else seen.last_call,
    }


def _time(moment: dt.datetime) -> str | None:
    return None if moment == ZERO else format_time(moment)


def _row(schedule: Schedule) -> dict[str, Any]:
    times = ("anchor", "seen_at", "created_at", "updated_at", "last_due")
    return {
        **{name: getattr(schedule, name) for name in ("app_name", "name", "app_id", "id", "last_call")},
        **{name: format_time(getattr(schedule, name)) for name in times},
        "next_at": _time(schedule.next_at),
        "definition": msgspec.json.encode(schedule.definition).decode(),
    }


def _schedule(row: Row) -> Schedule:
    """Return a row as a schedule. One whose definition cannot be read never fires."""
    fields = Fields(row)
    schedule = Schedule(
        app_name=fields.text("app_name"),
        app_id=fields.text("app_id"),
        name=fields.text("name"),
        id=fields.text("id"),
        definition=fields.object("definition", _DEFINITION) or _UNREADABLE,
        anchor=fields.time("anchor"),
        next_at=fields.time("next_at"),
        seen_at=fields.time("seen_at"),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
        last_due=fields.time("last_due"),
        last_call=fields.text("last_call"),
    )
    if fields.unreadable:
        report(f"schedule {schedule.name} of app {schedule.app_name}", fields.unreadable)
    return schedule


def _firing_row(firing: Firing) -> dict[str, Any]:
    times = {"due": format_time(firing.due), "claimed_at": format_time(firing.claimed_at)}
    return {**msgspec.structs.asdict(firing), **times, "state": firing.state.value}


def _firing(row: Row) -> Firing:
    fields = Fields(row)
    return Firing(
        schedule_id=fields.text("schedule_id"),
        due=fields.time("due"),
        app_name=fields.text("app_name"),
        call_id=fields.text("call_id"),
        state=FiringState(fields.text("state")),
        claimed_at=fields.time("claimed_at"),
        error=fields.text("error"),
    )
