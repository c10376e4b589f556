"""Apps and routes in SQL."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hearth.datastore import rows
from hearth.datastore.base import AppFilter, Datastore, RouteCheck, RouteFilter
from hearth.models.app import App
from hearth.models.errors import (
    AppsAlreadyExists,
    AppsNotFound,
    DatastoreEmptyAppName,
    DatastoreEmptyRoutePath,
    RoutesAlreadyExists,
    RoutesNotFound,
)
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch
from hearth.models.route import Route
from hearth.sql.tables import apps, calls, logs, routes, stray_calls
from hearth.sql.transactions import Transactions, repeated


class SqlDefinitions(Datastore):
    """The part of a datastore that keeps apps and routes.

    Every update reads and writes in one transaction, with what it reads locked.
    """

    def __init__(self, db: Transactions) -> None:
        self._db = db

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
            for table in (logs, stray_calls, calls, routes):
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
