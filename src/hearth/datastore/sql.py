"""Apps, routes, calls and logs in SQL."""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.datastore import rows
from hearth.datastore.base import AppFilter, CallFilter, Datastore, RouteCheck, RouteFilter
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.errors import (
    AppsAlreadyExists,
    AppsNotFound,
    CallLogNotFound,
    CallNotFound,
    DatastoreCannotSwap,
    DatastoreCannotUpdateCall,
    DatastoreEmptyAppName,
    DatastoreEmptyCallID,
    DatastoreEmptyRoutePath,
    RoutesAlreadyExists,
    RoutesNotFound,
)
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch
from hearth.models.route import Route
from hearth.models.times import format_time
from hearth.sql import engine as sql_engine
from hearth.sql import upsert
from hearth.sql.batches import batches
from hearth.sql.tables import apps, calls, logs, routes
from hearth.sql.transactions import Transactions, repeated


async def open_datastore(url: str, *, wait_s: float = sql_engine.WAIT_S) -> SqlDatastore:
    """The datastore of an address, ready for use.

    Args:
        url: The address, in one of Fn's forms.
        wait_s: How long to wait for a server that is not ready.

    Raises:
        StartUpError: The address or the database is of no use.
        StoreUnavailable: It cannot be opened.
    """
    return SqlDatastore(await sql_engine.open_engine(url, wait_s=wait_s))


class SqlDatastore(Datastore):
    """Behind one SQLAlchemy engine, on SQLite, PostgreSQL or MySQL.

    Every update reads and writes in one transaction, with what it reads locked. Nothing that failed in the middle is
    sent again, except a transaction that the server itself undid.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._db = Transactions(engine)
        self._batches = batches(self._db)
        self._replace_call = upsert.replacing(self._db.dialect, calls)
        self._add_call = upsert.adding(self._db.dialect, calls)
        self._replace_log = upsert.replacing(self._db.dialect, logs)

    async def close(self) -> None:
        """Release connections."""
        await self._batches.close()
        await self.engine.dispose()

    # -- apps -----------------------------------------------------------------------------------------------------

    async def get_app(self, name: str) -> App:
        """One app."""
        _need_app(name)
        async with self._db.reading() as db:
            return await _app(db, _select_app(name))

    async def get_apps(self, which: AppFilter) -> list[App]:
        """Apps by name."""
        query = sa.select(apps).where(apps.c.name > which.cursor).order_by(apps.c.name)
        if which.name_in is not None:
            query = query.where(apps.c.name.in_(list(which.name_in)))
        async with self._db.reading() as db:
            return [rows.to_app(row) for row in (await db.execute(_paged(query, which.per_page))).mappings()]

    @repeated
    async def insert_app(self, app: App) -> App:
        """Store a new app."""
        _need_app(app.name)
        async with self._db.writing() as db:
            try:
                await db.execute(sa.insert(apps).values(**rows.from_app(app)))
            except sa.exc.IntegrityError:
                raise AppsAlreadyExists from None
        return app

    @repeated
    async def update_app(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge a patch into an app."""
        _need_app(name)
        async with self._db.writing() as db:
            merged = apply_app_patch(await _app(db, _select_app(name).with_for_update()), patch, now)
            await db.execute(sa.update(apps).where(apps.c.name == name).values(**rows.from_app(merged)))
        return merged

    @repeated
    async def remove_app(self, name: str) -> None:
        """Delete an app and all that is its own."""
        _need_app(name)
        async with self._db.writing() as db:
            if not (await db.execute(sa.delete(apps).where(apps.c.name == name))).rowcount:
                raise AppsNotFound
            for table in (logs, calls, routes):
                await db.execute(sa.delete(table).where(table.c.app_name == name))

    # -- routes ---------------------------------------------------------------------------------------------------

    async def get_route(self, app_name: str, path: str) -> Route:
        """One route."""
        _need_route(app_name, path)
        async with self._db.reading() as db:
            return await _route(db, _select_route(app_name, path))

    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """An app's routes by path."""
        _need_app(app_name)
        query = sa.select(routes).where(routes.c.app_name == app_name, routes.c.path > which.cursor)
        if which.image:
            query = query.where(routes.c.image == which.image)
        query = _paged(query.order_by(routes.c.path), which.per_page)
        async with self._db.reading() as db:
            return [rows.to_route(row) for row in (await db.execute(query)).mappings()]

    @repeated
    async def insert_route(self, route: Route) -> Route:
        """Store a new route."""
        _need_route(route.app_name, route.path)
        async with self._db.writing() as db:
            await _app(db, _select_app(route.app_name).with_for_update(read=True))  # it stays until the commit
            try:
                await db.execute(sa.insert(routes).values(**rows.from_route(route)))
            except sa.exc.IntegrityError:
                raise RoutesAlreadyExists from None
        return route

    @repeated
    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, if the check admits the result."""
        _need_route(app_name, path)
        async with self._db.writing() as db:
            merged = apply_route_patch(await _route(db, _select_route(app_name, path).with_for_update()), patch, now)
            check(merged)
            await db.execute(sa.update(routes).where(*_is_route(app_name, path)).values(**rows.from_route(merged)))
        return merged

    @repeated
    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route."""
        _need_route(app_name, path)
        async with self._db.writing() as db:
            if not (await db.execute(sa.delete(routes).where(*_is_route(app_name, path)))).rowcount:
                raise RoutesNotFound

    # -- calls ----------------------------------------------------------------------------------------------------

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """A call's record."""
        if not call_id:
            raise DatastoreEmptyCallID
        query = sa.select(calls).where(calls.c.id == call_id, calls.c.app_name == app_name)
        async with self._db.reading() as db:
            row = (await db.execute(query)).mappings().one_or_none()
        if row is None:
            raise CallNotFound
        return rows.to_call(row)

    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Calls, newest first."""
        async with self._db.reading() as db:
            return [rows.to_call(row) for row in (await db.execute(self.listing(which))).mappings()]

    def listing(self, which: CallFilter) -> sa.Select[Any]:
        """The query of a list of calls; for each filter there is an index in the order of the answer."""
        query = sa.select(calls).order_by(calls.c.id.desc())
        for column, wanted in ((calls.c.app_name, which.app_name), (calls.c.path, which.path)):
            if wanted:
                query = query.where(column == wanted)
        if which.cursor:
            query = query.where(calls.c.id < which.cursor)
        if which.from_time is not None:
            query = query.where(calls.c.created_at > format_time(which.from_time))
        if which.to_time is not None:
            query = query.where(calls.c.created_at < format_time(which.to_time))
        return _paged(query, which.per_page)

    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> None:
        """Store calls and their logs in one transaction."""
        records = [rows.from_call(call) for call in _sorted([one for one, _ in ended])]
        texts = [{"id": call.id, "app_name": call.app_name, "log": log} for call, log in ended if log is not None]
        texts.sort(key=operator.itemgetter("id"))
        await self._batches.write([(self._replace_call, records), (self._replace_log, texts)])

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet."""
        await self._batches.write([(self._add_call, [rows.from_call(call) for call in _sorted(accepted)])])

    @repeated
    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Store the calls that have not been started before."""
        which = calls.c.id.in_([call.id for call in starting])
        query = sa.select(calls.c.id, calls.c.status).where(which).order_by(calls.c.id)
        async with self._db.writing() as db:
            before = {row.id for row in await db.execute(query)}
            # A row that is not there cannot be held, so it is made first; then whoever comes later has to wait.
            missing = [rows.from_call(call) | {"status": QUEUED} for call in _sorted(starting) if call.id not in before]
            if missing:
                await db.execute(self._add_call, missing)
            found: dict[str, str] = {row.id: row.status for row in await db.execute(query.with_for_update())}
            fresh = [rows.from_call(call) for call in _sorted(starting) if found[call.id] == QUEUED]
            if fresh:
                await db.execute(self._replace_call, fresh)
        return ["" if call.id not in before and found[call.id] == QUEUED else found[call.id] for call in starting]

    @repeated
    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap."""
        if (before.id, before.app_name) != (after.id, after.app_name):
            raise DatastoreCannotSwap("assertion error: 'from' and 'to' calls refer to different app/ID")
        query = sa.select(calls).where(calls.c.id == before.id, calls.c.app_name == before.app_name)
        async with self._db.writing() as db:
            row = (await db.execute(query.with_for_update())).mappings().one_or_none()
            if row is None:
                raise CallNotFound
            if _compared(rows.to_call(row)) != _compared(before):
                raise DatastoreCannotUpdateCall
            await db.execute(sa.update(calls).where(calls.c.id == after.id).values(**rows.from_call(after)))

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log."""
        query = sa.select(logs.c.log).where(logs.c.id == call_id, logs.c.app_name == app_name)
        async with self._db.reading() as db:
            text: bytes | None = (await db.execute(query)).scalar_one_or_none()
        if text is None:
            raise CallLogNotFound
        return text


def _sorted(some: Sequence[Call]) -> list[Call]:
    """In one order for all: two transactions that hold rows of each other would wait for ever."""
    return sorted(some, key=lambda call: call.id)


def _compared(call: Call) -> tuple[object, ...]:
    """What must be equal for a swap; times to the second."""
    times = [time.replace(microsecond=0) for time in (call.created_at, call.started_at, call.completed_at)]
    return (call.id, call.app_name, call.path, call.status, call.error, call.stats, *times)


def _need_app(name: str) -> None:
    if not name:
        raise DatastoreEmptyAppName


def _need_route(app_name: str, path: str) -> None:
    _need_app(app_name)
    if not path:
        raise DatastoreEmptyRoutePath


def _is_route(app_name: str, path: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return routes.c.app_name == app_name, routes.c.path == path


def _paged(query: sa.Select[Any], per_page: int) -> sa.Select[Any]:
    return query.limit(per_page) if per_page > 0 else query


def _select_app(name: str) -> sa.Select[Any]:
    return sa.select(apps).where(apps.c.name == name)


def _select_route(app_name: str, path: str) -> sa.Select[Any]:
    return sa.select(routes).where(*_is_route(app_name, path))


async def _app(db: AsyncConnection, query: sa.Select[Any]) -> App:
    row = (await db.execute(query)).mappings().one_or_none()
    if row is None:
        raise AppsNotFound
    return rows.to_app(row)


async def _route(db: AsyncConnection, query: sa.Select[Any]) -> Route:
    row = (await db.execute(query)).mappings().one_or_none()
    if row is None:
        raise RoutesNotFound
    return rows.to_route(row)
