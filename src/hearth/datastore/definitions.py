"""Apps and routes in SQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from hearth.datastore import rows
from hearth.datastore.base import AppFilter, Datastore, RouteCheck, RouteFilter
from hearth.datastore.changes import Change, Held, Key, apps_named, routes_at
from hearth.models.app import App
from hearth.models.errors import ApiError, AppsNotFound, DatastoreEmptyAppName, DatastoreEmptyRoutePath, RoutesNotFound
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch
from hearth.models.route import Route
from hearth.sql.gathered import Gathered
from hearth.sql.query import ALL, Query, Row, page_size, param
from hearth.sql.reads import Reads
from hearth.sql.tables import apps, routes
from hearth.sql.writes import Batches, Changes

_APPS: Final = sa.select(apps).where(apps.c.name > param("cursor")).order_by(apps.c.name)
_APPS_PAGE: Final = Query(_APPS.limit(page_size()))
_ROUTES: Final = sa.select(routes).where(routes.c.app_name == param("app"), routes.c.path > param("cursor"))
_ROUTES_PAGE: Final = Query(_ROUTES.order_by(routes.c.path).limit(page_size()))
_ROUTES_OF_IMAGE: Final = Query(
    _ROUTES.where(routes.c.image == param("image")).order_by(routes.c.path).limit(page_size())
)


class SqlDefinitions(Datastore):
    """The part of a datastore that keeps apps and routes.

    What is asked for while another question is under way is asked together. So are changes made: those of a group read
    and write in one transaction, with what they read locked, one after the other, and each has its own answer.
    """

    def __init__(self, dialect: str, reads: Reads, batches: Batches) -> None:
        self._dialect = dialect
        self._reads = reads
        self._batches = batches
        self._apps: Gathered[str, App | None] = Gathered(self._load_apps)
        self._routes: Gathered[Key, Route | None] = Gathered(self._load_routes)
        self._changes: Gathered[Change, Any] = Gathered(self._change)

    async def close(self) -> None:
        """Wait until what was begun is done."""
        for group in (self._changes, self._apps, self._routes):
            await group.close()

    # -- apps -----------------------------------------------------------------------------------------------------

    async def get_app(self, name: str) -> App:
        """One app."""
        _need_app(name)
        if (app := await self._apps.do(name)) is None:
            raise AppsNotFound
        return app

    async def get_apps(self, which: AppFilter) -> list[App]:
        """Apps by name."""
        query = _APPS_PAGE
        if which.name_in is not None:
            query = Query(_APPS.where(apps.c.name.in_(list(which.name_in))).limit(page_size()))
        found = await self._reads.rows(query, cursor=which.cursor, most=which.per_page or ALL)
        return [rows.to_app(row) for row in found]

    async def insert_app(self, app: App) -> App:
        """Store a new app."""
        _need_app(app.name)
        await self._changes.do(Change(lambda held: held.add_app(app), app=app.name))
        return app

    async def update_app(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge a patch into an app."""
        _need_app(name)

        def apply(held: Held) -> App:
            merged = apply_app_patch(held.app(name), patch, now)
            held.put_app(merged)
            return merged

        merged: App = await self._changes.do(Change(apply, app=name))
        return merged

    async def remove_app(self, name: str) -> None:
        """Delete an app and all that is its own."""
        _need_app(name)
        await self._changes.alone(Change(lambda held: held.remove_app(name), app=name))

    # -- routes ---------------------------------------------------------------------------------------------------

    async def get_route(self, app_name: str, path: str) -> Route:
        """One route."""
        _need_route(app_name, path)
        if (route := await self._routes.do((app_name, path))) is None:
            raise RoutesNotFound
        return route

    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """An app's routes by path."""
        _need_app(app_name)
        params = {"app": app_name, "cursor": which.cursor, "most": which.per_page or ALL, "image": which.image}
        query = _ROUTES_OF_IMAGE if which.image else _ROUTES_PAGE
        return [rows.to_route(row) for row in await self._reads.rows(query, **params)]

    async def insert_route(self, route: Route) -> Route:
        """Store a new route."""
        key = (route.app_name, route.path)
        _need_route(*key)

        def apply(held: Held) -> None:
            held.app(route.app_name)  # it stays until the commit
            held.add_route(route)

        await self._changes.do(Change(apply, route.app_name, key))
        return route

    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, if the check admits the result."""
        key = (app_name, path)
        _need_route(*key)

        def apply(held: Held) -> Route:
            merged = apply_route_patch(held.route(key), patch, now)
            check(merged)
            held.put_route(merged)
            return merged

        merged: Route = await self._changes.do(Change(apply, route=key))
        return merged

    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route."""
        key = (app_name, path)
        _need_route(*key)
        await self._changes.do(Change(lambda held: held.remove_route(key), route=key))

    # -- together -------------------------------------------------------------------------------------------------

    async def _load_apps(self, names: list[str]) -> Sequence[App | Exception | None]:
        query, params = apps_named(names)
        found = {row["name"]: rows.read(rows.to_app, row) for row in await self._reads.rows(query, **params)}
        return [found.get(name) for name in names]

    async def _load_routes(self, keys: list[Key]) -> Sequence[Route | Exception | None]:
        query, params = routes_at(keys)
        stored = await self._reads.rows(query, **params)
        found = {(row["app_name"], row["path"]): rows.read(rows.to_route, row) for row in stored}
        return [found.get(key) for key in keys]

    async def _change(self, wanted: list[Change]) -> list[Any]:
        """Make changes in one transaction; of each what it gives, or raises."""
        names = [change.app for change in wanted if change.app]
        keys = [change.route for change in wanted if change.route]
        questions = [apps_named(names, locked=True)] if names else []
        questions += [routes_at(keys, locked=True)] if keys else []
        outcomes: list[Any] = []

        def decide(answers: list[list[Row]]) -> Changes:
            held = Held(answers[0] if names else (), answers[-1] if keys else ())
            outcomes[:] = [_outcome(change, held) for change in wanted]
            return held.changes(self._dialect)

        await self._batches.change(questions, decide)
        return outcomes


def _outcome(change: Change, held: Held) -> Any:
    try:
        return change.apply(held)
    except ApiError as exc:
        return exc


def _need_app(name: str) -> None:
    if not name:
        raise DatastoreEmptyAppName


def _need_route(app_name: str, path: str) -> None:
    _need_app(app_name)
    if not path:
        raise DatastoreEmptyRoutePath
