"""Apps and routes in SQL."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from hearth.models import ids
from hearth.models.app import App
from hearth.models.errors import (
    ApiError,
    AppsAlreadyExists,
    AppsNotFound,
    DatastoreEmptyAppName,
    DatastoreEmptyRoutePath,
    RoutesAlreadyExists,
    RoutesNotFound,
    StoreUnavailable,
)
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch
from hearth.models.route import Route
from hearth.sql.coalesce import Coalescer, padded
from hearth.sql.database import Database, Read, Steps
from hearth.sql.query import ALL, Query, number, param
from hearth.sql.schema.tables import apps, routes
from hearth.stores.definitions import rows
from hearth.stores.definitions.base import AppCheck, AppFilter, DefinitionStore, RouteCheck, RouteFilter
from hearth.stores.definitions.held import Held, Key
from hearth.telemetry.node import Telemetry

_APPS: Final = sa.select(apps).where(apps.c.name > param("cursor")).order_by(apps.c.name).limit(number("most"))
_APPS_PAGE: Final = Query(_APPS)
_ROUTES: Final = (
    sa.select(routes)
    .where(routes.c.app_name == param("app"), routes.c.path > param("cursor"))
    .order_by(routes.c.path)
    .limit(number("most"))
)
_ROUTES_PAGE: Final = Query(_ROUTES)
_ROUTES_OF_IMAGE: Final = Query(_ROUTES.where(routes.c.image == param("image")))
#: A text that is greater is no zero: an index answers this.
_READY_ROUTES: Final = Query(
    sa.select(routes.c.app_name, routes.c.path)
    .where(routes.c.min_instances > "0")
    .order_by(routes.c.app_name, routes.c.path)
    .limit(number("most"))
)


class _Change(NamedTuple):
    """A change that is wanted.

    Attributes:
        apply: Applies it, and returns the answer. If it raises, it must have changed nothing.
        app: The name of the app that it needs; empty for none.
        route: The route that it needs.
    """

    apply: Callable[[Held], Any]
    app: str = ""
    route: Key | None = None


class SqlDefinitions(DefinitionStore):
    """Apps and routes in one database.

    Reads that arrive while another one runs go together. So do changes: those of a group share a transaction, which
    locks what it reads, and each has its own answer.
    """

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database
        self._apps: Coalescer[str, App | None] = Coalescer(self._load_apps)
        self._routes: Coalescer[Key, Route | None] = Coalescer(self._load_routes)
        self._changes: Coalescer[_Change, Any] = Coalescer(self._change)

    async def finish(self) -> None:
        """Wait for what was asked for."""
        for group in (self._changes, self._apps, self._routes):
            await group.close()

    # -- apps -----------------------------------------------------------------------------------------------------

    async def get_app(self, name: str) -> App:
        """Read an app, together with others."""
        _need_app(name)
        with self._span("ds_get_app"):
            if (app := await self._apps.run(name)) is None:
                raise AppsNotFound
            return app

    async def get_apps(self, which: AppFilter) -> list[App]:
        """Read apps by name."""
        query = _APPS_PAGE if which.name_in is None else Query(_APPS.where(apps.c.name.in_(list(which.name_in))))
        with self._span("ds_get_apps"):
            found = await self._database.query(query, cursor=which.cursor, most=which.per_page or ALL)
        return [rows.to_app(row, rows.report) for row in found]

    async def insert_app(self, app: App) -> App:
        """Store a new app, with an id of its own."""
        _need_app(app.name)
        app = app if app.id else msgspec.structs.replace(app, id=ids.random_id())

        def apply(held: Held) -> None:
            if app.name in held.apps:
                raise AppsAlreadyExists
            held.apps[app.name] = app

        with self._span("ds_insert_app"):
            await self._changes.run(_Change(apply, app=app.name))
        return app

    async def update_app(
        self, name: str, patch: AppPatch, now: dt.datetime, *, app_id: str = "", check: AppCheck | None = None
    ) -> App:
        """Merge a patch into an app, if the check accepts the result."""
        _need_app(name)

        def apply(held: Held) -> App:
            app = held.app(name)
            if app_id not in ("", app.id):
                raise AppsNotFound
            merged = apply_app_patch(app, patch, now)
            if check is not None:
                check(merged)
            held.apps[name] = merged
            return merged

        with self._span("ds_update_app"):
            merged: App = await self._changes.run(_Change(apply, app=name))
        return merged

    async def remove_app(self, name: str, *, app_id: str = "") -> None:
        """Delete an app with all that belongs to it, readable or not."""
        _need_app(name)

        def apply(held: Held) -> None:
            if app_id and held.app(name).id != app_id:
                raise AppsNotFound
            if held.apps.pop(name, None) is None:
                raise AppsNotFound

        with self._span("ds_remove_app"):
            await self._changes.alone(_Change(apply, app=name))

    # -- routes ---------------------------------------------------------------------------------------------------

    async def get_route(self, app_name: str, path: str) -> Route:
        """Read a route, together with others."""
        _need_route(app_name, path)
        with self._span("ds_get_route"):
            if (route := await self._routes.run((app_name, path))) is None:
                raise RoutesNotFound
            return route

    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """Read an app's routes by path."""
        _need_app(app_name)
        params = {"app": app_name, "cursor": which.cursor, "most": which.per_page or ALL, "image": which.image}
        with self._span("ds_get_routes_by_app"):
            found = await self._database.query(_ROUTES_OF_IMAGE if which.image else _ROUTES_PAGE, **params)
        return [rows.to_route(row, rows.report) for row in found]

    async def get_ready_routes(self, most: int) -> list[tuple[str, str]]:
        """Read the keys of routes that keep containers ready."""
        with self._span("ds_get_ready_routes"):
            found = await self._database.query(_READY_ROUTES, most=most)
        return [(row["app_name"], row["path"]) for row in found]

    async def insert_route(self, route: Route) -> Route:
        """Store a new route."""
        key = (route.app_name, route.path)
        _need_route(*key)

        def apply(held: Held) -> None:
            held.app(route.app_name)  # it stays until the commit
            if key in held.routes:
                raise RoutesAlreadyExists
            held.routes[key] = route

        with self._span("ds_insert_route"):
            await self._changes.run(_Change(apply, route.app_name, key))
        return route

    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, if the check accepts the result."""
        key = (app_name, path)
        _need_route(*key)

        def apply(held: Held) -> Route:
            merged = apply_route_patch(held.route(key), patch, now)
            check(merged)
            held.routes[key] = merged
            return merged

        with self._span("ds_update_route"):
            merged: Route = await self._changes.run(_Change(apply, route=key))
        return merged

    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route, readable or not."""
        key = (app_name, path)
        _need_route(*key)

        def apply(held: Held) -> None:
            if held.routes.pop(key, None) is None:
                raise RoutesNotFound

        with self._span("ds_remove_route"):
            await self._changes.run(_Change(apply, route=key))

    # -- many at once ---------------------------------------------------------------------------------------------

    async def _load_apps(self, names: list[str]) -> Sequence[App | Exception | None]:
        query, params = _apps_named(names)
        found = {row["name"]: rows.read(rows.to_app, row) for row in await self._database.query(query, **params)}
        return [found.get(name) for name in names]

    async def _load_routes(self, keys: list[Key]) -> Sequence[Route | Exception | None]:
        query, params = _routes_at(keys)
        stored = await self._database.query(query, **params)
        found = {(row["app_name"], row["path"]): rows.read(rows.to_route, row) for row in stored}
        return [found.get(key) for key in keys]

    async def _change(self, wanted: list[_Change]) -> list[Any]:
        """Apply changes in one transaction; return the answer or the error of each."""

        def steps() -> Steps[list[Any]]:
            names = [change.app for change in wanted if change.app]
            keys = [change.route for change in wanted if change.route]
            stored_apps = (yield _apps_named(names, locked=True)) if names else []
            stored_routes = (yield _routes_at(keys, locked=True)) if keys else []
            held = Held(stored_apps, stored_routes)
            outcomes = [_outcome(change, held) for change in wanted]
            yield from held.save()
            return outcomes

        return await self._database.transaction(steps)


def _outcome(change: _Change, held: Held) -> Any:
    try:
        return change.apply(held)
    except (ApiError, StoreUnavailable) as exc:
        return exc


def _need_app(name: str) -> None:
    if not name:
        raise DatastoreEmptyAppName


def _need_route(app_name: str, path: str) -> None:
    _need_app(app_name)
    if not path:
        raise DatastoreEmptyRoutePath


def _apps_named(names: Iterable[str], *, locked: bool = False) -> Read:
    """Read at most 64 apps."""
    wanted = padded(names)
    return Read(_apps_query(len(wanted), locked), {f"a{n}": name for n, name in enumerate(wanted)})


def _routes_at(keys: Iterable[Key], *, locked: bool = False) -> Read:
    """Read at most 64 routes."""
    wanted = padded(keys)
    params = {f"a{n}": app for n, (app, _) in enumerate(wanted)}
    return Read(_routes_query(len(wanted), locked), params | {f"p{n}": path for n, (_, path) in enumerate(wanted)})


@functools.cache
def _apps_query(size: int, locked: bool) -> Query:
    query = sa.select(apps).where(apps.c.name.in_([param(f"a{n}") for n in range(size)])).order_by(apps.c.name)
    return Query(query.with_for_update() if locked else query)


@functools.cache
def _routes_query(size: int, locked: bool) -> Query:
    each = [sa.and_(routes.c.app_name == param(f"a{n}"), routes.c.path == param(f"p{n}")) for n in range(size)]
    query = sa.select(routes).where(sa.or_(*each)).order_by(routes.c.app_name, routes.c.path)
    return Query(query.with_for_update() if locked else query)
