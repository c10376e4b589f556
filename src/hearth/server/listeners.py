"""Extensions that watch apps (operations specification 8.2): one layer around the store, for all of its users."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hearth.models.app import App, validate_app_name
from hearth.models.errors import AppsNotFound
from hearth.models.patch import AppPatch
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import AppCheck, AppFilter


class AppListener:
    """Watches what the API does with apps. Override what is of interest.

    What a hook raises ends the operation and is its answer: an :class:`~hearth.models.errors.ApiError` with its status,
    anything else as a 500. An error after a change does not take the change back.

    Apps and filters are shared, and frozen: a hook that wants another one returns it (``msgspec.structs.replace``,
    ``dataclasses.replace``); ``None`` leaves things as they are. A patch and a list may be changed in place.
    """

    async def before_app_create(self, app: App) -> App | None:
        """Return the app to store."""

    async def after_app_create(self, app: App) -> App | None:
        """Return the app to show."""

    async def before_app_update(self, patch: AppPatch) -> AppPatch | None:
        """Return the changes to store; ``patch.name`` names the app."""

    async def after_app_update(self, app: App) -> App | None:
        """Return the app to show; ``app`` is what is stored now."""

    async def before_app_delete(self, app: App) -> None:
        """Only the name of ``app`` is set."""

    async def after_app_delete(self, app: App) -> None:
        """Only the name of ``app`` is set."""

    async def before_app_get(self, app_name: str) -> None:
        """Somebody wants to see the app."""

    async def after_app_get(self, app: App) -> App | None:
        """Return the app to show."""

    async def before_apps_list(self, which: AppFilter) -> AppFilter | None:
        """Return the apps to look for."""

    async def after_apps_list(self, apps: list[App]) -> list[App] | None:
        """Return the apps to show."""


def _check_name(app: App) -> None:
    validate_app_name(app.name)


class ListenedApps:
    """The apps of a datastore; each operation passes the listeners, in their order."""

    def __init__(self, datastore: Datastore, listeners: Sequence[AppListener] = ()) -> None:
        self._datastore = datastore
        self._listeners = listeners

    async def create(self, app: App, check: AppCheck = _check_name) -> App:
        """Store a new app, if the check accepts it."""
        for listener in self._listeners:
            app = await listener.before_app_create(app) or app
        check(app)
        app = await self._datastore.insert_app(app)
        for listener in self._listeners:
            app = await listener.after_app_create(app) or app
        return app

    async def update(
        self, name: str, patch: AppPatch, now: dt.datetime, *, app_id: str = "", check: AppCheck | None = None
    ) -> App:
        """Merge changes into an app, which has this id, if one is given."""
        patch.name = name
        for listener in self._listeners:
            patch = await listener.before_app_update(patch) or patch
        app = await self._datastore.update_app(name, patch, now, app_id=app_id, check=check)
        for listener in self._listeners:
            app = await listener.after_app_update(app) or app
        return app

    async def remove(self, name: str, *, app_id: str = "") -> None:
        """Delete an app, which has this id, if one is given."""
        for listener in self._listeners:
            await listener.before_app_delete(App(name=name))
        await self._datastore.remove_app(name, app_id=app_id)
        for listener in self._listeners:
            await listener.after_app_delete(App(name=name))

    async def get(self, name: str, *, app_id: str = "") -> App:
        """Return an app, which has this id, if one is given."""
        for listener in self._listeners:
            await listener.before_app_get(name)
        app = await self._datastore.get_app(name)
        if app_id not in ("", app.id):
            raise AppsNotFound
        for listener in self._listeners:
            app = await listener.after_app_get(app) or app
        return app

    async def list(self, which: AppFilter) -> list[App]:
        """Return a page of apps."""
        for listener in self._listeners:
            which = await listener.before_apps_list(which) or which
        apps = await self._datastore.get_apps(which)
        for listener in self._listeners:
            changed = await listener.after_apps_list(apps)
            apps = apps if changed is None else changed
        return apps
