"""Apps and routes within one transaction: changes of many share it, each sees those before it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from hearth.models.app import App
from hearth.models.errors import AppsNotFound, RoutesNotFound, StoreUnavailable
from hearth.models.route import Route
from hearth.sql.database import Write
from hearth.sql.query import Query, Row, Rows, param
from hearth.sql.schema.tables import (
    apps,
    calls,
    dead_letters,
    firings,
    fns,
    idempotency_keys,
    logs,
    results,
    routes,
    schedules,
    secrets,
    stray_calls,
    triggers,
    versions,
)
from hearth.stores.definitions import rows

#: An app's name and a route's path.
Key = tuple[str, str]

_APP_COLUMNS: Final = tuple([column.name for column in apps.columns if not column.primary_key])
_ROUTE_COLUMNS: Final = tuple([column.name for column in routes.columns if not column.primary_key])
_IS_APP: Final = apps.c.name == param("key_name")
_IS_ROUTE: Final = sa.and_(routes.c.app_name == param("key_app"), routes.c.path == param("key_path"))
_INSERT_APP: Final = Query(sa.insert(apps))
_UPDATE_APP: Final = Query(sa.update(apps).where(_IS_APP), _APP_COLUMNS)
_INSERT_ROUTE: Final = Query(sa.insert(routes))
_UPDATE_ROUTE: Final = Query(sa.update(routes).where(_IS_ROUTE), _ROUTE_COLUMNS)
#: A route and its history.
_DELETE_ROUTE: Final = (
    Query(sa.delete(routes).where(_IS_ROUTE)),
    Query(sa.delete(versions).where(versions.c.app_name == param("key_app"), versions.c.function == param("key_path"))),
)
_ID_OF_APP: Final = sa.select(apps.c.id).where(_IS_APP).scalar_subquery()
#: An app and all that belongs to it.
_DELETE_APP: Final = (
    *[Query(sa.delete(table).where(table.c.app_id == _ID_OF_APP)) for table in (triggers, fns)],
    Query(sa.delete(apps).where(_IS_APP)),
    *[
        Query(sa.delete(table).where(table.c.app_name == param("key_name")))
        for table in (
            *(schedules, firings, secrets, dead_letters, results, logs, stray_calls, calls),
            *(routes, versions, idempotency_keys),
        )
    ],
)


class Held:
    """Apps and routes, to be read and changed.

    Attributes:
        apps: By name; the error instead of one whose row cannot be read.
        routes: By app and path, likewise.
    """

    def __init__(self, stored_apps: Iterable[Row], stored_routes: Iterable[Row]) -> None:
        self.apps = {row["name"]: rows.read(rows.to_app, row) for row in stored_apps}
        self.routes = {(row["app_name"], row["path"]): rows.read(rows.to_route, row) for row in stored_routes}
        self._stored_apps, self._stored_routes = dict(self.apps), dict(self.routes)

    def app(self, name: str) -> App:
        """Return the app. Raises ``AppsNotFound``, or ``StoreUnavailable`` if its row cannot be read."""
        if (app := self.apps.get(name)) is None:
            raise AppsNotFound
        if isinstance(app, StoreUnavailable):
            raise app
        return app

    def route(self, key: Key) -> Route:
        """Return the route. Raises ``RoutesNotFound``, or ``StoreUnavailable`` if its row cannot be read."""
        if (route := self.routes.get(key)) is None:
            raise RoutesNotFound
        if isinstance(route, StoreUnavailable):
            raise route
        return route

    def save(self) -> Generator[Write, Any, None]:
        """Write what has changed: what is gone first, so that its name is free."""
        app_keys = [{"key_name": name} for name in self._stored_apps if name not in self.apps]
        route_keys = [_route_key(key) for key in self._stored_routes if key not in self.routes]
        new_apps, changed_apps = _changes(self._stored_apps, self.apps, rows.from_app, lambda name: {"key_name": name})
        new_routes, changed_routes = _changes(self._stored_routes, self.routes, rows.from_route, _route_key)
        for query, params in (
            *[(delete, app_keys) for delete in _DELETE_APP],
            *[(delete, route_keys) for delete in _DELETE_ROUTE],
            (_INSERT_APP, new_apps),
            (_INSERT_ROUTE, new_routes),
            (_UPDATE_APP, changed_apps),
            (_UPDATE_ROUTE, changed_routes),
        ):
            if params:
                yield Write(query, params)


def _changes(
    stored: Mapping[Any, object], now: Mapping[Any, Any], to_row: Callable[[Any], Row], key: Callable[[Any], Row]
) -> tuple[Rows, Rows]:
    """Return the rows of what is new, and of what has changed with their keys."""
    new = [to_row(thing) for name, thing in now.items() if name not in stored]
    changed = [name for name, thing in now.items() if name in stored and stored[name] is not thing]
    return new, [{**to_row(now[name]), **key(name)} for name in changed]


def _route_key(key: Key) -> dict[str, str]:
    app, path = key
    return {"key_app": app, "key_path": path}
