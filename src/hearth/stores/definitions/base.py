"""The store of apps and routes as the rest of Hearth uses it (storage specification 1, 4)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence

from hearth.models.app import App
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.route import Route


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AppFilter:
    """Which apps to list, by name in byte order. ``per_page`` 0 means no limit; ``cursor`` is exclusive.

    ``name_in`` of ``None`` admits all, an empty sequence none.
    """

    cursor: str = ""
    per_page: int = 0
    name_in: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RouteFilter:
    """Which routes of an app to list, by path in byte order. An empty ``image`` admits all."""

    cursor: str = ""
    per_page: int = 0
    image: str = ""


#: Checks a merged app inside the update's transaction, and raises to refuse it.
AppCheck = Callable[[App], None]
#: Checks a merged route inside the update's transaction, and raises to refuse it.
RouteCheck = Callable[[Route], None]


class DefinitionStore(abc.ABC):
    """Apps and routes.

    Every operation is atomic: it happens whole or not at all, also when it is cancelled, and concurrent updates of one
    app or route are never lost. Reads see every write that was answered before. A failure of the backend is a
    :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def get_app(self, name: str) -> App:
        """Return an app. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``."""

    @abc.abstractmethod
    async def get_apps(self, which: AppFilter) -> list[App]:
        """Return apps by name, in byte order."""

    @abc.abstractmethod
    async def insert_app(self, app: App) -> App:
        """Store a new app, with an id of its own unless it has one; return the stored app.

        Raises ``DatastoreEmptyAppName``, ``AppsAlreadyExists``.
        """

    @abc.abstractmethod
    async def update_app(
        self, name: str, patch: AppPatch, now: dt.datetime, *, app_id: str = "", check: AppCheck | None = None
    ) -> App:
        """Merge a patch into an app, check the result, store it; return the merged app.

        With an ``app_id`` the app must have it, too. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``, and what
        ``check`` raises (then nothing is stored).
        """

    @abc.abstractmethod
    async def remove_app(self, name: str, *, app_id: str = "") -> None:
        """Delete an app with its routes, fns, triggers, calls and logs.

        With an ``app_id`` the app must have it, too. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``.
        """

    @abc.abstractmethod
    async def get_route(self, app_name: str, path: str) -> Route:
        """Return a route. Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``RoutesNotFound``."""

    @abc.abstractmethod
    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """Return an app's routes by path, in byte order; none for an unknown app. Raises ``DatastoreEmptyAppName``."""

    @abc.abstractmethod
    async def get_ready_routes(self, most: int) -> list[tuple[str, str]]:
        """Return app and path of the routes that keep containers ready, in this order; not more than ``most``."""

    @abc.abstractmethod
    async def insert_route(self, route: Route) -> Route:
        """Store a new route as given.

        Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``AppsNotFound``, ``RoutesAlreadyExists``.
        """

    @abc.abstractmethod
    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, check the result, store it; return the merged route.

        Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``RoutesNotFound``, and what ``check`` raises
        (then nothing is stored).
        """

    @abc.abstractmethod
    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route; its calls stay.

        Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``RoutesNotFound``.
        """
