"""What the rest of Hearth may rely on to keep definitions and call records (storage specification 1, 4)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence

from hearth.models.app import App
from hearth.models.call import Call
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """Which calls to list, newest (largest id) first. Both time bounds are exclusive, on ``created_at``."""

    app_name: str = ""
    path: str = ""
    cursor: str = ""
    per_page: int = 0
    from_time: dt.datetime | None = None
    to_time: dt.datetime | None = None


#: Checks a merged route inside the update's transaction, and raises to refuse it.
RouteCheck = Callable[[Route], None]


class Datastore(abc.ABC):
    """Apps, routes and calls.

    Every operation is atomic: it happens whole or not at all, also when it is cancelled, and concurrent updates of one
    thing are never lost. Reads see every write that was answered before. A backend's own failure is a
    :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""

    @abc.abstractmethod
    async def get_app(self, name: str) -> App:
        """One app. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``."""

    @abc.abstractmethod
    async def get_apps(self, which: AppFilter) -> list[App]:
        """Apps by name, byte order."""

    @abc.abstractmethod
    async def insert_app(self, app: App) -> App:
        """Store a new app as given. Raises ``DatastoreEmptyAppName``, ``AppsAlreadyExists``."""

    @abc.abstractmethod
    async def update_app(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge a patch into an app; the merged app. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``."""

    @abc.abstractmethod
    async def remove_app(self, name: str) -> None:
        """Delete an app with its routes, calls and logs. Raises ``DatastoreEmptyAppName``, ``AppsNotFound``."""

    @abc.abstractmethod
    async def get_route(self, app_name: str, path: str) -> Route:
        """One route. Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``RoutesNotFound``."""

    @abc.abstractmethod
    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """An app's routes by path, byte order; empty for an unknown app. Raises ``DatastoreEmptyAppName``."""

    @abc.abstractmethod
    async def insert_route(self, route: Route) -> Route:
        """Store a new route as given.

        Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``AppsNotFound``, ``RoutesAlreadyExists``.
        """

    @abc.abstractmethod
    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route, check the result, store it; the merged route.

        Raises ``DatastoreEmptyAppName``, ``DatastoreEmptyRoutePath``, ``RoutesNotFound``, and what ``check`` raises
        (then nothing is stored).
        """

    @abc.abstractmethod
    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route; its calls stay. Raises the two empties and ``RoutesNotFound``."""

    @abc.abstractmethod
    async def get_call(self, app_name: str, call_id: str) -> Call:
        """A call's stored fields. Raises ``DatastoreEmptyCallID``, ``CallNotFound``."""

    @abc.abstractmethod
    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Calls, newest first."""

    @abc.abstractmethod
    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        """Store ended calls and, where given, their logs, in one transaction.

        A sync call replaces one of the same id. An async call may have ended in the eyes of another node, too: its
        first final record stays, with its log. False where that is another one than the one given.
        """

    @abc.abstractmethod
    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet, in one transaction; what is there already stays."""

    @abc.abstractmethod
    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Compare and swap: store each call that is not stored yet, or is ``queued``, as given; leave the others.

        For each the status that kept it from being stored, ``""`` if it was stored.
        """

    @abc.abstractmethod
    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap: store ``after``, if what is stored equals ``before`` (times to the second).

        Raises ``CallNotFound``, ``DatastoreCannotUpdateCall``, and ``DatastoreCannotSwap`` if the two are not one call.
        """

    @abc.abstractmethod
    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log, once the call has ended. Raises ``CallLogNotFound`` (also for another app's call)."""
