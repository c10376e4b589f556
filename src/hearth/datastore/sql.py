"""Apps, routes, calls and logs in SQL."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.datastore.base import AppFilter, CallFilter, Datastore, RouteCheck, RouteFilter
from hearth.models.app import App
from hearth.models.call import QUEUED, Call, Stat
from hearth.models.errors import (
    AppsAlreadyExists,
    AppsNotFound,
    CallLogNotFound,
    CallNotFound,
    DatastoreEmptyAppName,
    DatastoreEmptyCallID,
    DatastoreEmptyRoutePath,
    RoutesAlreadyExists,
    RoutesNotFound,
    StoreUnavailable,
)
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch
from hearth.models.route import Route
from hearth.models.times import format_time, parse_time
from hearth.sql import engine as sql_engine
from hearth.sql.tables import apps, calls, logs, routes


async def open_datastore(url: str) -> SqlDatastore:
    """The datastore of a URL, ready for use.

    Raises:
        StartUpError: The URL or the database is of no use.
        StoreUnavailable: It cannot be opened.
    """
    return SqlDatastore(await sql_engine.open_engine(url))


class SqlDatastore(Datastore):
    """Behind one SQLAlchemy engine. Every update reads and writes in one transaction that holds the write lock."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)

    async def close(self) -> None:
        """Release connections."""
        await self._engine.dispose()

    # -- apps -----------------------------------------------------------------------------------------------------

    async def get_app(self, name: str) -> App:
        """One app."""
        _need_app(name)
        async with self._reading() as db:
            return await _app(db, name)

    async def get_apps(self, which: AppFilter) -> list[App]:
        """Apps by name."""
        query = sa.select(apps).where(apps.c.name > which.cursor).order_by(apps.c.name)
        if which.name_in is not None:
            query = query.where(apps.c.name.in_(list(which.name_in)))
        async with self._reading() as db:
            return [_to_app(row) for row in (await db.execute(_paged(query, which.per_page))).mappings()]

    async def insert_app(self, app: App) -> App:
        """Store a new app."""
        _need_app(app.name)
        async with self._writing() as db:
            try:
                await db.execute(sa.insert(apps).values(**_from_app(app)))
            except sa.exc.IntegrityError:
                raise AppsAlreadyExists from None
        return app

    async def update_app(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge a patch into an app."""
        _need_app(name)
        async with self._writing() as db:
            merged = apply_app_patch(await _app(db, name), patch, now)
            await db.execute(sa.update(apps).where(apps.c.name == name).values(**_from_app(merged)))
        return merged

    async def remove_app(self, name: str) -> None:
        """Delete an app and all that is its own."""
        _need_app(name)
        async with self._writing() as db:
            if not (await db.execute(sa.delete(apps).where(apps.c.name == name))).rowcount:
                raise AppsNotFound
            for table in (logs, calls, routes):
                await db.execute(sa.delete(table).where(table.c.app_name == name))

    # -- routes ---------------------------------------------------------------------------------------------------

    async def get_route(self, app_name: str, path: str) -> Route:
        """One route."""
        _need_route(app_name, path)
        async with self._reading() as db:
            return await _route(db, app_name, path)

    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """An app's routes by path."""
        _need_app(app_name)
        query = sa.select(routes).where(routes.c.app_name == app_name, routes.c.path > which.cursor)
        if which.image:
            query = query.where(routes.c.image == which.image)
        query = _paged(query.order_by(routes.c.path), which.per_page)
        async with self._reading() as db:
            return [_to_route(row) for row in (await db.execute(query)).mappings()]

    async def insert_route(self, route: Route) -> Route:
        """Store a new route."""
        _need_route(route.app_name, route.path)
        async with self._writing() as db:
            await _app(db, route.app_name)
            try:
                await db.execute(sa.insert(routes).values(**_from_route(route)))
            except sa.exc.IntegrityError:
                raise RoutesAlreadyExists from None
        return route

    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, if the check admits the result."""
        _need_route(app_name, path)
        async with self._writing() as db:
            merged = apply_route_patch(await _route(db, app_name, path), patch, now)
            check(merged)
            await db.execute(sa.update(routes).where(*_is_route(app_name, path)).values(**_from_route(merged)))
        return merged

    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route."""
        _need_route(app_name, path)
        async with self._writing() as db:
            if not (await db.execute(sa.delete(routes).where(*_is_route(app_name, path)))).rowcount:
                raise RoutesNotFound

    # -- calls ----------------------------------------------------------------------------------------------------

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """A call's record."""
        if not call_id:
            raise DatastoreEmptyCallID
        query = sa.select(calls).where(calls.c.id == call_id, calls.c.app_name == app_name)
        async with self._reading() as db:
            row = (await db.execute(query)).mappings().one_or_none()
        if row is None:
            raise CallNotFound
        return _to_call(row)

    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Calls, newest first."""
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
        async with self._reading() as db:
            return [_to_call(row) for row in (await db.execute(_paged(query, which.per_page))).mappings()]

    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> None:
        """Store calls and their logs in one transaction."""
        texts = [{"id": call.id, "app_name": call.app_name, "log": log} for call, log in ended if log is not None]
        async with self._writing() as db:
            await db.execute(_REPLACE_CALL, [_from_call(call) for call, _ in ended])
            if texts:
                await db.execute(_REPLACE_LOG, texts)

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet."""
        async with self._writing() as db:
            await db.execute(_ADD_CALL, [_from_call(call) for call in accepted])

    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Store the calls that have not been started before."""
        async with self._writing() as db:  # holds the write lock: nobody comes between the look and the change
            query = sa.select(calls.c.id, calls.c.status).where(calls.c.id.in_([call.id for call in starting]))
            found: dict[str, str] = {row.id: row.status for row in await db.execute(query)}
            fresh = [_from_call(call) for call in starting if found.get(call.id, QUEUED) == QUEUED]
            if fresh:
                await db.execute(_REPLACE_CALL, fresh)
        return [found.get(call.id, "") for call in starting]

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log."""
        query = sa.select(logs.c.log).where(logs.c.id == call_id, logs.c.app_name == app_name)
        async with self._reading() as db:
            text: bytes | None = (await db.execute(query)).scalar_one_or_none()
        if text is None:
            raise CallLogNotFound
        return text

    # -- transactions ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._engine.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._writer.begin() as connection:
                yield connection


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except sa.exc.SQLAlchemyError as exc:
        raise StoreUnavailable(f"database: {exc}") from exc


_REPLACE_CALL = upsert(calls).on_conflict_do_update(
    index_elements=[calls.c.id],
    set_={column.name: upsert(calls).excluded[column.name] for column in calls.c if column.name != "id"},
)
_ADD_CALL = upsert(calls).on_conflict_do_nothing(index_elements=[calls.c.id])
_REPLACE_LOG = upsert(logs).on_conflict_do_update(
    index_elements=[logs.c.id], set_={"log": upsert(logs).excluded["log"]}
)


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


async def _app(db: AsyncConnection, name: str) -> App:
    row = (await db.execute(sa.select(apps).where(apps.c.name == name))).mappings().one_or_none()
    if row is None:
        raise AppsNotFound
    return _to_app(row)


async def _route(db: AsyncConnection, app_name: str, path: str) -> Route:
    row = (await db.execute(sa.select(routes).where(*_is_route(app_name, path)))).mappings().one_or_none()
    if row is None:
        raise RoutesNotFound
    return _to_route(row)


def _from_app(app: App) -> dict[str, Any]:
    return {"name": app.name, "config": _json(app.config), **_times(app)}


def _to_app(row: sa.RowMapping) -> App:
    return App(name=row["name"], config=_map(row["config"]), **_read_times(row))


def _from_route(route: Route) -> dict[str, Any]:
    fields = ("app_name", "path", "image", "format", "memory", "timeout", "idle_timeout", "type")
    return {
        **{name: getattr(route, name) for name in fields},
        "cpus": route.cpu_milli,
        "headers": _json(route.headers),
        "config": _json(route.config),
        **_times(route),
    }


def _to_route(row: sa.RowMapping) -> Route:
    fields = ("app_name", "path", "image", "format", "memory", "timeout", "idle_timeout", "type")
    return Route(
        **{name: row[name] for name in fields},
        cpu_milli=row["cpus"] or 0,
        headers=_map(row["headers"]),
        config=_map(row["config"]),
        **_read_times(row),
    )


def _from_call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id,
        "app_name": call.app_name,
        "path": call.path,
        "status": call.status,
        "created_at": format_time(call.created_at),
        "started_at": format_time(call.started_at),
        "completed_at": format_time(call.completed_at),
        "stats": _json(call.stats) if call.stats else None,
        "error": call.error,
    }


def _to_call(row: sa.RowMapping) -> Call:
    return Call(
        id=row["id"],
        app_name=row["app_name"],
        path=row["path"],
        status=row["status"],
        created_at=parse_time(row["created_at"]),
        started_at=parse_time(row["started_at"]),
        completed_at=parse_time(row["completed_at"]),
        stats=msgspec.json.decode(row["stats"], type=list[Stat]) if row["stats"] else [],
        error=row["error"] or "",
    )


def _times(thing: App | Route) -> dict[str, str]:
    return {"created_at": format_time(thing.created_at), "updated_at": format_time(thing.updated_at)}


def _read_times(row: sa.RowMapping) -> dict[str, Any]:
    return {name: parse_time(row[name] or "") for name in ("created_at", "updated_at")}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _map(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any]) if text else {}
