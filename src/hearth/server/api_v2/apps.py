"""The apps of API v2: /v2/apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action, is_allowed
from hearth.models.app import App, validate_app
from hearth.models.errors import AppsNameImmutable, Forbidden
from hearth.models.fn_errors import AppIdMismatch, AppIdProvided
from hearth.server.api_v1.decode import per_page
from hearth.server.api_v2 import decode
from hearth.server.api_v2.encode import app_json, page_json
from hearth.server.api_v2.request import FnRequest
from hearth.server.api_v2.scope import AppChanged, Scope
from hearth.server.audit import concerns
from hearth.server.listeners import ListenedApps
from hearth.server.removal import check_removal
from hearth.stores.definitions.base import AppFilter


class Apps:
    """The operations on apps.

    Args:
        store: The apps.
        scope: Finds them by id.
        next_id: Returns a new id.
        changed: Called with the name of an app that was changed or removed.
    """

    def __init__(
        self, store: ListenedApps, scope: Scope, clock: Clock, next_id: Callable[[], str], changed: AppChanged
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock
        self._next_id = next_id
        self._changed = changed

    async def list(self, request: FnRequest) -> dict[str, Any]:
        """Return a page of apps."""
        page = per_page(request.query("per_page"))
        name, reached = request.query("name"), request.principal.apps
        names = reached or None
        if name:
            names = frozenset({name}) if request.principal.reaches(name) else frozenset()
        which = AppFilter(
            cursor=decode.cursor(request.query("cursor")),
            per_page=page,
            name_in=None if names is None else sorted(names),
        )
        found = await self._store.list(which)
        return page_json([_shown(request, app) for app in found], found[-1].name if found else "", page)

    async def create(self, request: FnRequest) -> dict[str, Any]:
        """Create an app."""
        given = decode.app_body(await request.body())
        if given.id:
            raise AppIdProvided
        now, patch = self._clock.now(), given.patch
        app = App(
            name=patch.name,
            id=self._next_id(),
            config=patch.config or {},
            annotations=patch.annotations or {},
            syslog_url=patch.syslog_url or "",
            shape=given.shape,
            created_at=now,
            updated_at=now,
        )
        validate_app(app)
        concerns(request.http.scope, app=app.name, name=app.id)
        if not request.principal.reaches(app.name):
            raise Forbidden(request.principal.role, Action.APPS_WRITE, request.principal.apps)
        return _shown(request, await self._store.create(app, validate_app))

    async def get(self, request: FnRequest) -> dict[str, Any]:
        """Return an app."""
        app = await self._scope.app(request, Action.APPS_READ, request.id)
        return _shown(request, await self._store.get(app.name, app_id=app.id))

    async def update(self, request: FnRequest) -> dict[str, Any]:
        """Change an app."""
        given = decode.app_body(await request.body())
        if given.id not in ("", request.id):
            raise AppIdMismatch
        app = await self._scope.app(request, Action.APPS_WRITE, request.id)
        concerns(request.http.scope, app=app.name)
        if given.patch.name not in ("", app.name):
            raise AppsNameImmutable
        changed = await self._store.update(app.name, given.patch, self._clock.now(), app_id=app.id, check=validate_app)
        await self._changed(app.name)
        return _shown(request, changed)

    async def remove(self, request: FnRequest) -> Response:
        """Delete an app with its routes, fns, triggers and calls."""
        app = await self._scope.app(request, Action.APPS_WRITE, request.id)
        concerns(request.http.scope, app=app.name)
        check_removal(request.principal, app)
        await self._store.remove(app.name, app_id=app.id)
        await self._changed(app.name)
        return Response(status_code=204)


def _shown(request: FnRequest, app: App) -> dict[str, Any]:
    return app_json(app, shows_config=is_allowed(request.principal, Action.CONFIG_READ, app.name))
