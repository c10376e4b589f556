"""Extensions that watch apps (operations specification 8.2): one layer around the store, whoever uses it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hearth.datastore.base import AppFilter, Datastore
from hearth.models.app import App, validate_app_name
from hearth.models.patch import AppPatch


class AppListener:
    """Watches what the API does with apps. Override what is of interest.

    What a hook raises ends the operation and is its answer: an :class:`~hearth.models.errors.ApiError` with its status,
    anything else as a 500. An error after a change does not take the change back.

    Apps and filters are shared, and frozen: a hook that wants another one returns it (``msgspec.structs.replace``,
    ``dataclasses.replace``); ``None`` leaves things as they are. A patch and a list may be changed in place.
    """

    async def before_app_create(self, app: App) -> App | None:
        """The app to store."""

    async def after_app_create(self, app: App) -> App | None:
        """The app to show."""

    async def before_app_update(self, patch: AppPatch) -> AppPatch | None:
        """The changes to store; ``patch.name`` names the app."""

    async def after_app_update(self, app: App) -> App | None:
        """The app to show; ``app`` is what is stored now."""

    async def before_app_delete(self, app: App) -> None:
        """Only the name of ``app`` is set."""

    async def after_app_delete(self, app: App) -> None:
        """Only the name of ``app`` is set."""

    async def before_app_get(self, app_name: str) -> None:
        """Somebody wants to see the app."""

    async def after_app_get(self, app: App) -> App | None:
        """The app to show."""

    async def before_apps_list(self, which: AppFilter) -> AppFilter | None:
        """The apps to look for."""

    async def after_apps_list(self, apps: list[App]) -> list[App] | None:
        """The apps to show."""


class ListenedApps:
    """The apps of a datastore; each operation passes the listeners, in their order."""

    def __init__(self, datastore: Datastore, listeners: Sequence[AppListener] = ()) -> None:
        self._datastore = datastore
        self._listeners = listeners

    async def create(self, app: App) -> App:
        """Store a new app."""
        for listener in self._listeners:
            app = await listener.before_app_create(app) or app
        validate_app_name(app.name)
        app = await self._datastore.insert_app(app)
        for listener in self._listeners:
            app = await listener.after_app_create(app) or app
        return app

    async def update(self, name: str, patch: AppPatch, now: dt.datetime) -> App:
        """Merge changes into an app."""
        patch.name = name
        for listener in self._listeners:
            patch = await listener.before_app_update(patch) or patch
        app = await self._datastore.update_app(name, patch, now)
        for listener in self._listeners:
            app = await listener.after_app_update(app) or app
        return app

    async def remove(self, name: str) -> None:
        """Delete an app."""
        for listener in self._listeners:
            await listener.before_app_delete(App(name=name))
        await self._datastore.remove_app(name)
        for listener in self._listeners:
            await listener.after_app_delete(App(name=name))

    async def get(self, name: str) -> App:
        """One app."""
        for listener in self._listeners:
            await listener.before_app_get(name)
        app = await self._datastore.get_app(name)
        for listener in self._listeners:
            app = await listener.after_app_get(app) or app
        return app

    async def list(self, which: AppFilter) -> list[App]:
        """A page of apps."""
        for listener in self._listeners:
            which = await listener.before_apps_list(which) or which
        apps = await self._datastore.get_apps(which)
        for listener in self._listeners:
            changed = await listener.after_apps_list(apps)
            apps = apps if changed is None else changed
        return apps
