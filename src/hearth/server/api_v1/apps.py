"""The apps of the API: /v1/apps."""

from __future__ import annotations

from typing import Any

from hearth.clock import Clock
from hearth.datastore.base import AppFilter
from hearth.models.app import App, validate_app_name
from hearth.models.errors import AppsNameImmutable
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import app_json, key_cursor
from hearth.server.api_v1.request import ApiRequest
from hearth.server.listeners import ListenedApps


class Apps:
    """The operations on apps."""

    def __init__(self, store: ListenedApps, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """A page of apps."""
        page = decode.per_page(request.query("per_page"))
        found = await self._store.list(
            AppFilter(cursor=decode.cursor(request.query("cursor")), per_page=page),
        )
        return {
            "message": "Successfully listed applications",
            "next_cursor": key_cursor([app.name for app in found], page),
            "apps": [app_json(app) for app in found],
        }

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """A new app."""
        patch = decode.app_patch(await request.body())
        validate_app_name(patch.name)
        now = self._clock.now()
        app = await self._store.create(App(name=patch.name, config=patch.config or {}, created_at=now, updated_at=now))
        return {"message": "App successfully created", "app": app_json(app)}

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """One app."""
        app = await self._store.get(request.app)
        return {"message": "Successfully loaded app", "app": app_json(app)}

    async def update(self, request: ApiRequest) -> dict[str, Any]:
        """Changes to an app's configuration."""
        patch = decode.app_patch(await request.body())
        if patch.name:  # even the name that it has
            raise AppsNameImmutable
        app = await self._store.update(request.app, patch, self._clock.now())
        return {"message": "App successfully updated", "app": app_json(app)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """An app, its routes, its calls."""
        await self._store.remove(request.app)
        return {"message": "App deleted"}
