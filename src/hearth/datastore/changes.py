"""What becomes of stored apps and routes: without a database, so that the changes of many share one transaction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hearth.datastore import rows
from hearth.models.app import App
from hearth.models.errors import AppsAlreadyExists, AppsNotFound, RoutesAlreadyExists, RoutesNotFound
from hearth.models.route import Route
from hearth.sql import upsert
from hearth.sql.gathered import padded
from hearth.sql.query import Query, Question, Removal, Row, param
from hearth.sql.tables import apps, calls, logs, routes, stray_calls
from hearth.sql.writes import Changes, Writes

#: An app's name and a route's path.
Key = tuple[str, str]

_OF_APP: Final = [
    Query(sa.delete(table).where(table.c.app_name == param("app"))) for table in (logs, stray_calls, calls, routes)
]
_DELETE_APP: Final = Query(sa.delete(apps).where(apps.c.name == param("app")))
_DELETE_ROUTE: Final = Query(sa.delete(routes).where(routes.c.app_name == param("app"), routes.c.path == param("path")))


def apps_named(names: Iterable[str], *, locked: bool = False) -> Question:
    """Asks for apps, at most 64; locked, they stay as they are until the transaction ends."""
    wanted = padded(names)
    return Question(_apps_query(len(wanted), locked), {f"a{n}": name for n, name in enumerate(wanted)})


def routes_at(keys: Iterable[Key], *, locked: bool = False) -> Question:
    """Asks for routes, as above."""
    wanted = padded(keys)
    params = {}
    for n, key in enumerate(wanted):
        params[f"a{n}"], params[f"p{n}"] = key
    return Question(_routes_query(len(wanted), locked), params)


class Change(NamedTuple):
    """A change that is wanted.

    Attributes:
        apply: Makes it; what it raises is the answer, and then it must have changed nothing.
        app: The name of the app that it looks at; empty for none.
        route: The route that it looks at.
    """

    apply: Callable[[Held], Any]
    app: str = ""
    route: Key | None = None


class Held:
    """The apps and routes that a transaction holds, as each change finds them after those before it."""

    def __init__(self, stored_apps: Iterable[Row], stored_routes: Iterable[Row]) -> None:
        self._apps = {row["name"]: rows.to_app(row) for row in stored_apps}
        self._routes = {(row["app_name"], row["path"]): rows.to_route(row) for row in stored_routes}
        self._stored: set[str | Key] = {*self._apps, *self._routes}
        self._app_rows: dict[str, Mapping[str, Any]] = {}
        self._route_rows: dict[Key, Mapping[str, Any]] = {}
        self._removed_apps: list[str] = []
        self._removed_routes: list[Key] = []

    def app(self, name: str) -> App:
        """The app. Raises ``AppsNotFound``."""
        if (app := self._apps.get(name)) is None:
            raise AppsNotFound
        return app

    def route(self, key: Key) -> Route:
        """The route. Raises ``RoutesNotFound``."""
        if (route := self._routes.get(key)) is None:
            raise RoutesNotFound
        return route

    def add_app(self, app: App) -> None:
        """A new app. Raises ``AppsAlreadyExists``."""
        if app.name in self._apps:
            raise AppsAlreadyExists
        self.put_app(app)

    def add_route(self, route: Route) -> None:
        """A new route. Raises ``RoutesAlreadyExists``."""
        if (route.app_name, route.path) in self._routes:
            raise RoutesAlreadyExists
        self.put_route(route)

    def put_app(self, app: App) -> None:
        """What the app is now."""
        if self._apps.get(app.name) is not app:
            self._app_rows[app.name] = rows.from_app(app)
            self._apps[app.name] = app

    def put_route(self, route: Route) -> None:
        """What the route is now."""
        key = (route.app_name, route.path)
        if self._routes.get(key) is not route:
            self._route_rows[key] = rows.from_route(route)
            self._routes[key] = route

    def remove_app(self, name: str) -> None:
        """The app is gone, with all that is its own. Raises ``AppsNotFound``."""
        self.app(name)
        for key in [key for key in self._routes if key[0] == name]:
            self._forget(key, self._routes, self._route_rows)
        self._forget(name, self._apps, self._app_rows)
        self._removed_apps.append(name)

    def remove_route(self, key: Key) -> None:
        """The route is gone. Raises ``RoutesNotFound``."""
        self.route(key)
        self._forget(key, self._routes, self._route_rows)
        self._removed_routes.append(key)

    def changes(self, dialect: str) -> Changes:
        """What makes the database agree."""
        gone = [{"app": name} for name in self._removed_apps]
        removals = [Removal(query, gone) for query in (_DELETE_APP, *_OF_APP)] if gone else []
        if self._removed_routes:
            removals.append(Removal(_DELETE_ROUTE, [{"app": app, "path": path} for app, path in self._removed_routes]))
        inserts, replaces = _writes(dialect)
        writes: Writes = [
            (inserts[0], [row for name, row in self._app_rows.items() if name not in self._stored]),
            (inserts[1], [row for key, row in self._route_rows.items() if key not in self._stored]),
            (replaces[0], [row for name, row in self._app_rows.items() if name in self._stored]),
            (replaces[1], [row for key, row in self._route_rows.items() if key in self._stored]),
        ]
        return Changes(removals, writes)

    def _forget(self, key: Any, things: dict[Any, Any], changed: dict[Any, Any]) -> None:
        del things[key]
        changed.pop(key, None)
        self._stored.discard(key)


@functools.cache
def _writes(dialect: str) -> tuple[list[sa.Insert], list[sa.Insert]]:
    tables = (apps, routes)
    inserts = [upsert.inserting(dialect, table) for table in tables]
    return inserts, [upsert.replacing(dialect, table) for table in tables]


@functools.cache
def _apps_query(size: int, locked: bool) -> Query:
    query = sa.select(apps).where(apps.c.name.in_([param(f"a{n}") for n in range(size)])).order_by(apps.c.name)
    return Query(query.with_for_update() if locked else query)


@functools.cache
def _routes_query(size: int, locked: bool) -> Query:
    each = [sa.and_(routes.c.app_name == param(f"a{n}"), routes.c.path == param(f"p{n}")) for n in range(size)]
    query = sa.select(routes).where(sa.or_(*each)).order_by(routes.c.app_name, routes.c.path)
    return Query(query.with_for_update() if locked else query)
