"""Definitions and records in this process's own datastore."""

from __future__ import annotations

from hearth.access.base import DataAccess, EndedCall
from hearth.datastore.base import Datastore
from hearth.models.app import App
from hearth.models.route import Route


class LocalAccess(DataAccess):
    """Straight to the datastore."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def get_app(self, name: str) -> App:
        """The app."""
        return await self._datastore.get_app(name)

    async def get_route(self, app_name: str, path: str) -> Route:
        """The route."""
        return await self._datastore.get_route(app_name, path)

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs."""
        await self._datastore.put_calls([(one.call, one.log) for one in ended])
