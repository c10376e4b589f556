"""A datastore whose operations are spans (storage specification 1)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hearth.datastore.base import AppFilter, CallFilter, Datastore, RouteCheck, RouteFilter
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.route import Route
from hearth.telemetry.tracing import span


class TracedDatastore(Datastore):
    """Passes everything on; a span tells how long it took.

    Spans carry no app: names that a client made up would become labels for good. A batch of calls is one span.
    """

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def close(self) -> None:
        """Release connections."""
        await self._store.close()

    async def get_app(self, name: str) -> App:
        """One app."""
        with span("ds_get_app"):
            return await self._store.get_app(name)

    async def get_apps(self, which: AppFilter) -> list[App]:
        """Apps by name."""
        with span("ds_get_apps"):
            return await self._store.get_apps(which)

    async def insert_app(self, app: App) -> App:
        """Store a new app."""
        with span("ds_insert_app"):
            return await self._store.insert_app(app)

    async def update_app(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge a patch into an app."""
        with span("ds_update_app"):
            return await self._store.update_app(name, patch, now)

    async def remove_app(self, name: str) -> None:
        """Delete an app and all that is its own."""
        with span("ds_remove_app"):
            await self._store.remove_app(name)

    async def get_route(self, app_name: str, path: str) -> Route:
        """One route."""
        with span("ds_get_route"):
            return await self._store.get_route(app_name, path)

    async def get_routes(self, app_name: str, which: RouteFilter) -> list[Route]:
        """An app's routes by path."""
        with span("ds_get_routes_by_app"):
            return await self._store.get_routes(app_name, which)

    async def insert_route(self, route: Route) -> Route:
        """Store a new route."""
        with span("ds_insert_route"):
            return await self._store.insert_route(route)

    async def update_route(
        self, app_name: str, path: str, patch: RoutePatch, now: dt.datetime, check: RouteCheck
    ) -> Route:
        """Merge a patch into a route."""
        with span("ds_update_route"):
            return await self._store.update_route(app_name, path, patch, now, check)

    async def remove_route(self, app_name: str, path: str) -> None:
        """Delete a route."""
        with span("ds_remove_route"):
            await self._store.remove_route(app_name, path)

    async def get_call(self, app_name: str, call_id: str) -> Call:
        """A call's record."""
        with span("ds_get_call"):
            return await self._store.get_call(app_name, call_id)

    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Calls, newest first."""
        with span("ds_get_calls"):
            return await self._store.get_calls(which)

    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        """Store calls and their logs: where there are logs, the transaction is both spans."""
        if all(log is None for _, log in ended):
            with span("ds_insert_call"):
                return await self._store.put_calls(ended)
        with span("ds_insert_call"), span("ds_insert_log"):
            return await self._store.put_calls(ended)

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet."""
        with span("ds_insert_call"):
            await self._store.add_calls(accepted)

    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Store the calls that have not been started before."""
        with span("ds_update_call"):
            return await self._store.start_calls(starting)

    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap."""
        with span("ds_update_call"):
            await self._store.update_call(before, after)

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log."""
        with span("ds_get_log"):
            return await self._store.get_log(app_name, call_id)
